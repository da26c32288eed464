//! Controllers and servers that an APIService names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::{Api, DeleteOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};
use testkit::extension::{Extension, Reply, Seen};
use testkit::wait;

use super::plane::Plane;
use super::{create, deployment, selection};

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

pub fn registered(extension: &Extension, group: &str, version: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}")}, "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100,
            "versionPriority": 100, "caBundle": extension.ca_bundle(),
            "service": {"namespace": "default", "name": "adapter", "port": extension.port}}})
}

pub fn leads_here() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "adapter"},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}})
}

fn scaler(metric: &Value) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"}, "spec": {"minReplicas": 1, "maxReplicas": 9, "metrics": [metric],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

/// An adapter: 30 requests at the Service, and 50 in a queue.
fn adapter(seen: &Seen) -> Reply {
    let path = seen.path.split('?').next().unwrap_or_default();
    let value = |kind: &str, name: &str, value: &str| {
        json!({"describedObject": {"kind": kind, "namespace": "default", "name": name},
            "metric": {"name": "requests"}, "timestamp": "2026-01-01T00:00:00Z", "value": value})
    };
    let list = |items: Value| Reply::Json(200, json!({"kind": "MetricValueList", "items": items}));
    match path.strip_prefix(CUSTOM).or_else(|| path.strip_prefix(EXTERNAL)) {
        Some("") => Reply::Json(200, json!({"kind": "APIResourceList", "resources": []})),
        Some("/namespaces/default/services/web/requests") => {
            list(json!([value("Service", "web", "30")]))
        }
        Some("/namespaces/default/queue") if seen.path.contains("labelSelector=name%3Djobs") => {
            Reply::Json(
                200,
                json!({"kind": "ExternalMetricValueList", "items": [
                {"metricName": "queue", "value": "20"}, {"metricName": "queue", "value": "30"}]}),
            )
        }
        _ => Reply::Status(404, "404 page not found"),
    }
}

pub async fn until_available(plane: &Plane, name: &str, reason: &str) -> anyhow::Result<()> {
    let what = format!("{name} is {reason}");
    wait::until::<APIService>(&plane.client, wait::Selection::default(), &what, |all| {
        let status = all.get(name).and_then(|one| one.status.as_ref());
        let mut conditions = status.into_iter().flat_map(|one| one.conditions.iter().flatten());
        conditions.any(|condition| condition.reason.as_deref() == Some(reason))
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autoscalers_read_metrics_of_other_servers() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let names = ["adapter.default.svc"];
    let extension = Extension::start("127.0.0.1", &names, plane.authority_pem(), adapter).await?;
    let (custom, external) = ("custom.metrics.k8s.io", "external.metrics.k8s.io");
    let objects = [
        leads_here(),
        registered(&extension, custom, "v1beta2"),
        registered(&extension, external, "v1beta1"),
    ];
    create(&plane, &objects).await?;
    until_available(&plane, "v1beta2.custom.metrics.k8s.io", "Passed").await?;
    until_available(&plane, "v1beta1.external.metrics.k8s.io", "Passed").await?;
    plane.control(&["--controllers=deployment-controller,horizontal-pod-autoscaler-controller"])?;
    let object = json!({"type": "Object", "object": {"metric": {"name": "requests"},
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let queue = json!({"type": "External", "external": {
        "metric": {"name": "queue", "selector": {"matchLabels": {"name": "jobs"}}},
        "target": {"type": "AverageValue", "averageValue": "25"}}});
    for (metric, replicas) in [(object, 3), (queue, 2)] {
        create(&plane, &[deployment(1, "v1"), scaler(&metric)]).await?;
        let scaled = wait::until::<Deployment>(
            &plane.client,
            selection().name("web"),
            "it is scaled",
            |all| {
                let spec = all.get("web").map(|one| one.spec.replicas);
                spec == Some(Some(replicas))
            },
        )
        .await;
        if let Err(error) = scaled {
            let api = Api::<HorizontalPodAutoscaler>::namespaced(&plane.client, "default");
            anyhow::bail!("{error}: {:?}", api.get("web").await?.status);
        }
        let options = DeleteOptions::default();
        Api::<HorizontalPodAutoscaler>::namespaced(&plane.client, "default")
            .delete("web", &options)
            .await?;
        Api::<Deployment>::namespaced(&plane.client, "default").delete("web", &options).await?;
    }
    let asked = extension.take("/namespaces/default/");
    anyhow::ensure!(!asked.is_empty());
    for seen in asked {
        let user = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
        anyhow::ensure!(
            [user, "system:kube-controller-manager"].contains(&seen.header("x-remote-user")),
            "{}",
            seen.header("x-remote-user")
        );
        anyhow::ensure!(seen.peer.as_deref() == Some("front-proxy-client"));
    }
    plane.finish(Vec::new()).await
}

/// What a server that cannot be asked has of a namespace is not known: the namespace stays until it
/// can, or is no longer named; everything else goes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_wait_for_servers_that_are_gone() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let names = ["adapter.default.svc"];
    let gone = |_: &Seen| Reply::Status(500, "gone");
    let extension = Extension::start("127.0.0.1", &names, plane.authority_pem(), gone).await?;
    create(&plane, &[leads_here(), registered(&extension, "gone.example.com", "v1")]).await?;
    until_available(&plane, "v1.gone.example.com", "FailedDiscoveryCheck").await?;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ending"}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "ending"}});
    create(&plane, &[namespace, map]).await?;
    Api::<Namespace>::all(&plane.client).delete("ending", &DeleteOptions::default()).await?;
    let until = async |what: &str, holds: &dyn Fn(Option<&Namespace>) -> bool| {
        let all = wait::Selection::default();
        wait::until::<Namespace>(&plane.client, all, what, |all| holds(all.get("ending"))).await
    };
    until("discovery fails", &|ending| {
        let status = ending.and_then(|ending| ending.status.as_ref());
        let mut all = status.into_iter().flat_map(|one| one.conditions.iter().flatten());
        all.any(|condition| {
            condition.type_ == "NamespaceDeletionDiscoveryFailure" && condition.status == "True"
        })
    })
    .await?;
    let maps = Api::<ConfigMap>::namespaced(&plane.client, "ending");
    anyhow::ensure!(maps.get_opt("a").await?.is_none());
    // It comes back with one object, which is deleted.
    let there = Arc::new(AtomicBool::new(true));
    let has = there.clone();
    extension.behave(move |seen| with_one_thing(seen, &has));
    until("the namespace is gone", &|ending| ending.is_none()).await?;
    anyhow::ensure!(!there.load(Ordering::Relaxed));
    plane.finish(Vec::new()).await
}

fn with_one_thing(seen: &Seen, there: &AtomicBool) -> Reply {
    let own = "/apis/gone.example.com/v1";
    let things = format!("{own}/namespaces/ending/things");
    let resources = json!([{"name": "things", "namespaced": true, "kind": "Thing",
        "verbs": ["list", "delete"]}]);
    match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", path) if path == own => {
            Reply::Json(200, json!({"kind": "APIResourceList", "resources": resources}))
        }
        ("GET", path) if path == things => {
            let one = json!([{"metadata": {"name": "thing"}}]);
            let items = if there.load(Ordering::Relaxed) { one } else { json!([]) };
            Reply::Json(200, json!({"kind": "ThingList", "items": items}))
        }
        ("DELETE", path) if path == format!("{things}/thing") => {
            there.store(false, Ordering::Relaxed);
            Reply::Json(200, json!({"kind": "Status", "status": "Success"}))
        }
        _ => Reply::Status(404, "404 page not found"),
    }
}
