//! Objects that other servers have, as owners and dependents.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use testkit::extension::{Extension, Reply, Seen};
use testkit::wait;
use testkit::wardle::{self, Wardle};

use super::create;
use super::extensions::{leads_here, registered, until_available};
use super::plane::Plane;

const COLLECT: &[&str] = &["--controllers=garbage-collector-controller"];

fn flunder(name: &str, owner: &ConfigMap) -> Value {
    let metadata = &owner.metadata;
    json!({"apiVersion": format!("{}/{}", wardle::GROUP, wardle::VERSION), "kind": "Flunder",
        "metadata": {"name": name, "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
            "name": metadata.name, "uid": metadata.uid}]}})
}

fn target(name: &str) -> rpc::api_v1::Target {
    rpc::api_v1::Target {
        group: wardle::GROUP.into(),
        version: wardle::VERSION.into(),
        resource: "flunders".into(),
        namespace: "default".into(),
        name: name.into(),
        subresource: String::new(),
    }
}

/// Creates a dependent that another server has, deletes its owner, and waits until it is collected.
async fn collect(plane: &Plane, name: &str) -> anyhow::Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    create(plane, &[map]).await?;
    let maps = Api::<ConfigMap>::namespaced(&plane.client, "default");
    let body = flunder(name, &maps.get(name).await?).to_string();
    let options = rpc::api_v1::WriteOptions::default();
    plane.client.create_object(target(""), body.into_bytes(), options).await?;
    maps.delete(name, &DeleteOptions::default()).await?;
    wait::eventually(&format!("{name} is collected"), async || {
        match plane.client.get_object(target(name)).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("it is still there"),
        }
    })
    .await
}

async fn start(
    plane: &Plane,
    behave: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> anyhow::Result<Extension> {
    let names = ["adapter.default.svc"];
    let extension = Extension::start("127.0.0.1", &names, plane.authority_pem(), behave).await?;
    let service = registered(&extension, wardle::GROUP, wardle::VERSION);
    create(plane, &[leads_here(), service]).await?;
    until_available(plane, wardle::SERVICE, "Passed").await?;
    Ok(extension)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dependent_of_another_server_is_collected() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(COLLECT)?;
    let wardle = Arc::new(Wardle::default());
    start(&plane, move |seen| wardle.answer(seen)).await?;
    for index in 0..20 {
        collect(&plane, &format!("dependent-{index}")).await?;
    }
    plane.finish(Vec::new()).await
}

/// A watch of another server may deliver what it should not: objects of all its kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_the_watch_of_another_kind_are_not_of_that_kind() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(COLLECT)?;
    let wardle = Arc::new(Wardle::default());
    let everything = move |seen: &Seen| {
        let mut seen = seen.clone();
        if seen.path.contains("watch=") {
            seen.path = seen.path.replace("/fischers", "/flunders");
        }
        wardle.answer(&seen)
    };
    start(&plane, everything).await?;
    for index in 0..5 {
        collect(&plane, &format!("dependent-{index}")).await?;
    }
    plane.finish(Vec::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_discovery_fails_at_first_is_asked_again_soon() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(COLLECT)?;
    let wardle = Arc::new(Wardle::default());
    let failures = AtomicUsize::new(3);
    let count = |left: usize| left.checked_sub(1);
    let fails = move |seen: &Seen| {
        seen.path == wardle::PATH
            && seen.header("x-remote-user") == "system:kube-controller-manager"
            && failures.try_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    };
    start(&plane, move |seen| match fails(seen) {
        true => Reply::Status(500, "starting"),
        false => wardle.answer(seen),
    })
    .await?;
    collect(&plane, "dependent").await?;
    plane.finish(Vec::new()).await
}
