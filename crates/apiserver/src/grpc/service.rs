//! The service: each call becomes one request to the pipeline.

use std::pin::Pin;
use std::sync::Arc;

use api::{ApiError, Kind};
use bytes::Bytes;
use clock::SharedClock;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use rpc::api_v1 as pb;
use rpc::scheduler_v1::ExplainResponse;
use rpc::status::to_grpc;
use tonic::{Request as Call, Response as Answer, Status, Streaming};
use tower::ServiceExt;

use super::elsewhere::{self, Place, Watched, Written};
use super::{bind, convert, stream};
use crate::aggregation::{Asked, Forward};
use crate::answer::in_time;
use crate::authn;
use crate::body::MAX_BODY_BYTES;
use crate::cache::{Change, WatchEvent, Watcher};
use crate::connect;
use crate::connect::Connection;
use crate::core::Core;
use crate::inflight::Seat;
use crate::pipeline::{Pipeline, Pipelines};
use crate::request::{ClientInfo, Head, Options, Request, Subject, Target, Verb};
use crate::response::{ListAnswer, Response, bounded};
use crate::rest::{Accept, PIECE_BYTES, Pieces, Representation, bookmark};
use crate::scheduler;
use crate::user::Credentials;

type Reply<T> = Result<Answer<T>, Status>;
pub(super) type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct Resources {
    pipeline: Pipeline,
    core: Arc<Core>,
}

impl Resources {
    pub fn new(pipelines: &Pipelines, core: Arc<Core>) -> Self {
        Self { pipeline: pipelines.whole.clone(), core }
    }

    async fn head(
        &self,
        verb: Verb,
        target: Option<pb::Target>,
        options: Result<Options, ApiError>,
    ) -> Head {
        convert::head(&self.core, verb, target, options).await
    }

    /// Where the objects of a target are, if another server has them.
    fn elsewhere(&self, target: Option<&pb::Target>) -> Option<Place> {
        Place::of(&self.core, target?)
    }

    /// The way to the server that has them, once the request is admitted.
    async fn forward(
        &self,
        caller: Caller,
        method: &http::Method,
        place: &Place,
    ) -> Result<Forward, Status> {
        let subject = place.subject(&self.core, method).map_err(refuse)?;
        let options = Options { parameters: place.parameters(), ..Options::default() };
        let response = self.ask(caller, Head::new(subject, options), Bytes::new()).await?;
        if let Response::Connect(connection) = response
            && let Connection::Delegated(forward) = *connection
        {
            return Ok(*forward);
        }
        Err(refuse(ApiError::internal("a server answered with something else")))
    }

    async fn write_elsewhere(&self, caller: Caller, written: Written) -> Reply<pb::Object> {
        let Written { method, place, content_type, body } = written;
        let seat = caller.seat.clone();
        let forward = self.forward(caller, &method, &place).await?;
        let (path, accept) = (place.url(), "application/json");
        let content_type = fetched(&seat, content_type)?;
        let asked = Asked { method, path: &path, accept, etag: "", content_type, body };
        let document = fetched(&seat, forward.fetch(asked).await)?;
        Ok(Answer::new(elsewhere::object(document.body).map_err(refuse)?))
    }

    async fn ask(&self, caller: Caller, head: Head, body: Bytes) -> Result<Response, Status> {
        let request = Request {
            options: head.options,
            refused: head.refused,
            body,
            seat: caller.seat,
            client: caller.client,
            ..Request::new(head.subject, caller.credentials)
        };
        self.pipeline.clone().oneshot(request).await.map_err(|error| to_grpc(&error))
    }

