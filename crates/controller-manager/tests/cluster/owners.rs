//! Owner references that cannot be right.

use client::Api;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::json;
use testkit::wait::{self, Selection};

use super::create;
use super::plane::Plane;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_in_another_namespace_is_reported_and_counts_as_absent() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let map = |namespace: &str, name: &str, owners: &serde_json::Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners}})
    };
    create(&plane, &[map("default", "owner", &json!([]))]).await?;
    let owner = Api::<ConfigMap>::namespaced(&plane.client, "default").get("owner").await?;
    let uid = owner.metadata.uid.unwrap_or_default();
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "kept", "ownerReferences": owners}});
    let dependents = [map("kube-public", "lost", &owners), map("default", "owned", &owners), role];
    create(&plane, &dependents).await?;
    plane.control(&["--controllers=garbage-collector-controller"])?;
    let message = |namespace: &str| {
        format!(
            "ownerRef [v1/ConfigMap, namespace: {namespace}, name: owner, uid: {uid}] \
             does not exist in namespace \"{namespace}\""
        )
    };
    let expected =
        [("ConfigMap", "lost", message("kube-public")), ("ClusterRole", "kept", message(""))];
    wait::until::<Event>(&plane.client, Selection::default(), "the events", |events| {
        expected.iter().all(|(kind, name, message)| {
            events.values().any(|event| {
                let about = &event.involved_object;
                event.reason.as_deref() == Some("OwnerRefInvalidNamespace")
                    && event.message.as_ref() == Some(message)
                    && about.kind.as_deref() == Some(kind)
                    && about.name.as_deref() == Some(name)
            })
        })
    })
    .await?;
    let public = Selection::namespace("kube-public");
    wait::until::<ConfigMap>(&plane.client, public, "the dependent is deleted", |maps| {
        !maps.contains_key("lost")
    })
    .await?;
    let owned = Api::<ConfigMap>::namespaced(&plane.client, "default").get_opt("owned").await?;
    anyhow::ensure!(owned.is_some(), "its owner is in its namespace");
    let kept = Api::<ClusterRole>::all(&plane.client).get_opt("kept").await?;
    anyhow::ensure!(kept.is_some(), "its owner cannot be resolved");
    plane.finish(Vec::new()).await
}
