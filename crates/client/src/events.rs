//! Kubernetes Events: what a component did to an object and why, for people to read.
//!
//! Events are best effort: a separate task sends them from a bounded queue, repeated ones increment
//! a count instead of piling up, and when the queue is full they are dropped and logged. Nothing
//! waits for them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};

use api::Kind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{self as core, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::mpsc;

use crate::{Api, Client, PatchKind};

/// Maximum number of events waiting to be sent.
const QUEUE: usize = 1024;
/// Maximum number of series with a count; the table is cleared when it is full.
const SERIES_MAX: usize = 4096;
/// From this many different messages about one object and reason in this time on, they are
/// combined, as upstream does.
const SIMILAR_MAX: usize = 10;
const SIMILAR_FOR: SignedDuration = SignedDuration::from_mins(10);

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Event>,
    component: &'static str,
}

#[derive(Clone, Debug)]
struct Event {
    component: &'static str,
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
    /// Distinguishes the events about one object, and sorts them by time.
    number: i64,
}

/// Different messages with the same key are combined when there are many.
#[derive(PartialEq, Eq, Hash)]
struct SimilarKey {
    component: &'static str,
    object: (Option<String>, Option<String>, Option<String>, Option<String>),
    kind: &'static str,
    reason: String,
}

/// Events with the same key are one event with a count.
#[derive(PartialEq, Eq, Hash)]
struct SeriesKey {
    similar: SimilarKey,
    field_path: Option<String>,
    /// `None`: combined messages.
    message: Option<String>,
}

impl SimilarKey {
    fn of(event: &Event) -> Self {
        let about = event.about.clone();
        Self {
            component: event.component,
            object: (about.kind, about.namespace, about.name, about.uid),
            kind: event.kind,
            reason: event.reason.clone(),
        }
    }
}

impl EventRecorder {
    /// Starts the sending task; it ends when all clones are dropped. `host`: the node's name for
    /// components of a node, else empty.
    pub fn new(client: Client, component: &'static str, host: &str) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        let recorder = Self { queue, component };
        tokio::spawn(send(client, events, host.to_owned()));
        recorder
    }

    /// A recorder with the same queue, for another component of the process.
    pub fn named(&self, component: &'static str) -> Self {
        Self { component, ..self.clone() }
    }

    /// Records an event of type Normal.
    pub fn normal<K: Kind>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference(about), "Normal", reason, message.into());
    }

    /// Records an event of type Warning.
    pub fn warning<K: Kind>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference(about), "Warning", reason, message.into());
    }

    /// Records events of an object: whether it is a warning, the reason and the message.
    pub fn all<K: Kind>(
        &self,
        about: &K,
        events: impl IntoIterator<Item = (bool, impl AsRef<str>, impl Into<String>)>,
    ) {
        for (is_warning, reason, message) in events {
            let kind = if is_warning { "Warning" } else { "Normal" };
            self.record(reference(about), kind, reason.as_ref(), message.into());
        }
    }

    /// Records an event about any object.
    pub fn record(
        &self,
        about: ObjectReference,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let event = Event {
            component: self.component,
            about,
            kind,
            reason: reason.to_owned(),
            message,
            at: clock::now(),
            number: next_number(clock::now()),
        };
        if let Err(error) = self.queue.try_send(event) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }
}

