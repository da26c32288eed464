//! A conversion webhook as operators have one: behind a Service, in a pod, on kube-rs' types.

use anyhow::{Context, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::core::conversion::{ConversionRequest, ConversionResponse, ConversionReview};
use serde_json::{Value, json};
use testkit::suite::Fixture;
use testkit::wait;
use testkit::webhook::{Reply, Webhook};
use tests::pods;

use super::kubectl::{kubectl, write_manifest};
use super::operators::connect;

/// Version 2 counts a tank's litres, version 1 its cubic metres.
fn convert(review: &Value) -> Reply {
    let converted = || -> anyhow::Result<ConversionReview> {
        let review: ConversionReview = serde_json::from_value(review.clone())?;
        let request = ConversionRequest::from_review(review)?;
        let mut objects = Vec::new();
        for object in &request.objects {
            let mut object = object.clone();
            let volume = object["spec"]["volume"].as_i64().context("no volume")?;
            let litres = request.desired_api_version == "tanks.example.com/v2";
            object["spec"]["volume"] = if litres { volume * 1000 } else { volume / 1000 }.into();
            object["apiVersion"] = request.desired_api_version.clone().into();
            objects.push(object);
        }
        Ok(ConversionResponse::for_request(request).success(objects).into_review())
    };
    match converted().and_then(|review| Ok(serde_json::to_value(review)?)) {
        Ok(review) => Reply::Json(review),
        Err(_) => Reply::Status(400, "no conversion"),
    }
}

/// A pod and a Service, both named `hook`, that lead to a server of the test. The pod carries the
/// connection, so that TLS and the requests are those of a real one.
pub fn behind_a_service(gateway: &str, port: u16) -> [Value; 2] {
    let relay = format!("exec nc -ll -p 8443 -e nc {gateway} {port}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "hook", "labels": {"app": "hook"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main",
            "image": "skiff.test/busybox:1", "command": ["sh", "-c", relay],
            "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1}}]}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 8443}]}});
    [pod, service]
}

pub async fn a_webhook_in_a_pod_converts_versions(fixture: &Fixture) -> anyhow::Result<()> {
    let namespace = &fixture.namespace;
    let name = format!("hook.{namespace}.svc");
    let gateway = fixture.cluster.gateway();
    let webhook = Webhook::start(&gateway, &[&name], convert).await?;
    let [pod, service] = behind_a_service(&gateway, webhook.port);
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object",
                "properties": {"volume": {"type": "integer"}}}}}}})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition", "metadata": {"name": "tanks.tanks.example.com"},
        "spec": {"group": "tanks.example.com", "scope": "Namespaced",
            "names": {"plural": "tanks", "singular": "tank", "kind": "Tank"},
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"caBundle": webhook.ca_bundle(),
                    "service": {"namespace": namespace, "name": "hook", "path": "/convert"}}}}}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod, service, definition]});
    let path = write_manifest(fixture, "tanks", &list.to_string())?;
    kubectl(fixture, &["apply", "-f", &path])?;
    kubectl(fixture, &["wait", "--for=condition=Established", "crd/tanks.tanks.example.com"])?;
    pods::until(fixture, "app=hook", "the webhook's pod is ready", |all| {
        all.values().any(pods::is_ready)
    })
    .await?;
    let client = connect(fixture).await?;
    let tanks = |version: &str| -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("tanks.example.com", version, "Tank");
        let resource = ApiResource::from_gvk_with_plural(&kind, "tanks");
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let volumes = async |version: &str| -> anyhow::Result<Vec<Option<i64>>> {
        let all = tanks(version).list(&ListParams::default()).await?;
        Ok(all.iter().map(|tank| tank.data["spec"]["volume"].as_i64()).collect())
    };
    for (version, volume) in [("v1", 3), ("v2", 5_000)] {
        let tank =
            serde_json::from_value(json!({"apiVersion": format!("tanks.example.com/{version}"),
            "kind": "Tank", "metadata": {"name": version}, "spec": {"volume": volume}}))?;
        wait::eventually("the webhook is reached", async || {
            match tanks(version).create(&PostParams::default(), &tank).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                outcome => Ok(outcome.map(|_| ())?),
            }
        })
        .await?;
    }
    ensure!(volumes("v1").await? == [Some(3), Some(5)], "{:?}", volumes("v1").await?);
    ensure!(volumes("v2").await? == [Some(3_000), Some(5_000)], "{:?}", volumes("v2").await?);
    kubectl(fixture, &["delete", "crd", "tanks.tanks.example.com"])?;
    Ok(())
}
