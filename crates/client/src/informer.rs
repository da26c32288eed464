//! The current state of a kind, then every change.
//!
//! An informer opens a watch that starts with the current state (one stream, no separate list) and
//! yields [`Event`]s. When the stream breaks it resumes from the last revision it received; when
//! the server no longer has that revision (410) it starts over with `Init`, so that the consumer
//! replaces its state. It never ends and never yields an error: errors are logged and retried with
//! backoff.

use std::time::Duration;

use api::kind::DecodeError;
use api::{Kind, KindRef, KindRow};
use async_stream::stream;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::Stream;
use rpc::api_v1 as pb;

use crate::{Client, Error};

/// Minimum and maximum delay before a broken watch is reopened.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What an informer yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The current state follows; it replaces everything received before.
    Init,
    /// An object of the current state.
    InitApply(T),
    /// The current state is complete.
    InitDone,
    /// An object was added or modified.
    Apply(T),
    /// An object was deleted; its last state.
    Delete(T),
}

impl<T> Event<T> {
    /// Applies `f` to the object of the event.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Event<U> {
        match self {
            Self::Init => Event::Init,
            Self::InitApply(object) => Event::InitApply(f(object)),
            Self::InitDone => Event::InitDone,
            Self::Apply(object) => Event::Apply(f(object)),
            Self::Delete(object) => Event::Delete(f(object)),
        }
    }
}

/// What an informer watches.
#[derive(Clone, Debug, Default)]
pub struct InformerOptions {
    /// Empty: every namespace.
    pub namespace: String,
    pub label_selector: String,
    pub field_selector: String,
}

/// Objects of kind `K`, decoded, without the managed fields: nobody who watches reads them, and they
/// are a third of an object. The server keeps them when an object is written without.
pub fn informer<K: Kind>(
    client: Client,
    options: InformerOptions,
) -> impl Stream<Item = Event<K>> + Send + 'static {
    informer_with(client, K::ROW, options, pb::Representation::Full, |object| {
        let mut object = K::decode(&object.json)?;
        api::object::Object::metadata_mut(&mut object).managed_fields = None;
        Ok(object)
    })
}

/// Objects of the kind of `row`, decoded by `decode`. With
/// [`pb::Representation::PartialMetadata`] the JSON holds only metadata.
pub fn informer_with<T: Send + 'static>(
    client: Client,
    row: impl Into<KindRef>,
    options: InformerOptions,
    representation: pb::Representation,
    decode: impl Fn(&pb::Object) -> Result<T, DecodeError> + Send + 'static,
) -> impl Stream<Item = Event<T>> + Send + 'static {
    let row = row.into();
    stream! {
        let backoff = ExponentialBuilder::default().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times();
        let mut delays = backoff.build();
        let mut state = WatchState::default();
        loop {
            let request = state.request(&row, &options, representation);
            if state.revision.is_none() {
                state.restart();
                yield Event::Init;
            }
            match client.resources().watch(request).await {
                Err(status) => state.failed(&row, status.into()),
                Ok(response) => {
                    let mut batches = response.into_inner();
                    loop {
                        match batches.message().await {
                            Ok(Some(batch)) => {
                                delays = backoff.build();
                                for event in batch.events {
                                    for step in state.step(&row, event, &decode) {
                                        yield step;
                                    }
                                }
                                if state.broken {
                                    break;
                                }
                            }
                            Ok(None) => break,
                            Err(status) => {
                                state.failed(&row, status.into());
                                break;
                            }
                        }
                    }
                }
            }
            state.broken = false;
            tokio::time::sleep(delays.next().unwrap_or(RETRY_MAX)).await;
        }
    }
}

/// The state of a watch across reconnections.
#[derive(Debug, Default)]
struct WatchState {
    /// The revision to resume from; `None`: start over with the current state.
    revision: Option<u64>,
    /// Whether the current state is still being received.
    initializing: bool,
    /// Whether the server ended the watch with an error event.
    broken: bool,
}

impl WatchState {
    fn restart(&mut self) {
        self.initializing = true;
        self.broken = false;
    }

    fn request(
        &self,
        row: &KindRow,
        options: &InformerOptions,
        representation: pb::Representation,
    ) -> pb::WatchRequest {
        pb::WatchRequest {
            target: Some(crate::dynamic::target(row, &options.namespace, "", "")),
            label_selector: options.label_selector.clone(),
            field_selector: options.field_selector.clone(),
            resource_version: self
                .revision
                .map_or_else(String::new, |revision| revision.to_string()),
            allow_watch_bookmarks: true,
            send_initial_events: self.revision.is_none(),
            resource_version_match: if self.revision.is_none() {
                "NotOlderThan".into()
            } else {
                String::new()
            },
            timeout_seconds: 0,
            representation: representation.into(),
        }
    }

