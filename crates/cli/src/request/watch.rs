//! Watches one object until a condition holds.

use anyhow::bail;
use client::Client;
use rpc::api_v1::{EventType, WatchRequest};
use serde_json::Value;

use crate::request::selection::ObjectReference;

/// Calls `look` with the object now and after every change (`None` when it does not exist) until
/// that returns a result.
///
/// # Errors
/// Those of `look`, and when the object cannot be watched.
pub async fn until<T>(
    client: &Client,
    named: &ObjectReference<'_>,
    mut look: impl FnMut(Option<&Value>) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    loop {
        let request = WatchRequest {
            target: Some(named.resource.target(&named.namespace, "", "")),
            field_selector: format!("metadata.name={}", named.name),
            send_initial_events: true,
            resource_version_match: "NotOlderThan".to_owned(),
            allow_watch_bookmarks: true,
            ..Default::default()
        };
        let mut batches =
            client.resources().watch(request).await.map_err(client::Error::from)?.into_inner();
        let mut there = false;
        while let Some(batch) = batches.message().await.map_err(client::Error::from)? {
            for event in batch.events {
                let kind = event.r#type();
                let json = event.object.unwrap_or_default().json;
                let found = match kind {
                    EventType::Added | EventType::Modified => {
                        there = true;
                        look(Some(&serde_json::from_slice(&json)?))?
                    }
                    EventType::Deleted => look(None)?,
                    EventType::Error => {
                        let status = api::status::decode_status(&json)?;
                        bail!("the watch failed: {}", status.message.unwrap_or_default());
                    }
                    _ if event.initial_events_end && !there => look(None)?,
                    _ => None,
                };
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
    }
}

/// Returns when the object with this uid no longer exists.
pub async fn until_deleted(
    client: &Client,
    named: &ObjectReference<'_>,
    uid: &str,
) -> anyhow::Result<()> {
    until(client, named, |object| {
        let there = object.is_some_and(|object| object["metadata"]["uid"] == uid);
        Ok((!there).then_some(()))
    })
    .await
}
