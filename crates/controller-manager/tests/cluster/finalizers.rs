//! Every finalizer that is set here is taken off on every way out.

use std::path::Path;

use Cell::{As, Gone, Never};
use anyhow::{Context, bail, ensure};
use client::dynamic::target;
use client::{DeleteOptions, PatchKind};
use rpc::api_v1::WriteOptions;
use serde_json::{Value, json};
use testkit::hollow::HollowNode;
use testkit::wait;

use super::plane::Plane;
use super::{create, template};

/// How an object, or what it depends on, comes to its end.
const WAYS: [&str; 6] =
    ["deleted", "owner gone", "orphaned", "released", "node gone", "feature off"];

enum Cell {
    /// [`Held::leaves`] shows that it is taken off.
    Gone,
    /// It comes down to another way, which is shown: why.
    As(&'static str, &'static str),
    /// Why the way does not exist.
    Never(&'static str),
}

const NO_NODE: Cell = Never("it is on no node");
const ALWAYS_ON: Cell = Never("it cannot be turned off");
const NOT_HELD: Cell = Never("nothing else holds it");

/// The finalizers, each with what becomes of it by each of the ways.
#[rustfmt::skip]
const TABLE: &[(&str, [Cell; 6])] = &[
    ("kubernetes", [Gone, Gone, Gone, NOT_HELD, NO_NODE, ALWAYS_ON]),
    ("foregroundDeletion", [Gone, Never("its deletion is under way already"), Never("the two exclude each other"), Gone, NO_NODE, ALWAYS_ON]),
    ("orphan", [Gone, Never("its deletion is under way already"), Gone, As("deleted", "then it has no dependents"), NO_NODE, ALWAYS_ON]),
    ("kubernetes.io/pvc-protection", [Gone, Gone, Gone, Gone, As("released", "the pods of a node that is gone are deleted"), ALWAYS_ON]),
    ("kubernetes.io/pv-protection", [Gone, Gone, Gone, Gone, NO_NODE, ALWAYS_ON]),
    ("batch.kubernetes.io/job-tracking", [Gone, As("deleted", "the collector deletes the Job"), Gone, Gone, Gone, Gone]),
    ("service.kubernetes.io/load-balancer-cleanup", [Gone, Gone, Gone, Gone, NO_NODE, Gone]),
    ("skiff.dev/local-path", [Never("the node takes it off, once it has removed the contents"), NOT_HELD, NOT_HELD, Gone, Gone, ALWAYS_ON]),
    ("networking.k8s.io/service-cidr-finalizer", [Gone, Gone, Gone, Gone, NO_NODE, ALWAYS_ON]),
    ("customresourcecleanup.apiextensions.k8s.io", [Gone, Gone, Gone, NOT_HELD, NO_NODE, ALWAYS_ON]),
];

/// A new finalizer has to be added to the table.
#[test]
fn the_table_has_every_finalizer_of_the_code() -> anyhow::Result<()> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    constants(&crates, &mut found)?;
    for (name, value) in &found {
        assert!(TABLE.iter().any(|(finalizer, _)| finalizer == value), "{name}: {value:?}");
    }
    assert!(found.len() >= 10, "{found:?}");
    for (finalizer, cells) in TABLE {
        for (way, cell) in WAYS.iter().zip(cells) {
            match cell {
                As(other, why) => {
                    let shown = WAYS.iter().zip(cells).find(|(way, _)| *way == other);
                    let shown = shown.is_some_and(|(_, cell)| matches!(cell, Gone));
                    assert!(shown && !why.is_empty(), "{finalizer}, {way}");
                }
                Never(why) => assert!(!why.is_empty(), "{finalizer}, {way}"),
                Gone => {}
            }
        }
    }
    Ok(())
}