    async fn write(&self, caller: Caller, mut head: Head, json: Bytes) -> Reply<pb::Object> {
        if json.len() > MAX_BODY_BYTES {
            let limit = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
            head.refuse(Err(ApiError::too_large(limit)));
        }
        let notes = head.options.notes.clone();
        let response = self.ask(caller, head, json).await;
        let response = response.map_err(|mut status| {
            add_warnings(status.metadata_mut(), &notes.all());
            status
        })?;
        let mut warnings = match &response {
            Response::Object(answer) => answer.warnings.clone(),
            Response::Json { warnings, .. } => warnings.clone(),
            _ => Vec::new(),
        };
        warnings.extend(notes.all());
        let object =
            convert::object(response, &Accept::default(), self.core.clock.now()).map_err(refuse)?;
        let mut answer = Answer::new(object);
        add_warnings(answer.metadata_mut(), &warnings);
        Ok(answer)
    }
}

/// Collections that another server has.
impl Resources {
    async fn list_elsewhere(
        &self,
        caller: Caller,
        place: Place,
        message: pb::ListRequest,
    ) -> Reply<ReplyStream<pb::ListPage>> {
        let (limit, representation) = (message.limit, message.representation);
        let place = place
            .with("labelSelector", message.label_selector)
            .with("fieldSelector", message.field_selector)
            .with("resourceVersion", message.resource_version)
            .with("resourceVersionMatch", message.resource_version_match)
            .with("includeObject", elsewhere::include(representation))
            .with("continue", message.continue_token);
        let seat = caller.seat.clone();
        let forward = self.forward(caller, &http::Method::GET, &place).await?;
        let accept = elsewhere::accept(representation, true);
        let mut pages = Box::pin(elsewhere::pages(forward, place, accept, limit));
        // What is wrong with the request is its answer, and no part of a stream.
        let first = fetched(&seat, pages.next().await.transpose())?;
        let pages = futures::stream::iter(first.map(Ok)).chain(pages);
        let pages = pages.map(move |page| {
            let _until_the_end = &seat;
            page.map_err(refuse)
        });
        Ok(Answer::new(Box::pin(pages)))
    }

    async fn watch_elsewhere(
        &self,
        caller: Caller,
        place: Place,
        message: pb::WatchRequest,
    ) -> Reply<ReplyStream<pb::WatchEvents>> {
        let timeout = match message.timeout_seconds {
            0 => String::new(),
            seconds => seconds.to_string(),
        };
        let place = place
            .with("labelSelector", message.label_selector)
            .with("fieldSelector", message.field_selector)
            .with("includeObject", elsewhere::include(message.representation));
        let seat = caller.seat.clone();
        let asked = place.clone().with("watch", "true");
        let forward = self.forward(caller, &http::Method::GET, &asked).await?;
        let bookmarks = if message.allow_watch_bookmarks { "true" } else { "" };
        let watched = Watched {
            place,
            more: [("timeoutSeconds", timeout), ("allowWatchBookmarks", bookmarks.to_owned())],
            representation: message.representation,
            initial: message.send_initial_events,
            resource_version: message.resource_version,
        };
        Ok(Answer::new(elsewhere::events(forward, watched, seat)))
    }

    async fn delete_all_elsewhere(
        &self,
        caller: Caller,
        place: Place,
        message: pb::DeleteCollectionRequest,
    ) -> Reply<pb::ListPage> {
        let place = place
            .with("labelSelector", message.label_selector)
            .with("fieldSelector", message.field_selector)
            .with("dryRun", if message.dry_run { "All" } else { "" });
        let (method, seat) = (http::Method::DELETE, caller.seat.clone());
        let forward = self.forward(caller, &method, &place).await?;
        let (path, body) = (place.url(), message.options_json);
        let accept = "application/json";
        let asked = Asked { method, path: &path, accept, etag: "", content_type: accept, body };
        let document = fetched(&seat, forward.fetch(asked).await)?;
        let page = elsewhere::Page::new(&document.body).map_err(refuse)?;
        Ok(Answer::new(page.message()))
    }
}

/// What another server has answered, whose code is noted.
fn fetched<T>(seat: &Seat, answer: Result<T, ApiError>) -> Result<T, Status> {
    seat.answered(answer.as_ref().err().map_or(200, ApiError::code));
    answer.map_err(refuse)
}

