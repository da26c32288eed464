//! Kubernetes Events: what a component did to an object and why, for people to read.
//!
//! Events are a courtesy: they are sent by a task of their own from a bounded queue, repeated ones
//! raise a count instead of piling up, and when the queue is full they are dropped and counted in
//! the log. Nothing waits for them.

use std::collections::{HashMap, HashSet};

use api::Kind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::RngExt;
use tokio::sync::mpsc;

use crate::{Api, Client, PatchKind};

/// Events waiting to be sent.
const QUEUE: usize = 1024;
/// Series remembered for counting; the table is emptied when it is full.
const SERIES_MAX: usize = 4096;
/// From this many different messages about one thing on, in this time, they are combined; as
/// upstream.
const SIMILAR_MAX: usize = 10;
const SIMILAR_FOR: SignedDuration = SignedDuration::from_mins(10);

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Note>,
    component: &'static str,
}

#[derive(Clone, Debug)]
struct Note {
    component: &'static str,
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

type SimilarKey = (Option<String>, &'static str, String);
/// What the series is about, its type and reason, and its message unless that changes.
type SeriesKey = (Option<String>, &'static str, String, Option<String>);

impl EventRecorder {
    /// Starts the sending task; it ends when every clone is dropped. `host`: the node's name for
    /// node components, else empty.
    pub fn new(client: Client, component: &'static str, host: &str) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        let recorder = Self { queue, component };
        tokio::spawn(send(client, notes, host.to_owned()));
        recorder
    }

    /// The same queue, for another component of the process.
    pub fn named(&self, component: &'static str) -> Self {
        Self { component, ..self.clone() }
    }

    /// Something went as it should.
    pub fn normal<K: Kind>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference(about), "Normal", reason, message.into());
    }

    /// Something needs attention.
    pub fn warning<K: Kind>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference(about), "Warning", reason, message.into());
    }

    /// As the others, about anything, at the present time.
    pub fn record(
        &self,
        about: ObjectReference,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let note = Note {
            component: self.component,
            about,
            kind,
            reason: reason.to_owned(),
            message,
            at: clock::now(),
        };
        if let Err(error) = self.queue.try_send(note) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }
}

/// A reference to an object, for events.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let metadata = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Messages that differ although they are about one thing: the many become one series.
#[derive(Default)]
struct Similar(HashMap<SimilarKey, (Timestamp, HashSet<String>)>);

impl Similar {
    /// Whether the note is one too many of its like, and says so in its message then.
    fn combines(&mut self, note: &mut Note) -> bool {
        if self.0.len() >= SERIES_MAX {
            self.0.clear();
        }
        let key = (note.about.uid.clone(), note.kind, note.reason.clone());
        let (since, messages) = self.0.entry(key).or_insert_with(|| (note.at, HashSet::new()));
        if note.at.duration_since(*since) > SIMILAR_FOR {
            (*since, *messages) = (note.at, HashSet::new());
        }
        if messages.len() + 1 < SIMILAR_MAX || messages.contains(&note.message) {
            messages.insert(note.message.clone());
            return false;
        }
        note.message = format!("(combined from similar events): {}", note.message);
        true
    }
}

async fn send(client: Client, mut notes: mpsc::Receiver<Note>, host: String) {
    let mut series: HashMap<SeriesKey, (String, i32)> = HashMap::new();
    let mut similar = Similar::default();
    while let Some(mut note) = notes.recv().await {
        let combined = similar.combines(&mut note);
        let source = EventSource {
            component: Some(note.component.to_owned()),
            host: (!host.is_empty()).then(|| host.clone()),
        };
        let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(&client, &namespace);
        let key: SeriesKey = (
            note.about.uid.clone(),
            note.kind,
            note.reason.clone(),
            (!combined).then(|| note.message.clone()),
        );
        if let Some((name, count)) = series.get_mut(&key) {
            *count += 1;
            let patch = serde_json::json!({
                "count": count,
                "lastTimestamp": note.at.to_string(),
                "message": note.message,
            });
            match events.patch(name, PatchKind::Merge, &patch).await {
                Ok(_) => continue,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%error, "event not sent");
                    continue;
                }
            }
        }
        let event = event(&note, &namespace, &source);
        let name = event.metadata.name.clone().unwrap_or_default();
        match events.create(&event).await {
            Ok(_) => {
                if series.len() >= SERIES_MAX {
                    series.clear();
                }
                series.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(%error, "event not sent"),
        }
    }
}

fn event(note: &Note, namespace: &str, source: &EventSource) -> Event {
    let suffix: u64 = rand::rng().random();
    let mut event = Event {
        involved_object: note.about.clone(),
        type_: Some(note.kind.to_owned()),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        source: Some(source.clone()),
        ..Default::default()
    };
    event.metadata.name =
        Some(format!("{}.{suffix:016x}", note.about.name.as_deref().unwrap_or_default()));
    event.metadata.namespace = Some(namespace.to_owned());
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_messages_about_one_thing_are_combined() {
        let mut similar = Similar::default();
        let mut combined = |second: i64, message: &str| {
            let mut note = Note {
                component: "c",
                about: ObjectReference::default(),
                kind: "Warning",
                reason: "FailedCreate".into(),
                message: message.into(),
                at: Timestamp::from_second(second).unwrap(),
            };
            similar.combines(&mut note).then_some(note.message)
        };
        for number in 1..SIMILAR_MAX {
            assert_eq!(combined(1, &format!("m{number}")), None);
        }
        let tenth = combined(2, "m10").unwrap();
        assert_eq!(tenth, "(combined from similar events): m10");
        assert_eq!(combined(3, "m1"), None, "a known one goes on counting");
        assert_eq!(combined(700, "m11"), None, "the others are forgotten");
    }
}
