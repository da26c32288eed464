//! What a node tells of itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Event;
use testkit::suite::Scene;
use testkit::wait::{self, Selection};

pub async fn a_node_tells_what_becomes_of_it(scene: &Scene) -> anyhow::Result<()> {
    let wanted = [
        "Starting",
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
        "NodeReady",
    ];
    let told = |events: &BTreeMap<String, Event>| {
        wanted.iter().all(|reason| {
            events.values().any(|event| {
                let about = &event.involved_object;
                event.reason.as_deref() == Some(reason)
                    && about.kind.as_deref() == Some("Node")
                    && about.name.as_deref() == Some("node-1")
            })
        })
    };
    let selection = Selection::namespace("default");
    wait::until(scene.cluster.client(), selection, "it has told", told).await?;
    Ok(())
}
