//! StorageVersionMigrations, on what is really stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use client::Api;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::wait::{self, Selection};
use testkit::webhook::{Reply, Webhook};

use super::create;
use super::plane::Plane;

/// Objects, and the one at which a migration is killed.
const OBJECTS: usize = 20;
const KILLED_AT: usize = 7;
const ONLY: [&str; 1] = ["--controllers=storage-version-migrator-controller"];

/// A kind of two versions, of which one is stored.
fn definition(stored: &str) -> Value {
    let version = |name: &str| {
        json!({"name": name, "served": true, "storage": name == stored, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [version("v1"), version("v2")]}})
}

fn migration(name: &str) -> Value {
    json!({"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
        "metadata": {"name": name}, "spec": {"resource": {"group": "example.com", "resource": "things"}}})
}

fn allowed(review: &Value) -> Reply {
    let response = json!({"uid": review["request"]["uid"], "allowed": true});
    Reply::Json(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

/// The versions in which the objects are stored.
async fn versions(plane: &Plane) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for number in 0..OBJECTS {
        let key = format!("/registry/example.com/things/default/t{number}");
        let version = plane.stored(&key).await?["apiVersion"].clone();
        all.push(version.as_str().unwrap_or_default().to_owned());
    }
    Ok(all)
}

async fn ended(
    plane: &Plane,
    name: &str,
    condition: &str,
) -> anyhow::Result<StorageVersionMigration> {
    let mut all = wait::until::<StorageVersionMigration>(
        &plane.client,
        Selection::namespace("").name(name),
        condition,
        |all| all.get(name).is_some_and(|one| state(one, condition).0 == "True"),
    )
    .await?;
    Ok(all.remove(name).unwrap_or_default())
}

/// Status, reason and message of a condition.
fn state(migration: &StorageVersionMigration, condition: &str) -> (String, String, String) {
    let all = migration.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let one = all.into_iter().find(|one| one.type_ == condition);
    one.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone())).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_killed_goes_on_and_rewrites_everything() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    create(&plane, &[definition("v1")]).await?;
    let made = AtomicUsize::new(0);
    wait::eventually("the kind is served", async || {
        while made.load(Ordering::SeqCst) < OBJECTS {
            let name = format!("t{}", made.load(Ordering::SeqCst));
            let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}});
            let target = pb::Target {
                group: "example.com".to_owned(),
                version: "v1".to_owned(),
                resource: "things".to_owned(),
                namespace: "default".to_owned(),
                ..Default::default()
            };
            let json = serde_json::to_vec(&thing)?;
            plane.client.create_object(target, json, pb::WriteOptions::default()).await?;
            made.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    })
    .await?;
    ensure!(versions(&plane).await?.iter().all(|version| version == "example.com/v1"));

    // The definition says so first, then the objects are written anew.
    let definitions = Api::<CustomResourceDefinition>::all(&plane.client);
    definitions
        .patch(
            "things.example.com",
            client::PatchKind::Merge,
            &json!({"spec": definition("v2")["spec"]}),
        )
        .await?;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let webhook = Webhook::start("127.0.0.1", &["127.0.0.1"], move |review| {
        match counted.fetch_add(1, Ordering::SeqCst) {
            number if number < KILLED_AT => allowed(review),
            _ => Reply::Hang,
        }
    })
    .await?;
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "things"}, "webhooks": [{"name": "things.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 30,
            "clientConfig": {"url": format!("https://127.0.0.1:{}/", webhook.port), "caBundle": webhook.ca_bundle()},
            "rules": [{"apiGroups": ["example.com"], "apiVersions": ["*"], "resources": ["things"], "operations": ["UPDATE"]}]}]});
    create(&plane, &[hook, migration("all")]).await?;
    let connection = plane.identity("system:kube-controller-manager")?;
    let running = plane.control_through(connection.clone(), &ONLY)?;
    wait::eventually("it is in the middle", async || {
        ensure!(asked.load(Ordering::SeqCst) > KILLED_AT);
        Ok(())
    })
    .await?;
    running.abort();
    let half = versions(&plane).await?;
    ensure!(
        half.iter().filter(|version| *version == "example.com/v2").count() == KILLED_AT,
        "{half:?}"
    );
    let migrations = Api::<StorageVersionMigration>::all(&plane.client);
    let now = migrations.get("all").await?;
    ensure!(state(&now, "Running").0 == "True" && state(&now, "Succeeded").0.is_empty(), "{now:?}");

    // The next one does the rest.
    let (before, counted) = (asked.load(Ordering::SeqCst), asked.clone());
    webhook.behave(move |review| {
        counted.fetch_add(1, Ordering::SeqCst);
        allowed(review)
    });
    let running = plane.control_through(connection, &ONLY)?;
    let done = ended(&plane, "all", "Succeeded").await?;
    ensure!(versions(&plane).await?.iter().all(|version| version == "example.com/v2"));
    let again = asked.load(Ordering::SeqCst) - before;
    ensure!(again == OBJECTS - KILLED_AT, "{again} were written by the second run");
    ensure!(state(&done, "Running").0 == "False", "{done:?}");
    ensure!(state(&done, "Succeeded").1 == "StorageVersionMigrationSucceeded", "{done:?}");
    ensure!(done.status.and_then(|status| status.resource_version).is_some());

    // What is refused will not be done.
    webhook.behave(|review| {
        let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": {"message": "never"}});
        Reply::Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    });
    create(&plane, &[migration("refused")]).await?;
    let failed = ended(&plane, "refused", "Failed").await?;
    let (_, reason, message) = state(&failed, "Failed");
    ensure!(reason == "StorageVersionMigrationFailed", "{reason}");
    ensure!(message.starts_with("migration encountered unhandled error: "), "{message}");
    running.abort();
    plane.finish(Vec::new()).await
}