    fn failed(&mut self, row: &KindRow, error: Error) {
        if error.is_expired() || self.initializing {
            self.revision = None;
        }
        if !error.is_expired() {
            tracing::warn!(resource = %row, %error, "watch broke; reopening it");
        }
    }

    /// Translates an event of the watch.
    fn step<T>(
        &mut self,
        row: &KindRow,
        event: pb::WatchEvent,
        decode: &impl Fn(&pb::Object) -> Result<T, DecodeError>,
    ) -> Vec<Event<T>> {
        let kind = event.r#type();
        let object = event.object.unwrap_or_default();
        if kind == pb::EventType::Error {
            self.broken = true;
            match api::status::decode_status(&object.json) {
                Ok(status) => self.failed(row, Error::Api(api::ApiError::from_status(status))),
                Err(_) => self.revision = None,
            }
            return Vec::new();
        }
        if !self.initializing {
            self.revision = Some(object.revision.max(self.revision.unwrap_or(0)));
        }
        match kind {
            pb::EventType::Bookmark => {
                if self.initializing && event.initial_events_end {
                    self.initializing = false;
                    self.revision = Some(object.revision);
                    return vec![Event::InitDone];
                }
                Vec::new()
            }
            pb::EventType::Unspecified | pb::EventType::Error => Vec::new(),
            pb::EventType::Added | pb::EventType::Modified | pb::EventType::Deleted => {
                match decode(&object) {
                    Err(error) => {
                        tracing::error!(resource = %row, namespace = object.namespace, name = object.name, %error, "skipped an object that cannot be decoded");
                        Vec::new()
                    }
                    Ok(decoded) if kind == pb::EventType::Deleted => vec![Event::Delete(decoded)],
                    Ok(decoded) if self.initializing => vec![Event::InitApply(decoded)],
                    Ok(decoded) => vec![Event::Apply(decoded)],
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn event(kind: pb::EventType, revision: u64, end: bool) -> pb::WatchEvent {
        let json = format!(r#"{{"metadata":{{"name":"a","resourceVersion":"{revision}"}}}}"#);
        let object = pb::Object { revision, json: json.into(), ..Default::default() };
        pb::WatchEvent { r#type: kind.into(), object: Some(object), initial_events_end: end }
    }

    fn steps(state: &mut WatchState, event: pb::WatchEvent) -> Vec<&'static str> {
        let decode = |object: &pb::Object| ConfigMap::decode(&object.json);
        let name = |event: &Event<ConfigMap>| match event {
            Event::Apply(_) => "apply",
            Event::Delete(_) => "delete",
            Event::Init => "init",
            Event::InitApply(_) => "init-apply",
            Event::InitDone => "init-done",
        };
        state.step(ConfigMap::ROW, event, &decode).iter().map(name).collect()
    }

    #[test]
    fn current_state_then_changes() {
        let mut state = WatchState::default();
        state.restart();
        assert_eq!(steps(&mut state, event(pb::EventType::Added, 9, false)), ["init-apply"]);
        assert_eq!(state.revision, None, "a stream that breaks now must start over");
        assert_eq!(steps(&mut state, event(pb::EventType::Bookmark, 12, true)), ["init-done"]);
        assert_eq!(state.revision, Some(12));
        assert_eq!(steps(&mut state, event(pb::EventType::Modified, 13, false)), ["apply"]);
        assert_eq!(steps(&mut state, event(pb::EventType::Deleted, 14, false)), ["delete"]);
        assert!(steps(&mut state, event(pb::EventType::Bookmark, 20, false)).is_empty());
        assert_eq!(state.revision, Some(20));
    }

    #[test]
    fn an_expired_revision_starts_over_and_a_broken_stream_resumes() {
        let mut state = WatchState { revision: Some(5), ..Default::default() };
        state.failed(ConfigMap::ROW, Error::Transport(tonic::Status::unavailable("gone")));
        assert_eq!(state.revision, Some(5));
        let json = api::ApiError::expired("too old resource version: 5 (9)").encode();
        let object = pb::Object { json: json.into(), ..Default::default() };
        let expired = pb::WatchEvent {
            r#type: pb::EventType::Error.into(),
            object: Some(object),
            initial_events_end: false,
        };
        assert!(steps(&mut state, expired).is_empty());
        assert!(state.broken && state.revision.is_none());
    }
}
