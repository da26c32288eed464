//! Objects that another server has: calls about them become requests over HTTP, which the pipeline
//! admits and the aggregator forwards, as those of the other front end.
//!
//! Whatever the server answers is bounded: documents by the aggregator, pages and events here.

use api::ApiError;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::Method;
use http_body_util::BodyExt;
use rpc::api_v1 as pb;
use serde::Deserialize;
use serde_json::Value;

use super::service::ReplyStream;
use crate::aggregation::{Asked, Forward};
use crate::core::Core;
use crate::inflight::Seat;
use crate::request::Subject;
use crate::rest::{PIECE_BYTES, percent_encode};

/// Objects that a server is asked for at once.
const PAGE: u64 = 500;
/// The largest event of a watch: an object, and what is around it.
const EVENT_BYTES: usize = 4 << 20;
/// Marks the bookmark that ends the current state.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Where the objects of a target are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: String,
    query: Vec<(&'static str, String)>,
}

impl Place {
    /// Where the objects of a target are, if another server has them.
    pub fn of(core: &Core, target: &pb::Target) -> Option<Self> {
        let pb::Target { group, version, resource, .. } = target;
        let remote = core.aggregator.snapshot().remote(group, version).is_some();
        let own = core.cache.registry.by_resource(group, version, resource).is_some();
        (remote && !own).then(|| Self::new(target))
    }

    pub fn new(target: &pb::Target) -> Self {
        let pb::Target { group, version, resource, namespace, name, subresource } = target;
        let mut path = match group.as_str() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let namespaces = if namespace.is_empty() { "" } else { "namespaces" };
        for part in [namespaces, namespace, resource, name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(&percent_encode(part, b""));
            }
        }
        Self { path, query: Vec::new() }
    }

    /// With a parameter, unless it is empty.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.query.push((name, value));
        }
        self
    }

    /// With the options of a write.
    pub fn with_options(self, options: &pb::WriteOptions) -> Self {
        self.with("dryRun", if options.dry_run { "All" } else { "" })
            .with("fieldManager", &options.field_manager)
            .with("fieldValidation", &options.field_validation)
            .with("force", if options.force { "true" } else { "" })
    }

    pub fn parameters(&self) -> Vec<(String, String)> {
        self.query.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// A request to it, as the pipeline sees it.
    ///
    /// # Errors
    /// 404 when no other server has it any longer.
    pub fn subject(&self, core: &Core, method: &Method) -> Result<Subject, ApiError> {
        let (parameters, headers) = (self.parameters(), http::HeaderMap::new());
        let delegated = core.aggregator.delegated(method, &self.path, &parameters, &headers);
        delegated.map(Subject::Delegated).ok_or_else(ApiError::no_such_resource)
    }

    /// Path and query.
    pub fn url(&self) -> String {
        let mut url = self.path.clone();
        for (index, (name, value)) in self.query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&percent_encode(value, b""));
        }
        url
    }
}

/// What a server is asked for, so that it answers in a representation.
pub fn accept(representation: i32, list: bool) -> String {
    let form = match pb::Representation::try_from(representation) {
        Ok(pb::Representation::Table | pb::Representation::TableWithObjects) => "Table",
        Ok(pb::Representation::PartialMetadata) if list => "PartialObjectMetadataList",
        Ok(pb::Representation::PartialMetadata) => "PartialObjectMetadata",
        _ => return "application/json".to_owned(),
    };
    // Servers that do not know the form answer with the object.
    format!("application/json;as={form};g=meta.k8s.io;v=v1,application/json")
}

/// The parameter that goes with it.
pub fn include(representation: i32) -> &'static str {
    match pb::Representation::try_from(representation) {
        Ok(pb::Representation::TableWithObjects) => "Object",
        _ => "",
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: Metadata,
}

/// An object in its envelope.
///
/// # Errors
/// 500 when it is none.
pub fn object(json: Bytes) -> Result<pb::Object, ApiError> {
    let Head { metadata } = serde_json::from_slice(&json).map_err(|_| no_object())?;
    let revision = revision(&metadata.resource_version)?;
    let Metadata { namespace, name, uid, .. } = metadata;
    Ok(pb::Object { namespace, name, uid, revision, json })
}