fn add_warnings(metadata: &mut tonic::metadata::MetadataMap, warnings: &[String]) {
    for warning in bounded(warnings) {
        if let Ok(value) = warning.parse() {
            metadata.append("warning", value);
        }
    }
}

/// Who calls, and the seat of the call.
struct Caller {
    credentials: Credentials,
    seat: Seat,
    client: Arc<ClientInfo>,
}

/// The connection's certificate, a bearer token, impersonation; and the seat from the gate.
fn caller<T>(call: &Call<T>) -> Caller {
    let credentials = authn::credentials(call.metadata().as_ref(), call.extensions());
    let seat = call.extensions().get().cloned().unwrap_or_default();
    let client = call.extensions().get().cloned().unwrap_or_default();
    Caller { credentials, seat, client }
}

fn refuse(error: ApiError) -> Status {
    to_grpc(&error)
}

#[tonic::async_trait]
impl pb::resources_server::Resources for Resources {
    type ListStream = ReplyStream<pb::ListPage>;
    type WatchStream = ReplyStream<pb::WatchEvents>;
    type BindStream = ReplyStream<pb::BindResponse>;
    type StreamStream = ReplyStream<pb::Frame>;

    async fn get(&self, call: Call<pb::GetRequest>) -> Reply<pb::Object> {
        let caller = caller(&call);
        let message = call.into_inner();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            let place = place
                .with("resourceVersion", message.resource_version)
                .with("includeObject", elsewhere::include(message.representation));
            let seat = caller.seat.clone();
            let forward = self.forward(caller, &http::Method::GET, &place).await?;
            let (path, accept) = (place.url(), elsewhere::accept(message.representation, false));
            let asked = Asked::document(&path, &accept, "");
            let document = fetched(&seat, forward.fetch(asked).await)?;
            return Ok(Answer::new(elsewhere::object(document.body).map_err(refuse)?));
        }
        let options = Options { resource_version: message.resource_version, ..Options::default() };
        let head = self.head(Verb::Get, message.target, Ok(options)).await;
        let response = self.ask(caller, head, Bytes::new()).await?;
        let accept = convert::accept(message.representation);
        let object = convert::object(response, &accept, self.core.clock.now()).map_err(refuse)?;
        Ok(Answer::new(object))
    }

    async fn list(&self, call: Call<pb::ListRequest>) -> Reply<Self::ListStream> {
        let caller = caller(&call);
        let message = call.into_inner();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            return self.list_elsewhere(caller, place, message).await;
        }
        let options = convert::list_options(&message);
        let head = self.head(Verb::List, message.target, options).await;
        let seat = caller.seat.clone();
        match self.ask(caller, head, Bytes::new()).await? {
            Response::List(list) => Ok(Answer::new(pages(
                list,
                convert::accept(message.representation),
                self.core.clock.now(),
                seat,
            ))),
            _ => Err(refuse(ApiError::internal("a list answered with something else"))),
        }
    }

    async fn watch(&self, call: Call<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        let caller = caller(&call);
        let message = call.into_inner();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            return self.watch_elsewhere(caller, place, message).await;
        }
        let options = convert::watch_options(&message);
        let head = self.head(Verb::Watch, message.target, options).await;
        let seat = caller.seat.clone();
        match self.ask(caller, head, Bytes::new()).await? {
            Response::Watch(watcher) => Ok(Answer::new(events(
                *watcher,
                convert::accept(message.representation),
                self.core.clock.clone(),
                seat,
            ))),
            _ => Err(refuse(ApiError::internal("a watch answered with something else"))),
        }
    }

    async fn create(&self, call: Call<pb::CreateRequest>) -> Reply<pb::Object> {
        let caller = caller(&call);
        let message = call.into_inner();
        let target = message.target.map(convert::of_creation);
        if let Some(place) = self.elsewhere(target.as_ref()) {
            let place = place.with_options(&message.options.unwrap_or_default());
            let written = Written::json(http::Method::POST, place, message.json);
            return self.write_elsewhere(caller, written).await;
        }
        let options = convert::write_options(Verb::Create, message.options);
        let head = self.head(Verb::Create, target, options).await;
        self.write(caller, head, message.json).await
    }

    async fn update(&self, call: Call<pb::UpdateRequest>) -> Reply<pb::Object> {
        let caller = caller(&call);
        let message = call.into_inner();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            let place = place.with_options(&message.options.unwrap_or_default());
            let written = Written::json(http::Method::PUT, place, message.json);
            return self.write_elsewhere(caller, written).await;
        }
        let options = convert::write_options(Verb::Update, message.options);
        let head = self.head(Verb::Update, message.target, options).await;
        self.write(caller, head, message.json).await
    }

    async fn patch(&self, call: Call<pb::PatchRequest>) -> Reply<pb::Object> {
        let caller = caller(&call);
        let message = call.into_inner();
        let kind = message.r#type();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            let place = place.with_options(&message.options.unwrap_or_default());
            let content_type = elsewhere::patch_content(kind);
            let (method, body) = (http::Method::PATCH, message.patch);
            let written = Written { method, place, content_type, body };
            return self.write_elsewhere(caller, written).await;
        }
        let options = convert::write_options(Verb::Patch, message.options);
        let options =
            options.map(|options| Options { patch_type: convert::patch_type(kind), ..options });
        let head = self.head(Verb::Patch, message.target, options).await;
        self.write(caller, head, message.patch).await
    }

    async fn delete(&self, call: Call<pb::DeleteRequest>) -> Reply<pb::Object> {
        let caller = caller(&call);
        let message = call.into_inner();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            let place = place.with("dryRun", if message.dry_run { "All" } else { "" });
            let written = Written::json(http::Method::DELETE, place, message.options_json);
            return self.write_elsewhere(caller, written).await;
        }
        let options = Options { dry_run: message.dry_run, ..Options::default() };
        let head = self.head(Verb::Delete, message.target, Ok(options)).await;
        self.write(caller, head, message.options_json).await
    }

    async fn delete_collection(
        &self,
        call: Call<pb::DeleteCollectionRequest>,
    ) -> Reply<pb::ListPage> {
        let caller = caller(&call);
        let message = call.into_inner();
        if let Some(place) = self.elsewhere(message.target.as_ref()) {
            return self.delete_all_elsewhere(caller, place, message).await;
        }
        let mut options = Options { dry_run: message.dry_run, ..Options::default() };
        let selected =
            convert::selectors(&mut options, &message.label_selector, &message.field_selector);
        let options = selected.map(|()| options);
        let head = self.head(Verb::DeleteCollection, message.target, options).await;
        match self.ask(caller, head, message.options_json).await? {
            Response::List(list) => Ok(Answer::new(pb::ListPage {
                items: list
                    .items
                    .iter()
                    .map(|item| convert::envelope(item, item.json.clone()))
                    .collect(),
                revision: list.revision,
                ..pb::ListPage::default()
            })),
            _ => Err(refuse(ApiError::internal("a collection answered with something else"))),
        }
    }

    async fn bind(&self, call: Call<Streaming<pb::BindRequest>>) -> Reply<Self::BindStream> {
        let caller = caller(&call);
        let pipeline = self.pipeline.clone();
        Ok(Answer::new(bind::answers(
            pipeline,
            caller.credentials,
            caller.client,
            call.into_inner(),
        )))
    }

    async fn stream(&self, call: Call<Streaming<pb::StreamRequest>>) -> Reply<Self::StreamStream> {
        let caller = caller(&call);
        let mut requests = call.into_inner();
        let Some(pb::StreamRequest { kind: Some(pb::stream_request::Kind::Open(open)) }) =
            requests.message().await?
        else {
            return Err(refuse(ApiError::bad_request("a stream begins with `open`")));
        };
        let parameters = open.parameters.into_iter().map(|one| (one.name, one.value)).collect();
        let options = Options { parameters, ..Options::default() };
        let verb = Verb::Connect { authorized_as: "get" };
        let mut head = self.head(verb, open.target, Ok(options)).await;
        if let Subject::Resource { verb, target } = &mut head.subject {
            match connect::Stream::of(target) {
                Some(kind) if kind.is_session() => {
                    *verb = Verb::Connect { authorized_as: "create" };
                }
                Some(_) => {}
                None => {
                    let error = ApiError::method_not_allowed(&target.row, "stream");
                    head.refuse(Err(error));
                }
            }
        }
        let seat = caller.seat.clone();
        match self.ask(caller, head, Bytes::new()).await? {
            Response::Connect(connection) => {
                let frames = stream::frames(*connection, requests, seat).await;
                Ok(Answer::new(frames.map_err(refuse)?))
            }
            _ => Err(refuse(ApiError::bad_request("the target cannot be streamed"))),
        }
    }

    async fn explain(&self, call: Call<pb::ExplainRequest>) -> Reply<ExplainResponse> {
        let caller = caller(&call);
        let pb::ExplainRequest { namespace, name } = call.into_inner();
        let (row, subresource, subpath) = (Pod::ROW.into(), String::new(), String::new());
        let target = Target { row, namespace, name, subresource, subpath };
        let subject = Subject::Resource { verb: Verb::Get, target };
        match self.ask(caller, Head::new(subject, Options::default()), Bytes::new()).await? {
            Response::Object(pod) => {
                let explained = scheduler::explain(&self.core, &pod.version.uid).await;
                Ok(Answer::new(explained.map_err(refuse)?))
            }
            _ => Err(refuse(ApiError::internal("a pod answered with something else"))),
        }
    }

    async fn get_path(&self, call: Call<pb::GetPathRequest>) -> Reply<pb::GetPathResponse> {
        let caller = caller(&call);
        let message = call.into_inner();
        let (path, query) = message.path.split_once('?').unwrap_or((&message.path, ""));
        let parameters = crate::rest::parse_query(query);
        let aggregator = &self.core.aggregator;
        let delegated =
            aggregator.delegated(&http::Method::GET, path, &parameters, &http::HeaderMap::new());
        let accept = message.accept.clone();
        let subject = match delegated {
            Some(delegated) => Subject::Delegated(delegated),
            None => Subject::Path { path: path.to_owned(), method: "get", accept },
        };
        let options = Options { parameters, ..Options::default() };
        let seat = caller.seat.clone();
        match self.ask(caller, Head::new(subject, options), Bytes::new()).await? {
            Response::Raw { content_type, body, .. } => {
                Ok(Answer::new(pb::GetPathResponse { content_type, body }))
            }
            Response::Http(response) => http_path(*response).map_err(refuse),
            Response::Connect(connection) => {
                fetched(&seat, delegated_path(*connection, &message).await)
            }
            Response::Json { json, .. } => Ok(Answer::new(pb::GetPathResponse {
                content_type: "application/json".to_owned(),
                body: json,
            })),
            _ => Err(refuse(ApiError::internal("a path answered with something else"))),
        }
    }
}

