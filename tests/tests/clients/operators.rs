//! Operators as people write them: a kind of their own, derived or described by hand, and a
//! controller or a dynamic client that works with it.

use std::sync::Arc;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait;

use super::{node, python};

const FINALIZER: &str = "operators.example.com/lamp";

/// What a lighthouse is to do.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "operators.example.com",
    version = "v1",
    kind = "Lighthouse",
    namespaced,
    status = "LighthouseStatus",
    shortname = "lh",
    validation = Rule::new("self.spec.reach < 100").message("the earth is round")
)]
struct LighthouseSpec {
    #[schemars(range(min = 1))]
    reach: u32,
    #[serde(default = "white")]
    colour: String,
    colours_before: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct LighthouseStatus {
    lit: bool,
    observed_generation: Option<i64>,
}

fn white() -> String {
    "white".to_owned()
}

/// kube-rs' client, as administrator.
pub async fn connect(fixture: &Fixture) -> anyhow::Result<kube::Client> {
    let file = Kubeconfig::read_from(fixture.cluster.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Makes a ConfigMap of each lighthouse, which the lighthouse owns, and reports it in its status.
async fn reconcile(
    lighthouse: Arc<Lighthouse>,
    client: Arc<kube::Client>,
) -> Result<Action, Box<dyn std::error::Error + Send + Sync>> {
    let namespace = lighthouse.namespace().unwrap_or_default();
    let all: Api<Lighthouse> = Api::namespaced((*client).clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    let reconciled = finalizer(
        &all,
        FINALIZER,
        lighthouse,
        async |event| -> kube::Result<Action> {
            let manager = PatchParams::apply("lamplighter").force();
            match event {
                Event::Apply(lighthouse) => {
                    let name = lighthouse.name_any();
                    let map = ConfigMap {
                        metadata: ObjectMeta {
                            name: Some(name.clone()),
                            owner_references: Some(
                                lighthouse.controller_owner_ref(&()).into_iter().collect(),
                            ),
                            ..Default::default()
                        },
                        data: Some([("colour".to_owned(), lighthouse.spec.colour.clone())].into()),
                        ..Default::default()
                    };
                    maps.patch(&name, &manager, &Patch::Apply(&map)).await?;
                    let status = json!({
                        "apiVersion": Lighthouse::api_version(&()), "kind": Lighthouse::kind(&()),
                        "status": {"lit": true, "observed_generation": lighthouse.metadata.generation},
                    });
                    all.patch_status(&name, &manager, &Patch::Apply(&status)).await?;
                }
                Event::Cleanup(lighthouse) => {
                    let note = ConfigMap {
                        metadata: ObjectMeta {
                            name: Some("logbook".to_owned()),
                            ..Default::default()
                        },
                        data: Some([("last".to_owned(), lighthouse.name_any())].into()),
                        ..Default::default()
                    };
                    maps.patch("logbook", &manager, &Patch::Apply(&note)).await?;
                }
            }
            Ok(Action::await_change())
        },
    );
    Ok(reconciled.await?)
}

pub async fn a_kube_rs_controller_reconciles_a_derived_kind(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let client = connect(fixture).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let manager = PatchParams::apply("test").force();
    definitions.patch(Lighthouse::crd_name(), &manager, &Patch::Apply(Lighthouse::crd())).await?;
    let established = conditions::is_crd_established();
    await_condition(definitions.clone(), Lighthouse::crd_name(), established).await?;

    let all: Api<Lighthouse> = Api::namespaced(client.clone(), &fixture.namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &fixture.namespace);
    let controller = Controller::new(all.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .run(
            |lighthouse, client| async move {
                reconcile(lighthouse, client).await.map_err(std::io::Error::other)
            },
            |_, _, _| Action::requeue(std::time::Duration::from_millis(200)),
            Arc::new(client.clone()),
        );
    let running = tokio::spawn(controller.for_each(async |_| ()));
    let outcome = lives(&all, &maps).await;
    running.abort();
    outcome?;
    definitions.delete(Lighthouse::crd_name(), &DeleteParams::default()).await?;
    wait::eventually("the kind is gone", async || {
        let listed = all.list(&Default::default()).await;
        ensure!(
            matches!(&listed, Err(kube::Error::Api(status)) if status.code == 404),
            "{listed:?}"
        );
        Ok(())
    })
    .await
}

async fn lives(all: &Api<Lighthouse>, maps: &Api<ConfigMap>) -> anyhow::Result<()> {
    let new = |reach| {
        let spec = LighthouseSpec { reach, colour: white(), colours_before: None };
        Lighthouse::new("pharos", spec)
    };
    for (reach, problem) in [(0, "spec.reach"), (100, "the earth is round")] {
        let refused = all.create(&PostParams::default(), &new(reach)).await;
        let Err(kube::Error::Api(status)) = &refused else {
            anyhow::bail!("{reach}: {refused:?}");
        };
        ensure!(status.code == 422 && status.message.contains(problem), "{status:?}");
    }
    all.create(&PostParams::default(), &new(50)).await?;
    wait::eventually("it is lit", async || {
        let found = all.get("pharos").await?;
        let status = found.status.context("no status")?;
        ensure!(status.lit && status.observed_generation == found.metadata.generation);
        ensure!(maps.get("pharos").await?.data.is_some_and(|data| data["colour"] == "white"));
        Ok(())
    })
    .await?;

    // A change of the spec, and a loss of what is owned, are both seen.
    let red = json!({"spec": {"colour": "red"}});
    all.patch("pharos", &PatchParams::default(), &Patch::Merge(&red)).await?;
    let turned = async || {
        let data = maps.get("pharos").await?.data.unwrap_or_default();
        ensure!(data.get("colour").is_some_and(|colour| colour == "red"), "{data:?}");
        Ok(())
    };
    wait::eventually("the new colour is seen", turned).await?;
    maps.delete("pharos", &DeleteParams::default()).await?;
    wait::eventually("what is lost is made again", turned).await?;

    all.delete("pharos", &DeleteParams::default()).await?;
    wait::eventually("the finalizer ran, and what it owned was collected", async || {
        ensure!(all.get_opt("pharos").await?.is_none(), "it is still there");
        ensure!(maps.get_opt("pharos").await?.is_none(), "its ConfigMap is still there");
        let book = maps.get("logbook").await?.data.unwrap_or_default();
        ensure!(book.get("last").is_some_and(|last| last == "pharos"), "{book:?}");
        Ok(())
    })
    .await
}

pub async fn the_python_dynamic_client_works_with_custom_kinds(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let script = include_str!("dynamic.py");
    let output = python(fixture)?.args(["-c", script, &fixture.namespace]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(())
}

pub async fn a_controller_on_the_javascript_client_reconciles(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let script = include_str!("controller.js");
    let output = node(fixture)?.args(["-e", script, &fixture.namespace]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(())
}
