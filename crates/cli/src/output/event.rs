//! When Events happened, as kubectl prints it.

use k8s_openapi::api::core::v1::Event;

/// When an Event was last seen.
pub fn last_seen(event: &Event) -> Option<jiff::Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref())
        .map(|time| time.0);
    series
        .or(event.last_timestamp.as_ref().map(|time| time.0))
        .or(event.event_time.as_ref().map(|time| time.0))
        .or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// How long ago something was, as kubectl prints ages.
pub fn ago(time: Option<jiff::Timestamp>) -> String {
    time.map_or_else(
        || "<unknown>".to_owned(),
        |time| api::duration::human(clock::now().as_second() - time.as_second()),
    )
}

/// When an Event happened, and since when if it did so more than once: `5m (x3 over 1h)`.
pub fn interval(event: &Event) -> String {
    let last = ago(last_seen(event));
    match (&event.first_timestamp, event.count) {
        (Some(first), Some(count @ 2..)) => {
            format!("{last} (x{count} over {})", ago(Some(first.0)))
        }
        _ => last,
    }
}