fn no_object() -> ApiError {
    ApiError::internal("the server answered with something that is no object")
}

/// Clients resume watches from revisions, which are numbers here.
fn revision(version: &str) -> Result<u64, ApiError> {
    match version {
        "" => Ok(0),
        version => version.parse().map_err(|_| {
            ApiError::not_implemented(
                "the server's resource versions are no numbers: its objects are served over HTTP only",
            )
        }),
    }
}

/// A page of a list, as its server has it.
#[derive(Debug)]
pub struct Page {
    items: Vec<pb::Object>,
    revision: u64,
    continue_token: String,
    remaining: u64,
}

impl Page {
    /// # Errors
    /// 500 when it is no list.
    pub fn new(json: &Bytes) -> Result<Self, ApiError> {
        let mut list: Value = serde_json::from_slice(json).map_err(|_| no_object())?;
        if !list.is_object() {
            return Err(no_object());
        }
        let metadata = list["metadata"].take();
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let kind = list["kind"].as_str().unwrap_or_default().to_owned();
        let items = match list["items"].take() {
            // A Table is one object.
            _ if kind == "Table" => {
                vec![pb::Object { json: json.clone(), ..pb::Object::default() }]
            }
            Value::Array(items) => {
                let kind = kind.strip_suffix("List").unwrap_or_default();
                let typed =
                    items.into_iter().map(|item| with_type(item, kind, &list["apiVersion"]));
                typed.map(|item| object(item.to_string().into())).collect::<Result<_, _>>()?
            }
            Value::Null if kind.ends_with("List") => Vec::new(),
            _ => return Err(no_object()),
        };
        Ok(Self {
            items,
            revision: revision(&text("resourceVersion"))?,
            continue_token: text("continue"),
            remaining: metadata["remainingItemCount"].as_u64().unwrap_or_default(),
        })
    }

    /// The page as one message.
    pub fn message(mut self) -> pb::ListPage {
        let items = std::mem::take(&mut self.items);
        self.with_items(items)
    }

    fn with_items(&self, items: Vec<pb::Object>) -> pb::ListPage {
        pb::ListPage {
            items,
            revision: self.revision,
            continue_token: self.continue_token.clone(),
            remaining_item_count: self.remaining,
        }
    }

    /// The page in messages of about [`PIECE_BYTES`].
    pub fn messages(mut self) -> Vec<pb::ListPage> {
        let (mut messages, mut items, mut size) = (Vec::new(), Vec::new(), 0);
        for item in std::mem::take(&mut self.items) {
            size += item.json.len();
            items.push(item);
            if size >= PIECE_BYTES {
                messages.push(self.with_items(std::mem::take(&mut items)));
                size = 0;
            }
        }
        if messages.is_empty() || !items.is_empty() {
            messages.push(self.with_items(items));
        }
        messages
    }
}

/// An item of a list with the type that servers leave out.
fn with_type(mut item: Value, kind: &str, version: &Value) -> Value {
    if let Some(members) = item.as_object_mut()
        && !kind.is_empty()
    {
        members.entry("kind").or_insert_with(|| kind.into());
        members.entry("apiVersion").or_insert_with(|| version.clone());
    }
    item
}

/// Reads a list page by page. `limit`: as many as the client wants in one; 0: all there are.
pub fn pages(
    forward: Forward,
    place: Place,
    accept: String,
    limit: u64,
) -> impl Stream<Item = Result<pb::ListPage, ApiError>> + Send + 'static {
    async_stream::try_stream! {
        let mut token = String::new();
        loop {
            let size = if limit > 0 { limit } else { PAGE };
            let next = place.clone().with("limit", size.to_string()).with("continue", &token);
            let url = next.url();
            let document = forward.clone().fetch(Asked::document(&url, &accept, "")).await?;
            let mut page = Page::new(&document.body)?;
            let more = limit == 0 && !page.continue_token.is_empty();
            token = page.continue_token.clone();
            if limit == 0 {
                (page.continue_token, page.remaining) = (String::new(), 0);
            }
            for message in page.messages() {
                yield message;
            }
            if !more {
                break;
            }
        }
    }
}