/// An answer with a status and headers, of which those that are known here remain.
fn http_path(response: http::Response<Bytes>) -> Result<Answer<pb::GetPathResponse>, ApiError> {
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let message = String::from_utf8_lossy(&body).trim_end().to_owned();
        return Err(ApiError::new(head.status.as_u16(), "", message));
    }
    let content_type = head.headers.get(http::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok(Answer::new(pb::GetPathResponse { content_type: content_type.to_owned(), body }))
}

/// What another server answers.
async fn delegated_path(
    connection: Connection,
    message: &pb::GetPathRequest,
) -> Result<Answer<pb::GetPathResponse>, ApiError> {
    let Connection::Delegated(forward) = connection else {
        return Err(ApiError::internal("a path answered with something else"));
    };
    let accept = Some(message.accept.as_str()).filter(|accept| !accept.is_empty());
    let asked = Asked::document(&message.path, accept.unwrap_or("*/*"), "");
    let document = forward.fetch(asked).await?;
    let content_type = document.header(http::header::CONTENT_TYPE).to_owned();
    Ok(Answer::new(pb::GetPathResponse { content_type, body: document.body }))
}

/// A list as pages of about [`PIECE_BYTES`]; of a Table, each page is a Table with its rows.
fn pages(
    list: ListAnswer,
    accept: Accept,
    now: Timestamp,
    seat: Seat,
) -> ReplyStream<pb::ListPage> {
    let size: usize = list.items.iter().map(|item| item.json.len()).sum();
    let pages = make_pages(list, accept, now);
    if size <= PIECE_BYTES {
        return Box::pin(pages);
    }
    let late = || Err(Status::deadline_exceeded("the client did not read the answer in time"));
    Box::pin(in_time(pages, seat, late))
}

