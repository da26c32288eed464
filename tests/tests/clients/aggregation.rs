//! An extension server behind a Service, in a pod, as kubectl sees it.

use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::extension::{Extension, Reply, Seen, Things};
use testkit::suite::Fixture;
use testkit::wait;
use testkit::wardle::{self, Wardle};
use tests::pods;
use tokio::runtime::Handle;

use super::conversion::behind_a_service;
use super::kubectl::{kubectl, write_manifest};

const THINGS: Things = Things { group: "things.example.com", version: "v1", aggregated: true };
const NAME: &str = "v1.things.example.com";
const PATH: &str = "/apis/things.example.com/v1/namespaces/n/things/a";

pub async fn a_server_in_a_pod_answers_a_group(fixture: &Fixture) -> anyhow::Result<()> {
    // The server has to answer while the scenario waits for kubectl.
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let registered = register(fixture, threads.handle(), NAME, |seen| THINGS.answer(seen)).await;
    let outcome = match registered {
        Ok(_) => exercise(fixture).await,
        Err(error) => Err(error),
    };
    // It concerns the whole cluster.
    kubectl(fixture, &["delete", "--ignore-not-found", "apiservice", NAME])?;
    threads.shutdown_background();
    outcome
}

/// A server behind a Service, and its APIService, once it is available.
async fn register(
    fixture: &Fixture,
    threads: &Handle,
    name: &str,
    behave: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> anyhow::Result<Extension> {
    let (namespace, gateway) = (&fixture.namespace, fixture.cluster.gateway());
    let proxies = fixture.cluster.folder().join("pki/front-proxy-ca.crt");
    let proxies = std::fs::read_to_string(proxies).context("the authority of front proxies")?;
    let (address, host) = (gateway.clone(), format!("hook.{namespace}.svc"));
    let starting = async move { Extension::start(&address, &[&host], &proxies, behave).await };
    let extension = threads.spawn(starting).await??;
    let [pod, service] = behind_a_service(&gateway, extension.port);
    let (version, group) = name.split_once('.').context("no name of an APIService")?;
    let registered = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name}, "spec": {"group": group, "version": version,
            "groupPriorityMinimum": 1000, "versionPriority": 15, "caBundle": extension.ca_bundle(),
            "service": {"namespace": namespace, "name": "hook"}}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod, service, registered]});
    let path = write_manifest(fixture, "extension", &list.to_string())?;
    kubectl(fixture, &["apply", "-f", &path])?;
    pods::until(fixture, "app=hook", "the server's pod is ready", |all| {
        all.values().any(pods::is_ready)
    })
    .await?;
    kubectl(fixture, &["wait", "--for=condition=Available", "--timeout=60s", "apiservice", name])?;
    Ok(extension)
}

/// Owners and dependents of a kind that another server has are collected and counted; while that
/// server is away, nothing is deleted because of it, and everything else goes on.
pub async fn owners_and_dependents_of_other_servers_are_collected(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let wardle = Arc::new(Wardle::default());
    let answers = wardle.clone();
    let registered =
        register(fixture, threads.handle(), wardle::SERVICE, move |seen| answers.answer(seen));
    let outcome = match registered.await {
        Ok(extension) => collect(fixture, &extension, wardle).await,
        Err(error) => Err(error),
    };
    kubectl(fixture, &["delete", "--ignore-not-found", "apiservice", wardle::SERVICE])?;
    threads.shutdown_background();
    outcome
}

