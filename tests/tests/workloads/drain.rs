//! A node is drained while a disruption budget protects the pods.

use super::{all_ready, start};
use anyhow::ensure;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

pub async fn draining_a_node_evicts_pods_one_by_one(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture, 3).await?;
    let skiff = |arguments: &[&str]| {
        let namespace = ["-n", fixture.namespace.as_str()];
        fixture.cluster.skiff(&[&namespace, arguments].concat())
    };
    // All pods have to be available before the next eviction: until then, evictions are retried.
    skiff(&["create", "pdb", "web", "--selector=app=web", "--min-available=2"])?;
    skiff(&["wait", "--for=jsonpath={.status.disruptionsAllowed}=1", "pdb/web", "--timeout=30s"])?;
    let drained = fixture.cluster.skiff(&[
        "drain",
        "node-2",
        "--pod-selector=app=web",
        "--delete-emptydir-data",
        "--timeout=120s",
    ]);
    let away = wait::until::<k8s_openapi::api::core::v1::Pod>(
        fixture.cluster.client(),
        Selection::namespace(&fixture.namespace).labels("app=web"),
        "the pods are elsewhere",
        |all| {
            all.len() == 3
                && all.values().all(|pod| pods::is_ready(pod) && pods::node(pod) != "node-2")
        },
    )
    .await;
    fixture.cluster.skiff(&["uncordon", "node-2"])?;
    let output = drained?;
    away?;
    for line in ["node/node-2 cordoned", "evicted", "node/node-2 drained"] {
        ensure!(output.contains(line), "no {line:?} in {output:?}");
    }
    all_ready(fixture, 3).await
}
