//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every ten seconds.

use std::time::Duration;

use client::{Api, Client, PatchKind};
use clock::SharedClock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use serde_json::json;
use tokio::sync::watch;

/// The namespace of node leases.
const NAMESPACE: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// `leaseDurationSeconds`.
const DURATION_SECONDS: i32 = 40;

/// Renews the lease for as long as the process lives.
pub async fn keep(client: Client, clock: SharedClock, node: watch::Receiver<std::sync::Arc<Node>>) {
    let leases: Api<Lease> = Api::namespaced(&client, NAMESPACE);
    let mut failed = false;
    loop {
        let object = node.borrow().clone();
        let pause = match renew(&leases, &object, &clock).await {
            Ok(()) => {
                failed = false;
                RENEW
            }
            Err(error) => {
                if !failed {
                    tracing::warn!(%error, "cannot renew the node's lease");
                }
                failed = true;
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(leases: &Api<Lease>, node: &Node, clock: &SharedClock) -> Result<(), client::Error> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let now = clock.now();
    // Only its time changes, and nobody else writes it, so there is no need to read it first.
    let patch = json!({"spec": {
        "holderIdentity": name,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
    }});
    match leases.patch(&name, PatchKind::Merge, &patch).await {
        Err(error) if error.is_not_found() => {}
        result => return result.map(drop),
    }
    let mut lease = Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..Default::default()
        }),
        ..Default::default()
    };
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    lease.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name,
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..Default::default()
    }]);
    leases.create(&lease).await.map(drop)
}
