//! Reading the state of pods, and waiting for it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::collections::BTreeMap;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};

/// Whether the pod has the condition `Ready`, and is not being deleted.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The pod's phase; empty when it has none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The node that the pod is bound to; empty when it is not bound.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The pod's address; empty when it has none.
pub fn address(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default()
}

/// The status of one container.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten();
    all.chain(status.init_container_statuses.iter().flatten()).find(|c| c.name == name)
}

/// How often a container has been restarted.
pub fn restarts(pod: &Pod, name: &str) -> i32 {
    container(pod, name).map_or(0, |status| status.restart_count)
}

/// Why a container is waiting; empty when it is not.
pub fn waiting_reason<'a>(pod: &'a Pod, name: &str) -> &'a str {
    container(pod, name)
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref())
        .unwrap_or_default()
}

/// Waits until `holds` returns true for the scenario's pods with these labels.
///
/// # Errors
/// When that does not happen in time.
pub async fn until(
    fixture: &Fixture,
    labels: &str,
    what: &str,
    holds: impl FnMut(&BTreeMap<String, Pod>) -> bool,
) -> anyhow::Result<BTreeMap<String, Pod>> {
    let selection = Selection::namespace(&fixture.namespace).labels(labels);
    wait::until(fixture.cluster.client(), selection, what, holds).await
}

/// Waits until one pod is Ready; returns it.
///
/// # Errors
/// When it is not in time.
pub async fn ready(fixture: &Fixture, name: &str) -> anyhow::Result<Pod> {
    one(fixture, name, "the pod is Ready", is_ready).await
}

/// Waits until `holds` returns true for one pod; returns the pod.
///
/// # Errors
/// When that does not happen in time.
pub async fn one(
    fixture: &Fixture,
    name: &str,
    what: &str,
    holds: impl Fn(&Pod) -> bool,
) -> anyhow::Result<Pod> {
    let selection = Selection::namespace(&fixture.namespace).name(name);
    let there = |pods: &BTreeMap<String, Pod>| pods.get(name).is_some_and(&holds);
    let mut pods = wait::until(fixture.cluster.client(), selection, what, there).await?;
    Ok(pods.remove(name).expect("it has just been seen"))
}