/// What a watch is asked for.
pub struct Watched {
    pub place: Place,
    /// Parameters of the watch, but not of the list before it.
    pub more: [(&'static str, String); 2],
    pub representation: i32,
    /// The current state first.
    pub initial: bool,
    pub resource_version: String,
}

/// The events of a watch. Not every server sends the current state by itself: it is listed.
pub fn events(forward: Forward, watched: Watched, seat: Seat) -> ReplyStream<pb::WatchEvents> {
    Box::pin(async_stream::stream! {
        // As of any watch that has begun.
        seat.answered(200);
        let _until_the_end = seat;
        let events = read_events(forward, watched);
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => yield Ok(pb::WatchEvents { events: vec![event] }),
                Err(error) => {
                    let object = pb::Object { json: error.encode().into(), ..Default::default() };
                    let event = of_type(pb::EventType::Error, object);
                    yield Ok(pb::WatchEvents { events: vec![event] });
                    return;
                }
            }
        }
    })
}

fn of_type(kind: pb::EventType, object: pb::Object) -> pb::WatchEvent {
    pb::WatchEvent { r#type: kind.into(), object: Some(object), initial_events_end: false }
}

fn read_events(
    forward: Forward,
    watched: Watched,
) -> impl Stream<Item = Result<pb::WatchEvent, ApiError>> + Send + 'static {
    async_stream::try_stream! {
        let Watched { mut place, more, representation, initial, mut resource_version } = watched;
        if initial {
            let accept = accept(representation, true);
            let pages = pages(forward.clone(), place.clone(), accept, 0);
            let mut pages = std::pin::pin!(pages);
            let mut revision = 0;
            while let Some(page) = pages.next().await {
                let page = page?;
                revision = page.revision;
                for object in page.items {
                    yield of_type(pb::EventType::Added, object);
                }
            }
            let object = pb::Object { revision, ..pb::Object::default() };
            let end = of_type(pb::EventType::Bookmark, object);
            yield pb::WatchEvent { initial_events_end: true, ..end };
            resource_version = revision.to_string();
        }
        for (name, value) in more {
            place = place.with(name, value);
        }
        let place = place.with("watch", "true").with("resourceVersion", resource_version);
        let (url, accept) = (place.url(), accept(representation, false));
        let mut body = forward.open(Asked::document(&url, &accept, "")).await?;
        let mut received = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                ApiError::service_unavailable("the connection to the server has ended")
            })?;
            let Ok(data) = frame.into_data() else { continue };
            received.extend_from_slice(&data);
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line = received.split_to(end + 1).freeze();
                if let Some(event) = event(&line)? {
                    yield event;
                }
            }
            if received.len() > EVENT_BYTES {
                Err(ApiError::internal("an event of the server is too large"))?;
            }
        }
    }
}

/// An event from a line; `None`: an empty line.
fn event(line: &[u8]) -> Result<Option<pb::WatchEvent>, ApiError> {
    #[derive(Deserialize)]
    struct Line<'a> {
        r#type: &'a str,
        #[serde(borrow)]
        object: &'a serde_json::value::RawValue,
    }
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let no_event = || ApiError::internal("the server sent something that is no event");
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| no_event())?;
    let kind = match line.r#type {
        "ADDED" => pb::EventType::Added,
        "MODIFIED" => pb::EventType::Modified,
        "DELETED" => pb::EventType::Deleted,
        "BOOKMARK" => pb::EventType::Bookmark,
        "ERROR" => {
            let status = api::status::decode_status(line.object.get().as_bytes());
            return Err(status.map_or_else(|_| no_event(), ApiError::from_status));
        }
        _ => return Err(no_event()),
    };
    let json = Bytes::copy_from_slice(line.object.get().as_bytes());
    let head: Head = serde_json::from_slice(&json).map_err(|_| no_event())?;
    let ends = head.metadata.annotations.get(INITIAL_END).is_some_and(|value| value == "true");
    let event = of_type(kind, object(json)?);
    Ok(Some(pb::WatchEvent { initial_events_end: ends, ..event }))
}