async fn collect(
    fixture: &Fixture,
    extension: &Extension,
    wardle: Arc<Wardle>,
) -> anyhow::Result<()> {
    let create = |name: &str, flunder: bool, owner: Option<&Value>| -> anyhow::Result<Value> {
        let mut object = json!({"metadata": {"name": name}});
        let version = format!("{}/{}", wardle::GROUP, wardle::VERSION);
        let (version, kind) = if flunder { (&*version, "Flunder") } else { ("v1", "ConfigMap") };
        (object["apiVersion"], object["kind"]) = (version.into(), kind.into());
        if let Some(owner) = owner {
            object["metadata"]["ownerReferences"] = json!([{"apiVersion": owner["apiVersion"],
                "kind": owner["kind"], "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"]}]);
        }
        let path = write_manifest(fixture, name, &object.to_string())?;
        let created = ["create", "--validate=false", "-o", "json", "-f", &path];
        Ok(serde_json::from_str(&kubectl(fixture, &created)?)?)
    };
    let is_there = |resource: &str, name: &str| -> anyhow::Result<bool> {
        let found = kubectl(fixture, &["get", resource, name, "--ignore-not-found", "-o", "name"])?;
        Ok(!found.trim().is_empty())
    };
    let gone = async |resource: &str, name: &str| {
        wait::eventually(&format!("{resource} {name} is collected"), async || {
            ensure!(!is_there(resource, name)?, "it is still there");
            Ok(())
        })
        .await
    };
    let flunders = "flunders.wardle.example.com";
    wait::eventually("its resources are discovered", async || {
        let all = kubectl(fixture, &["api-resources", "--api-group=wardle.example.com"])?;
        ensure!(all.contains("flunders"), "{all}");
        Ok(())
    })
    .await?;

    let owner = create("owner", false, None)?;
    create("dependent", true, Some(&owner))?;
    kubectl(fixture, &["delete", "configmap", "owner"])?;
    gone(flunders, "dependent").await?;
    let parent = create("parent", true, None)?;
    create("child", false, Some(&parent))?;
    kubectl(fixture, &["delete", flunders, "parent"])?;
    gone("configmap", "child").await?;

    let kept = create("kept", true, None)?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"count/flunders.wardle.example.com": "5"}}});
    let path = write_manifest(fixture, "quota", &quota.to_string())?;
    kubectl(fixture, &["create", "-f", &path])?;
    wait::eventually("flunders are counted", async || {
        let quota = kubectl(fixture, &["get", "quota", "q", "-o", "json"])?;
        let quota: Value = serde_json::from_str(&quota)?;
        let used = &quota["status"]["used"]["count/flunders.wardle.example.com"];
        ensure!(used == "1", "{used} are used");
        Ok(())
    })
    .await?;

    // While the server is away nobody knows whether this one's owner is there.
    extension.behave(|_| Reply::Status(500, "out of order"));
    let mut unknown = kept.clone();
    unknown["metadata"]["uid"] = "another".into();
    create("waits", false, Some(&unknown))?;
    let owner = create("owner", false, None)?;
    create("dependent", false, Some(&owner))?;
    kubectl(fixture, &["delete", "configmap", "owner"])?;
    gone("configmap", "dependent").await?;
    ensure!(is_there("configmap", "waits")?, "it was deleted while its owner was not known");
    extension.behave(move |seen| wardle.answer(seen));
    gone("configmap", "waits").await?;
    ensure!(is_there(flunders, "kept")?, "what has no owner is nobody's garbage");
    Ok(())
}

async fn exercise(fixture: &Fixture) -> anyhow::Result<()> {
    let row = kubectl(fixture, &["get", "apiservice", NAME, "--no-headers"])?;
    let cells: Vec<_> = row.split_whitespace().take(3).collect();
    ensure!(cells == [NAME, &format!("{}/hook", fixture.namespace), "True"], "{row}");
    wait::eventually("its resources are discovered", async || {
        let all = kubectl(fixture, &["api-resources", "--api-group=things.example.com"])?;
        ensure!(all.contains("things.example.com/v1"), "{all}");
        Ok(())
    })
    .await?;
    let thing: Value = serde_json::from_str(&kubectl(fixture, &["get", "--raw", PATH])?)?;
    ensure!(thing["user"] == "kubernetes-admin", "{thing}");
    ensure!(thing["peer"] == "front-proxy-client", "{thing}");
    let thing = kubectl(fixture, &["get", "things.v1.things.example.com", "a", "-o", "name"])?;
    ensure!(thing.trim() == "thing.things.example.com/a", "{thing}");
    kubectl(fixture, &["delete", "pod", "hook", "--now"])?;
    let gone = "--for=jsonpath={.status.conditions[0].reason}=MissingEndpoints";
    kubectl(fixture, &["wait", gone, "--timeout=60s", "apiservice", NAME])?;
    wait::eventually("requests are refused", async || {
        let refused = kubectl(fixture, &["get", "--raw", PATH]);
        let refused = refused.err().context("it is still answered")?.to_string();
        ensure!(refused.contains("ServiceUnavailable"), "{refused}");
        Ok(())
    })
    .await
}
