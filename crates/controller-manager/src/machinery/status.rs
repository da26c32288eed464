//! Writing an object's status.

use api::Kind;
use client::{Api, Client, PatchKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::{During, Unless};

/// Writes the status that `change` makes of the object's, if it differs; the object's revision is
/// the precondition. Returns the object as it is then.
///
/// # Errors
/// When the server refuses. After a conflict, the key is reconciled again.
pub async fn update<K: Kind>(
    client: &Client,
    object: &K,
    change: impl FnOnce(&mut K),
) -> Result<K, Error> {
    let mut changed = object.clone();
    change(&mut changed);
    if changed == *object {
        return Ok(changed);
    }
    let key = Key::of(object);
    let objects = Api::<K>::namespaced(client, &key.namespace);
    let written = objects.replace_status(&changed).await;
    written.during(|| format!("write the status of {} {key}", K::ROW.singular))
}

/// Writes the status of `changed`, a copy of `object` that differs in its status only, if it does.
/// The copy's revision is the precondition.
///
/// # Errors
/// When the server refuses.
pub async fn write<K: Kind>(client: &Client, object: &K, changed: &K) -> Result<(), Error> {
    update(client, object, |object| object.clone_from(changed)).await.map(drop)
}

/// What a controller says of a pod that is in a kubelet's hands.
pub struct PodMark<'a> {
    /// Type and status of the condition.
    pub condition: (&'static str, &'static str),
    pub reason: &'static str,
    pub message: &'a str,
    /// The phase that the pod is put in, if any.
    pub phase: Option<&'static str>,
}

/// Sets one condition of a pod, whatever its kubelet writes meanwhile. Returns whether the pod is
/// still there.
///
/// # Errors
/// When the server refuses.
pub async fn mark(
    client: &Client,
    pod: &Pod,
    mark: PodMark<'_>,
    now: Timestamp,
) -> Result<bool, Error> {
    let mut status = json!({"conditions": [{
        "type": mark.condition.0,
        "status": mark.condition.1,
        "reason": mark.reason,
        "message": mark.message,
        "lastTransitionTime": now.to_string(),
    }]});
    if let Some(phase) = mark.phase {
        status["phase"] = phase.into();
    }
    let key = Key::of(pod);
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    let pods = Api::<Pod>::namespaced(client, &key.namespace);
    let marked = pods.patch_status(&key.name, PatchKind::Strategic, &patch).await.unless_gone();
    let marked = marked.during(|| format!("mark pod {key} as {}", mark.reason))?;
    Ok(marked.is_some())
}

/// Kubernetes leaves status counts of zero out.
pub fn omit_zeros<const N: usize>(counts: [&mut Option<i32>; N]) {
    for count in counts {
        count.take_if(|count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;
    use crate::machinery::testing::server::FakeServer;

    #[tokio::test]
    async fn only_a_status_that_differs_is_written() {
        let (server, client) = FakeServer::start().await;
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("n".into());
        let phase = |phase: &str| {
            let phase = phase.to_owned();
            move |namespace: &mut Namespace| {
                namespace.status.get_or_insert_default().phase = Some(phase);
            }
        };
        let gone = update(&client, &namespace, phase("Active")).await.unwrap_err();
        assert!(gone.is_race(), "its key is reconciled again");
        server.put(&namespace);
        let written = update(&client, &namespace, phase("Active")).await.unwrap();
        let same = update(&client, &written, phase("Active")).await.unwrap();
        assert_eq!(same.status.unwrap().phase.as_deref(), Some("Active"));
        assert_eq!(server.writes(), ["update namespaces/status n"; 2]);
    }
}