/// The time in nanoseconds, or the next number that this process has not used.
fn next_number(now: Timestamp) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now_ns = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
    let next = |last: i64| now_ns.max(last.saturating_add(1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(last.unwrap_or_default())
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

/// Detects many different messages about one object and reason, to combine them into one series.
#[derive(Default)]
struct Similar(HashMap<SimilarKey, (Timestamp, HashSet<String>)>);

/// Makes room for one more series.
fn limit<K, V>(known: &mut HashMap<K, V>) {
    if known.len() >= SERIES_MAX {
        *known = HashMap::new();
    }
}

impl Similar {
    /// Returns whether the event is to be combined with similar ones, and marks its message if so.
    fn combines(&mut self, event: &mut Event) -> bool {
        limit(&mut self.0);
        let key = SimilarKey::of(event);
        let (since, messages) = self.0.entry(key).or_insert_with(|| (event.at, HashSet::new()));
        if event.at.duration_since(*since) > SIMILAR_FOR {
            (*since, *messages) = (event.at, HashSet::new());
        }
        if messages.len() + 1 < SIMILAR_MAX || messages.contains(&event.message) {
            messages.insert(event.message.clone());
            return false;
        }
        event.message = format!("(combined from similar events): {}", event.message);
        true
    }
}

async fn send(client: Client, mut events: mpsc::Receiver<Event>, host: String) {
    let mut series: HashMap<SeriesKey, (String, i32)> = HashMap::new();
    let mut similar = Similar::default();
    while let Some(mut event) = events.recv().await {
        let combined = similar.combines(&mut event);
        let source = EventSource {
            component: Some(event.component.to_owned()),
            host: (!host.is_empty()).then(|| host.clone()),
        };
        let namespace = event.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<core::Event> = Api::namespaced(&client, &namespace);
        let key = SeriesKey {
            similar: SimilarKey::of(&event),
            field_path: event.about.field_path.clone(),
            message: (!combined).then(|| event.message.clone()),
        };
        if let Some((name, count)) = series.get_mut(&key) {
            *count += 1;
            let patch = serde_json::json!({
                "count": count,
                "lastTimestamp": event.at.to_string(),
                "message": event.message,
            });
            match api.patch(name, PatchKind::Merge, &patch).await {
                Ok(_) => continue,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%error, "event not sent");
                    continue;
                }
            }
        }
        let object = object(&event, &namespace, &source);
        let name = object.metadata.name.clone().unwrap_or_default();
        match api.create(&object).await {
            Ok(_) => {
                limit(&mut series);
                series.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(%error, "event not sent"),
        }
    }
}

fn object(event: &Event, namespace: &str, source: &EventSource) -> core::Event {
    let mut object = core::Event {
        involved_object: event.about.clone(),
        type_: Some(event.kind.to_owned()),
        reason: Some(event.reason.clone()),
        message: Some(event.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(event.at)),
        last_timestamp: Some(Time(event.at)),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        source: Some(source.clone()),
        ..Default::default()
    };
    object.metadata.name = Some(name(event));
    object.metadata.namespace = Some(namespace.to_owned());
    object
}

/// As upstream: the name of the object and the time, so that events are listed in their order.
fn name(event: &Event) -> String {
    let object = event.about.name.as_deref().unwrap_or_default();
    let name = format!("{object}.{:x}", event.number);
    if api::names::dns_subdomain(&name).is_empty() {
        return name;
    }
    let uid = event.about.uid.as_deref().unwrap_or_default();
    format!("{uid}.{:x}", event.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(field_path: &str, number: i64) -> Event {
        Event {
            component: "c",
            about: ObjectReference {
                name: Some("web".into()),
                uid: Some("u".into()),
                field_path: Some(field_path.into()),
                ..Default::default()
            },
            kind: "Normal",
            reason: "Pulled".into(),
            message: "m".into(),
            at: Timestamp::UNIX_EPOCH,
            number,
        }
    }

    #[test]
    fn no_more_events_wait_than_the_bound() {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let recorder = EventRecorder { queue, component: "c" };
        for number in 0..QUEUE + 10 {
            recorder.record(ObjectReference::default(), "Normal", "Pulled", number.to_string());
        }
        drop(recorder);
        let sent: Vec<String> =
            std::iter::from_fn(|| Some(waiting.blocking_recv()?.message)).collect();
        assert_eq!(sent, (0..QUEUE).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_series_are_known_than_the_bound() {
        let mut similar = Similar::default();
        for number in 0..3 * SERIES_MAX {
            let mut event = event("", 0);
            event.about.name = Some(format!("n{number}"));
            similar.combines(&mut event);
            assert!(similar.0.len() <= SERIES_MAX);
        }
        assert!(similar.0.len() > SERIES_MAX / 2, "they are kept until then");
    }

    #[test]
    fn names_sort_by_time() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let numbers: Vec<i64> = (0..1000).map(|_| next_number(now)).collect();
        assert!(numbers.is_sorted_by(|one, other| one < other));
        let named = |number| name(&event("", number));
        assert_eq!(named(0x18fa_e27e_93d5_4000), "web.18fae27e93d54000");
        assert!(named(numbers[0]) < named(numbers[999]));
        let mut long = event("", 255);
        long.about.name = Some("n".repeat(252));
        assert_eq!(name(&long), "u.ff");
    }

    #[test]
    fn events_about_different_fields_are_different_series() {
        let key = |path| {
            let event = event(path, 0);
            SeriesKey {
                similar: SimilarKey::of(&event),
                field_path: event.about.field_path.clone(),
                message: Some(event.message),
            }
        };
        assert!(key("spec.containers{a}") == key("spec.containers{a}"));
        assert!(key("spec.containers{a}") != key("spec.containers{b}"));
    }

    #[test]
    fn many_messages_about_one_object_are_combined() {
        let mut similar = Similar::default();
        let mut combined = |second: i64, message: &str| {
            let mut event = Event {
                component: "c",
                about: ObjectReference::default(),
                kind: "Warning",
                reason: "FailedCreate".into(),
                message: message.into(),
                at: Timestamp::from_second(second).unwrap(),
                number: 0,
            };
            similar.combines(&mut event).then_some(event.message)
        };
        for number in 1..SIMILAR_MAX {
            assert_eq!(combined(1, &format!("m{number}")), None);
        }
        let tenth = combined(2, "m10").unwrap();
        assert_eq!(tenth, "(combined from similar events): m10");
        assert_eq!(combined(3, "m1"), None, "a known message keeps counting");
        assert_eq!(combined(700, "m11"), None, "the others have expired");
    }
}