fn make_pages(
    mut list: ListAnswer,
    accept: Accept,
    now: Timestamp,
) -> impl Stream<Item = Result<pb::ListPage, Status>> + Send + 'static {
    async_stream::try_stream! {
        let head = pb::ListPage {
            items: Vec::new(),
            revision: list.revision,
            continue_token: list.continue_token.clone(),
            remaining_item_count: list.remaining.unwrap_or_default(),
        };
        let mut items = std::mem::take(&mut list.items).into_iter().peekable();
        loop {
            let (mut page, mut size) = (Vec::new(), 0);
            while size < PIECE_BYTES
                && let Some(item) = items.next()
            {
                size += item.json.len();
                page.push(item);
            }
            let items_of_page = if accept.representation == Representation::Table {
                let part = ListAnswer { items: page, ..list.clone() };
                let json = Pieces::new(part, &accept, now).whole().map_err(refuse)?;
                vec![pb::Object { json, ..Default::default() }]
            } else {
                let objects = page.iter().map(|item| convert::represent(&list.row, item, &accept, now));
                objects.collect::<Result<_, _>>().map_err(refuse)?
            };
            yield pb::ListPage { items: items_of_page, ..head.clone() };
            if items.peek().is_none() {
                break;
            }
        }
    }
}

/// A watch as messages of one or more events.
fn events(
    mut watcher: Watcher,
    accept: Accept,
    clock: SharedClock,
    seat: Seat,
) -> ReplyStream<pb::WatchEvents> {
    Box::pin(async_stream::stream! {
        let _until_the_end = seat;
        let row = watcher.row().clone();
        while let Some(events) = watcher.next().await {
            let now = clock.now();
            let batch: Result<Vec<_>, ApiError> = events
                .and_then(|events| events.iter().map(|event| watch_event(&row, event, &accept, now)).collect());
            match batch {
                Ok(events) => yield Ok(pb::WatchEvents { events }),
                Err(error) => {
                    let object = pb::Object { json: error.encode().into(), ..Default::default() };
                    let event = pb::WatchEvent {
                        r#type: pb::EventType::Error.into(),
                        object: Some(object),
                        initial_events_end: false,
                    };
                    yield Ok(pb::WatchEvents { events: vec![event] });
                    return;
                }
            }
        }
    })
}

fn watch_event(
    row: &api::KindRef,
    event: &WatchEvent,
    accept: &Accept,
    now: Timestamp,
) -> Result<pb::WatchEvent, ApiError> {
    let (kind, object, initial_events_end) = match event {
        WatchEvent::Initial(version) => {
            (pb::EventType::Added, convert::represent(row, version, accept, now)?, false)
        }
        WatchEvent::Changed(change, event) => {
            let kind = match change {
                Change::Added => pb::EventType::Added,
                Change::Modified => pb::EventType::Modified,
                Change::Deleted => pb::EventType::Deleted,
            };
            (kind, convert::represent(row, event.object(*change), accept, now)?, false)
        }
        WatchEvent::Bookmark { revision, initial_end } => {
            let json = bookmark(row, *revision, *initial_end, accept.representation);
            let object = pb::Object { revision: *revision, json, ..pb::Object::default() };
            (pb::EventType::Bookmark, object, *initial_end)
        }
    };
    Ok(pb::WatchEvent { r#type: kind.into(), object: Some(object), initial_events_end })
}