/// The names and values of string constants that are finalizers by their names.
fn constants(directory: &Path, found: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("tests") {
            constants(&path, found)?;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let Some((_, constant)) = line.trim_start().split_once("const ") else { continue };
            let Some((name, rest)) = constant.split_once(':') else { continue };
            let marks = ["FINALIZER", "TRACKING", "FOREGROUND", "ORPHAN"];
            let value = rest.split_once("str = \"").and_then(|(_, rest)| rest.split_once('"'));
            if let (true, Some((value, _))) = (marks.iter().any(|mark| name.contains(mark)), value)
            {
                found.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(())
}

type Kind = (&'static str, &'static str);

const NAMESPACE: Kind = ("v1", "Namespace");
const MAP: Kind = ("v1", "ConfigMap");
const ROLE: Kind = ("rbac.authorization.k8s.io/v1", "ClusterRole");
const CLAIM: Kind = ("v1", "PersistentVolumeClaim");
const VOLUME: Kind = ("v1", "PersistentVolume");
const POD: Kind = ("v1", "Pod");
const JOB: Kind = ("batch/v1", "Job");
const SERVICE: Kind = ("v1", "Service");
const RANGE: Kind = ("networking.k8s.io/v1", "ServiceCIDR");
const ADDRESS: Kind = ("networking.k8s.io/v1", "IPAddress");
const DEFINITION: Kind = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");

struct Held<'a> {
    plane: &'a Plane,
    /// Of all objects of a case.
    name: String,
}

impl Held<'_> {
    fn target(&self, kind: Kind, name: &str) -> anyhow::Result<rpc::api_v1::Target> {
        let row = api::kind::by_kind(kind.0, kind.1).context("the kind is served")?;
        Ok(target(row, "default", name, ""))
    }

    async fn make(&self, kind: Kind, mut object: Value) -> anyhow::Result<Value> {
        object["apiVersion"] = kind.0.into();
        object["kind"] = kind.1.into();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = self.name.clone().into();
        }
        create(self.plane, std::slice::from_ref(&object)).await?;
        let name = object["metadata"]["name"].as_str().context("it is named")?;
        let made = self.plane.client.get_object(self.target(kind, name)?).await?;
        Ok(serde_json::from_slice(&made.json)?)
    }

    /// The object as it is now. `None`: it is gone.
    async fn get(&self, kind: Kind) -> anyhow::Result<Option<Value>> {
        match self.plane.client.get_object(self.target(kind, &self.name)?).await {
            Ok(object) => Ok(Some(serde_json::from_slice(&object.json)?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn until(
        &self,
        kind: Kind,
        what: &str,
        holds: impl Fn(Option<&Value>) -> bool,
    ) -> anyhow::Result<()> {
        wait::eventually(&format!("{kind:?} {} is {what}", self.name), async || {
            let object = self.get(kind).await?;
            ensure!(holds(object.as_ref()), "{object:?}");
            Ok(())
        })
        .await
    }

    async fn gone(&self, kind: Kind) -> anyhow::Result<()> {
        self.until(kind, "gone", |object| object.is_none()).await
    }

    async fn held(&self, kind: Kind, finalizer: &str) -> anyhow::Result<()> {
        let has = |object: &Value| object.to_string().contains(&format!("\"{finalizer}\""));
        self.until(kind, "held", |object| object.is_some_and(has)).await
    }

    async fn delete(&self, kind: Kind, policy: &'static str) -> anyhow::Result<()> {
        let options = DeleteOptions { propagation_policy: Some(policy), ..Default::default() };
        self.plane.client.delete_object(self.target(kind, &self.name)?, &options).await?;
        Ok(())
    }

    async fn edit(&self, kind: Kind, patch: Value) -> anyhow::Result<()> {
        let (target, body) = (self.target(kind, &self.name)?, patch.to_string().into_bytes());
        let options = WriteOptions::default();
        self.plane.client.patch_object(target, PatchKind::Merge, body, options).await?;
        Ok(())
    }

    /// A reference to an object of this name.
    fn owned_by(kind: Kind, owner: &Value) -> Value {
        json!([{"apiVersion": kind.0, "kind": kind.1, "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}])
    }

    /// Makes an object that carries the finalizer of its kind, lets it end by `way`, and waits
    /// until it is gone.
    async fn object_leaves(
        &self,
        (kind, owner_kind): (Kind, Kind),
        mut object: Value,
        finalizer: &str,
        way: &str,
    ) -> anyhow::Result<()> {
        if way == "owner gone" {
            let owner = self.make(owner_kind, json!({})).await?;
            object["metadata"]["ownerReferences"] = Self::owned_by(owner_kind, &owner);
        }
        self.make(kind, object).await?;
        // A definition gets its finalizer when it is deleted.
        if kind != DEFINITION {
            self.held(kind, finalizer).await?;
        }
        match way {
            "deleted" => self.delete(kind, "Background").await?,
            "orphaned" => self.delete(kind, "Orphan").await?,
            "owner gone" => self.delete(owner_kind, "Background").await?,
            _ => bail!("no case for {way}"),
        }
        self.gone(kind).await
    }

    async fn leaves(&self, finalizer: &str, way: &str) -> anyhow::Result<()> {
        match (finalizer, way) {
            ("foregroundDeletion" | "orphan", _) => self.dependents_leave(way, finalizer).await,
            ("batch.kubernetes.io/job-tracking", _) => self.pods_leave(way).await,
            (_, "feature off") => Ok(()),
            ("kubernetes.io/pvc-protection", "released") => {
                self.make(CLAIM, claim()).await?;
                let volume =
                    json!({"name": "v", "persistentVolumeClaim": {"claimName": self.name}});
                let mut user = template("v1", json!({}));
                user["metadata"]["name"] = self.name.clone().into();
                user["spec"]["nodeName"] = "n1".into();
                user["spec"]["volumes"] = json!([volume]);
                self.make(POD, user).await?;
                self.held(CLAIM, finalizer).await?;
                self.delete(CLAIM, "Background").await?;
                self.held(CLAIM, finalizer).await?;
                self.delete(POD, "Background").await?;
                self.gone(CLAIM).await
            }
            ("kubernetes.io/pv-protection", "released") => {
                let mut wanted = volume(json!({}));
                wanted["spec"]["claimRef"] = json!({"namespace": "default", "name": self.name});
                self.make(VOLUME, wanted).await?;
                let mut claim = claim();
                claim["spec"]["volumeName"] = self.name.clone().into();
                claim["spec"]["storageClassName"] = "".into();
                self.make(CLAIM, claim).await?;
                let bound =
                    |one: Option<&Value>| one.is_some_and(|one| one["status"]["phase"] == "Bound");
                self.until(CLAIM, "bound", bound).await?;
                self.until(VOLUME, "bound", bound).await?;
                self.delete(VOLUME, "Background").await?;
                self.held(VOLUME, finalizer).await?;
                self.delete(CLAIM, "Background").await?;
                self.gone(VOLUME).await
            }
            ("skiff.dev/local-path", "released" | "node gone") => {
                let source = json!({"driver": finalizer, "volumeHandle": self.name});
                let mut kept = volume(json!({"csi": source}));
                kept["metadata"] = json!({"finalizers": [finalizer],
                    "labels": {"skiff.dev/node": if way == "released" { "n1" } else { "lost" }},
                    "annotations": {"pv.kubernetes.io/provisioned-by": finalizer}});
                let policy = if way == "released" { "Retain" } else { "Delete" };
                kept["spec"]["persistentVolumeReclaimPolicy"] = policy.into();
                self.make(VOLUME, kept).await?;
                self.delete(VOLUME, "Background").await?;
                self.gone(VOLUME).await
            }
            ("service.kubernetes.io/load-balancer-cleanup", "released") => {
                self.make(SERVICE, balanced()).await?;
                self.held(SERVICE, finalizer).await?;
                self.edit(SERVICE, json!({"spec": {"type": "ClusterIP"}})).await?;
                let free = |one: Option<&Value>| {
                    one.is_some_and(|one| one["metadata"]["finalizers"].is_null())
                };
                self.until(SERVICE, "free", free).await
            }
            ("networking.k8s.io/service-cidr-finalizer", "released") => {
                self.make(RANGE, range(way)).await?;
                self.held(RANGE, finalizer).await?;
                let name = "10.250.1.9".to_owned();
                let labels = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
                let address = json!({"metadata": {"name": name, "labels": labels}, "spec": {"parentRef":
                    {"resource": "services", "namespace": "default", "name": self.name}}});
                self.make(ADDRESS, address).await?;
                self.delete(RANGE, "Background").await?;
                self.until(RANGE, "in use", |range| {
                    range.is_some_and(|range| range.to_string().contains("IPAddresses referencing"))
                })
                .await?;
                Held { plane: self.plane, name }.delete(ADDRESS, "Background").await?;
                self.gone(RANGE).await
            }
            ("networking.k8s.io/service-cidr-finalizer", _) => {
                self.object_leaves((RANGE, ROLE), range(way), finalizer, way).await
            }
            ("kubernetes", _) => {
                self.object_leaves((NAMESPACE, ROLE), json!({}), finalizer, way).await
            }
            ("kubernetes.io/pvc-protection", _) => {
                self.object_leaves((CLAIM, MAP), claim(), finalizer, way).await
            }
            ("kubernetes.io/pv-protection", _) => {
                self.object_leaves((VOLUME, ROLE), volume(json!({})), finalizer, way).await
            }
            ("service.kubernetes.io/load-balancer-cleanup", _) => {
                self.object_leaves((SERVICE, MAP), balanced(), finalizer, way).await
            }
            ("customresourcecleanup.apiextensions.k8s.io", _) => {
                let plural = self.name.clone();
                let definition = json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {
                    "group": "example.com", "scope": "Cluster",
                    "names": {"plural": plural, "kind": format!("K{plural}")},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
                let named = Held { plane: self.plane, name: format!("{plural}.example.com") };
                named.object_leaves((DEFINITION, ROLE), definition, finalizer, way).await
            }
            _ => bail!("no case for {finalizer}, {way}"),
        }
    }

    /// Of an owner, whose dependent has the same name.
    async fn dependents_leave(&self, way: &str, finalizer: &str) -> anyhow::Result<()> {
        let owner = self.make(MAP, json!({})).await?;
        let account: Kind = ("v1", "ServiceAccount");
        let dependent = |finalizers: Value| json!({"metadata": {"ownerReferences": Self::owned_by(MAP, &owner), "finalizers": finalizers}});
        match (finalizer, way) {
            ("foregroundDeletion", "deleted") => {
                self.make(account, dependent(json!([]))).await?;
                self.delete(MAP, "Foreground").await?;
                self.gone(account).await?;
                self.gone(MAP).await
            }
            ("foregroundDeletion", "released") => {
                self.make(account, dependent(json!(["example.com/hold"]))).await?;
                self.delete(MAP, "Foreground").await?;
                let ending = |one: Option<&Value>| {
                    one.is_some_and(|one| one["metadata"]["deletionTimestamp"].is_string())
                };
                self.until(account, "ending", ending).await?;
                self.held(MAP, finalizer).await?;
                self.edit(account, json!({"metadata": {"ownerReferences": null}})).await?;
                self.gone(MAP).await?;
                self.edit(account, json!({"metadata": {"finalizers": null}})).await
            }
            ("orphan", "deleted") => {
                self.delete(MAP, "Orphan").await?;
                self.gone(MAP).await
            }
            ("orphan", "orphaned") => {
                self.make(account, dependent(json!([]))).await?;
                self.delete(MAP, "Orphan").await?;
                self.gone(MAP).await?;
                let left = self.get(account).await?.context("the dependent stays")?;
                ensure!(left["metadata"]["ownerReferences"].is_null(), "{left}");
                Ok(())
            }
            _ => bail!("no case for {finalizer}, {way}"),
        }
    }

    /// Of a Job, whose pod must not be held by it.
    async fn pods_leave(&self, way: &str) -> anyhow::Result<()> {
        let mut template = template("v1", json!({}));
        template["metadata"]["labels"] = json!({"of": self.name});
        template["spec"]["restartPolicy"] = "Never".into();
        let job = self.make(JOB, json!({"spec": {"template": template}})).await?;
        let of_job = format!("of={}", self.name);
        let selection = || wait::Selection::namespace("default").labels(&of_job);
        let client = &self.plane.client;
        type Pod = k8s_openapi::api::core::v1::Pod;
        let pods = wait::until::<Pod>(client, selection(), "its pod", |pods| !pods.is_empty());
        let name = pods.await?.into_keys().next().context("it was waited for")?;
        let pod = Held { plane: self.plane, name };
        pod.held(POD, "batch.kubernetes.io/job-tracking").await?;
        let stays = match way {
            "deleted" => self.delete(JOB, "Background").await.map(|()| false)?,
            "orphaned" => self.delete(JOB, "Orphan").await.map(|()| true)?,
            "released" => {
                let label = json!({"batch.kubernetes.io/controller-uid": null});
                pod.edit(POD, json!({"metadata": {"labels": label}})).await?;
                true
            }
            // As the pods of a node that is gone are deleted.
            "node gone" => {
                let options = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
                client.delete_object(pod.target(POD, &pod.name)?, &options).await?;
                false
            }
            "feature off" => {
                self.edit(JOB, json!({"spec": {"suspend": true}})).await?;
                false
            }
            _ => bail!("no case for {way}, {job}"),
        };
        if !stays {
            return pod.gone(POD).await;
        }
        let free =
            |one: Option<&Value>| one.is_some_and(|one| one["metadata"]["finalizers"].is_null());
        pod.until(POD, "free", free).await
    }
}

fn claim() -> Value {
    json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}}}})
}

/// A volume that no claim of another case asks for.
fn volume(source: Value) -> Value {
    let mut volume =
        json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
    match source["csi"].is_null() {
        true => volume["spec"]["hostPath"] = json!({"path": "/tmp/none"}),
        false => volume["spec"]["csi"] = source["csi"].clone(),
    }
    volume
}

/// A range of its own for each way.
fn range(way: &str) -> Value {
    let third = WAYS.iter().position(|one| *one == way).map_or(9, |at| at + 10);
    let third = if way == "released" { 1 } else { third };
    json!({"spec": {"cidrs": [format!("10.250.{third}.0/24")]}})
}

fn balanced() -> Value {
    json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_finalizer_is_taken_off_on_every_way_out() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let pool = ["--load-balancer-cidr=192.0.2.0/24"];
    plane.control(&pool)?;
    let nodes: Vec<HollowNode> = plane.nodes(&["n1"]).await?;
    let held = |row: usize, column: usize| Held { plane: &plane, name: format!("f{row}w{column}") };
    let mut cases = Vec::new();
    for (row, (finalizer, cells)) in TABLE.iter().enumerate() {
        for (column, (way, cell)) in WAYS.iter().zip(cells).enumerate() {
            if matches!(cell, Gone) {
                let held = held(row, column);
                cases.push(async move {
                    let left = held.leaves(finalizer, way).await;
                    left.with_context(|| format!("{finalizer}, {way}"))
                });
            }
        }
    }
    for left in futures::future::join_all(cases).await {
        left?;
    }
    // Services whose addresses came from a pool that is there no more.
    let services = ["deleted", "released"].map(|name| Held { plane: &plane, name: name.into() });
    for service in &services {
        service.make(SERVICE, balanced()).await?;
        service.held(SERVICE, "service.kubernetes.io/load-balancer-cleanup").await?;
    }
    plane.stop_controllers().await?;
    plane.control(&[])?;
    // Another implementation has the same finalizer.
    let foreign = Held { plane: &plane, name: "foreign".into() };
    let mut service = balanced();
    service["metadata"]["finalizers"] = json!(["service.kubernetes.io/load-balancer-cleanup"]);
    foreign.make(SERVICE, service).await?;
    foreign.delete(SERVICE, "Background").await?;
    let [deleted, released] = &services;
    deleted.delete(SERVICE, "Background").await?;
    deleted.gone(SERVICE).await?;
    released.edit(SERVICE, json!({"spec": {"type": "ClusterIP"}})).await?;
    let free = |one: Option<&Value>| {
        one.is_some_and(|one| {
            one["metadata"]["finalizers"].is_null()
                && one["status"]["loadBalancer"]["ingress"].is_null()
        })
    };
    released.until(SERVICE, "free", free).await?;
    foreign.held(SERVICE, "service.kubernetes.io/load-balancer-cleanup").await?;
    plane.finish(nodes).await
}