/// The content type of a patch.
///
/// # Errors
/// 400 when the client names none.
pub fn patch_content(kind: pb::PatchType) -> Result<&'static str, ApiError> {
    Ok(match kind {
        pb::PatchType::JsonPatch => "application/json-patch+json",
        pb::PatchType::MergePatch => "application/merge-patch+json",
        pb::PatchType::StrategicMergePatch => "application/strategic-merge-patch+json",
        pb::PatchType::ApplyPatch => "application/apply-patch+yaml",
        pb::PatchType::PatchUnspecified => {
            return Err(ApiError::bad_request("the patch has no type"));
        }
    })
}

/// A request with a body.
#[derive(Clone, Debug)]
pub struct Written {
    pub method: Method,
    pub place: Place,
    /// The error of a patch without a type.
    pub content_type: Result<&'static str, ApiError>,
    pub body: Bytes,
}

impl Written {
    pub fn json(method: Method, place: Place, body: Bytes) -> Self {
        Self { method, place, content_type: Ok("application/json"), body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(namespace: &str, name: &str) -> pb::Target {
        pb::Target {
            group: "g.io".into(),
            version: "v1".into(),
            resource: "things".into(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: String::new(),
        }
    }

    #[test]
    fn a_name_stays_one_part_of_its_path() {
        for (namespace, name, url) in [
            ("", "", "/apis/g.io/v1/things"),
            ("n", "a", "/apis/g.io/v1/namespaces/n/things/a"),
            ("", "../a?b#c", "/apis/g.io/v1/things/..%2Fa%3Fb%23c"),
        ] {
            assert_eq!(Place::new(&target(namespace, name)).url(), url);
        }
        let place = Place::new(&target("n", "")).with("labelSelector", "a=b,c").with("limit", "");
        assert_eq!(place.url(), "/apis/g.io/v1/namespaces/n/things?labelSelector=a%3Db%2Cc");
    }

    #[test]
    fn items_get_the_type_that_their_list_has() {
        let list = r#"{"kind":"ThingList","apiVersion":"g.io/v1","metadata":{"resourceVersion":"7","continue":"t"},
            "items":[{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"3"}}]}"#;
        let page = Page::new(&Bytes::from_static(list.as_bytes())).unwrap();
        assert_eq!((page.revision, page.continue_token.as_str(), page.items.len()), (7, "t", 1));
        let item: Value = serde_json::from_slice(&page.items[0].json).unwrap();
        assert_eq!((&item["kind"], &item["apiVersion"]), (&"Thing".into(), &"g.io/v1".into()));
        assert_eq!((&*page.items[0].uid, page.items[0].revision), ("u", 3));
        for (json, code) in [
            (r#"{"kind":"Thing","items":3}"#, 500),
            ("[]", 500),
            ("x", 500),
            (r#"{"kind":"ThingList","metadata":{"resourceVersion":"a7"},"items":[]}"#, 501),
        ] {
            assert_eq!(
                Page::new(&Bytes::from_static(json.as_bytes())).unwrap_err().code(),
                code,
                "{json}"
            );
        }
    }

    #[test]
    fn lines_are_events() {
        let of = |line: &str| event(line.as_bytes());
        let added =
            of(r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}}}"#);
        let added = added.unwrap().unwrap();
        assert_eq!((added.r#type(), added.object.unwrap().revision), (pb::EventType::Added, 3));
        let end = of(
            r#"{"type":"BOOKMARK","object":{"metadata":{"annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
        );
        assert!(end.unwrap().unwrap().initial_events_end);
        assert!(of("\n").unwrap().is_none());
        let gone = of(
            r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410,"reason":"Expired","message":"old"}}"#,
        );
        assert_eq!(gone.unwrap_err().code(), 410);
        for line in ["x", r#"{"type":"OTHER","object":{}}"#, r#"{"type":"ADDED","object":7}"#] {
            assert_eq!(of(line).unwrap_err().code(), 500, "{line}");
        }
    }
}
