//! Services of type LoadBalancer and their addresses.

use std::collections::BTreeMap;

use client::{Api, DeleteOptions, PatchKind};
use k8s_openapi::api::core::v1::{Event, Node, Service};
use serde_json::{Value, json};
use testkit::wait::{self, Selection};

use super::plane::Plane;
use super::{create, selection};

const CONTROLLER: &str = "--controllers=service-lb-controller";

fn balanced(name: &str, annotations: Value, mut spec: Value) -> Value {
    spec["type"] = "LoadBalancer".into();
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80}]);
    }
    let metadata = json!({"name": name, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// The first address of a Service; empty if there is none.
fn address(service: &Service) -> &str {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let mut all = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    all.next().and_then(|ingress| ingress.ip.as_deref()).unwrap_or_default()
}

/// The reason of the condition; empty if there is none.
fn reason(service: &Service) -> &str {
    let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut conditions = conditions.into_iter();
    let condition = conditions.find(|one| one.type_ == "LoadBalancerAddressAssigned");
    condition.map_or("", |condition| &condition.reason)
}

async fn until(
    plane: &Plane,
    what: &str,
    holds: impl Fn(&BTreeMap<String, Service>) -> bool,
) -> anyhow::Result<BTreeMap<String, Service>> {
    wait::until::<Service>(&plane.client, selection(), what, holds).await
}

async fn event(plane: &Plane, of: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let what = format!("the event {reason} of {of}");
    wait::until::<Event>(&plane.client, Selection::default(), &what, |events| {
        events.values().any(|event| {
            event.involved_object.name.as_deref() == Some(of)
                && event.reason.as_deref() == Some(reason)
                && event.message.as_deref() == Some(message)
                && event.source.as_ref().and_then(|source| source.component.as_deref())
                    == Some("service-controller")
        })
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_assigned_until_there_are_none_and_then_again() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let services = Api::<Service>::namespaced(&plane.client, "default");
    let flags = [CONTROLLER, "--load-balancer-cidr=192.0.2.0/30"];
    plane.control(&flags)?;
    let no_node = "There are no available nodes for LoadBalancer";
    create(&plane, &[balanced("first", json!({}), json!({}))]).await?;
    event(&plane, "first", "UnAvailableLoadBalancer", no_node).await?;
    let nodes = plane.nodes(&["n1"]).await?;
    create(
        &plane,
        &[
            balanced("foreign", json!({}), json!({"loadBalancerClass": "example.com/lb"})),
            balanced("second", json!({}), json!({"loadBalancerIP": "192.0.2.2"})),
        ],
    )
    .await?;
    let both = |all: &BTreeMap<String, Service>| {
        address(&all["first"]) == "192.0.2.1"
            && all.get("second").is_some_and(|second| address(second) == "192.0.2.2")
    };
    let all = until(&plane, "both have addresses", both).await?;
    let ingress = all["first"].status.clone().and_then(|status| status.load_balancer?.ingress);
    let ingress = ingress.unwrap_or_default().remove(0);
    assert_eq!(ingress.ip_mode.as_deref(), Some("VIP"));
    assert_eq!(ingress.ports.unwrap_or_default()[0].port, 80);
    assert_eq!(reason(&all["first"]), "AddressAssigned");
    let finalizers = all["first"].metadata.finalizers.clone().unwrap_or_default();
    assert_eq!(finalizers, ["service.kubernetes.io/load-balancer-cleanup"]);
    event(&plane, "second", "EnsuringLoadBalancer", "Ensuring load balancer").await?;
    event(&plane, "second", "EnsuredLoadBalancer", "Ensured load balancer").await?;

    create(&plane, &[balanced("third", json!({}), json!({}))]).await?;
    let refused = |all: &BTreeMap<String, Service>| {
        all.get("third").is_some_and(|third| reason(third) == "AddressPoolExhausted")
    };
    until(&plane, "no address is left", refused).await?;
    let message = "Error syncing load balancer: failed to ensure load balancer: \
                   no address is left in 192.0.2.0/30";
    event(&plane, "third", "SyncLoadBalancerFailed", message).await?;
    // Nor does a controller that starts anew give one twice.
    plane.stop_controllers().await?;
    plane.control(&flags)?;

    services.delete("first", &DeleteOptions::default()).await?;
    let next = |all: &BTreeMap<String, Service>| {
        !all.contains_key("first") && address(&all["third"]) == "192.0.2.1"
    };
    let all = until(&plane, "the next one gets the address", next).await?;
    assert_eq!(reason(&all["third"]), "AddressAssigned");
    assert_eq!((address(&all["foreign"]), reason(&all["foreign"])), ("", ""));
    assert_eq!(all["foreign"].metadata.finalizers, None);
    event(&plane, "first", "DeletingLoadBalancer", "Deleting load balancer").await?;

    let change = json!({"spec": {"type": "ClusterIP"}});
    services.patch("third", PatchKind::Merge, &change).await?;
    let given_up = |all: &BTreeMap<String, Service>| {
        let third = &all["third"];
        address(third).is_empty() && reason(third).is_empty() && third.metadata.finalizers.is_none()
    };
    until(&plane, "a Service of another type has none", given_up).await?;
    event(&plane, "third", "Type", "LoadBalancer -> ClusterIP").await?;
    event(&plane, "third", "DeletedLoadBalancer", "Deleted load balancer").await?;
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_shared_and_those_of_nodes_used_on_request() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let nodes = plane.nodes(&["n1", "n2"]).await?;
    for (node, ip) in [("n1", "10.0.0.1"), ("n2", "10.0.0.2")] {
        let addresses = json!([{"type": "InternalIP", "address": ip}]);
        let status = json!({"status": {"addresses": addresses}});
        Api::<Node>::all(&plane.client).patch_status(node, PatchKind::Merge, &status).await?;
    }
    plane.control(&[CONTROLLER, "--load-balancer-cidr=192.0.2.0/29"])?;
    let shared = json!({"skiff.dev/allow-shared-ip": "web"});
    let own = json!({"skiff.dev/load-balancer-addresses": "nodes"});
    create(
        &plane,
        &[
            balanced("http", shared.clone(), json!({})),
            balanced("https", shared, json!({"ports": [{"port": 443}]})),
            balanced("edge", own.clone(), json!({"ports": [{"port": 8080}]})),
            balanced("taken", json!({}), json!({"loadBalancerIP": "192.0.2.1"})),
        ],
    )
    .await?;
    let settled = |all: &BTreeMap<String, Service>| {
        let has = |name: &str| all.get(name).is_some_and(|one| !reason(one).is_empty());
        ["http", "https", "edge", "taken"].into_iter().all(has)
    };
    let all = until(&plane, "all are settled", settled).await?;
    assert_eq!((address(&all["http"]), address(&all["https"])), ("192.0.2.1", "192.0.2.1"));
    assert_eq!(reason(&all["taken"]), "AddressInUse");
    let edge = all["edge"].status.clone().and_then(|status| status.load_balancer?.ingress);
    assert_eq!(edge.unwrap_or_default().len(), 2, "both nodes are available");
    let excluded = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    let change = json!({"metadata": {"labels": excluded}});
    Api::<Node>::all(&plane.client).patch("n1", PatchKind::Merge, &change).await?;
    until(&plane, "one node is left", |all| address(&all["edge"]) == "10.0.0.2").await?;
    let message = "Updated load balancer with new hosts";
    event(&plane, "edge", "UpdatedLoadBalancer", message).await?;
    // Two Services cannot have the same port of the nodes.
    create(&plane, &[balanced("late", own, json!({"ports": [{"port": 8080}]}))]).await?;
    let refused = |all: &BTreeMap<String, Service>| {
        all.get("late").is_some_and(|late| reason(late) == "AddressInUse")
    };
    until(&plane, "the port is taken", refused).await?;
    plane.finish(nodes).await
}
