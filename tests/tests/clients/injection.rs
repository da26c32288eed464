//! The authorities of webhooks as cert-manager keeps them: a controller issues one for an object of
//! its own kind, another injects it into whatever is annotated with that object's name, and both
//! follow when the authority is another one.

use std::sync::Arc;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use futures::stream::select;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::suite::Fixture;
use testkit::wait;
use testkit::webhook::{Reply, Webhook};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::kubectl::{kubectl, write_manifest};
use super::operators::connect;

const ANNOTATION: &str = "injection.example.com/inject-ca-from";
const KEGS: &str = "kegs.injection.example.com";
const SERVICE: &str = "v1.injected.example.com";

/// An authority, whose certificate goes into a Secret of the same name.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "injection.example.com",
    version = "v1",
    kind = "Authority",
    namespaced,
    status = "AuthorityStatus"
)]
struct AuthoritySpec {
    /// A larger number asks for another certificate.
    issue: u32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct AuthorityStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    observed_generation: Option<i64>,
}

/// What issues the certificates of servers: here, each server has its own authority.
struct Issuer {
    client: Client,
    /// By the number of the issue.
    certificates: Vec<String>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the Secret of an authority, and reports it.
async fn issue(authority: Arc<Authority>, issuer: Arc<Issuer>) -> Result<Action, Failed> {
    let namespace = authority.namespace().unwrap_or_default();
    let name = authority.name_any();
    let manager = PatchParams::apply("issuer").force();
    let number = usize::try_from(authority.spec.issue)?;
    let certificate = issuer.certificates.get(number);
    let certificate = certificate.ok_or("there is no such certificate")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "ownerReferences": [authority.controller_owner_ref(&())]},
        "stringData": {"ca.crt": certificate},
    });
    let secrets: Api<Secret> = Api::namespaced(issuer.client.clone(), &namespace);
    secrets.patch(&name, &manager, &Patch::Apply(&secret)).await?;
    let status = json!({
        "apiVersion": Authority::api_version(&()), "kind": Authority::kind(&()),
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Issued",
            "observedGeneration": authority.metadata.generation}]},
    });
    let all: Api<Authority> = Api::namespaced(issuer.client.clone(), &namespace);
    all.patch_status(&name, &manager, &Patch::Apply(&status)).await?;
    Ok(Action::await_change())
}

/// A kind that has authorities.
trait Injectable:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    /// A configuration of what is injected.
    fn injected(&self, bundle: &str) -> Value;
    /// What has been injected.
    fn bundles(&self) -> Vec<Option<String>>;
}

fn encoded(bundle: Option<&k8s_openapi::ByteString>) -> Option<String> {
    bundle.map(|bytes| BASE64.encode(&bytes.0))
}

macro_rules! injectable_webhooks {
    ($($kind:ident),*) => {$(
        impl Injectable for $kind {
            fn injected(&self, bundle: &str) -> Value {
                let webhooks: Vec<Value> = self
                    .webhooks
                    .iter()
                    .flatten()
                    .map(|one| json!({"name": one.name, "clientConfig": {"caBundle": bundle}}))
                    .collect();
                json!({ "webhooks": webhooks })
            }

            fn bundles(&self) -> Vec<Option<String>> {
                let webhooks = self.webhooks.iter().flatten();
                webhooks.map(|one| encoded(one.client_config.ca_bundle.as_ref())).collect()
            }
        }
    )*};
}
injectable_webhooks!(ValidatingWebhookConfiguration, MutatingWebhookConfiguration);

impl Injectable for CustomResourceDefinition {
    fn injected(&self, bundle: &str) -> Value {
        json!({"spec": {"conversion": {"strategy": "Webhook",
            "webhook": {"clientConfig": {"caBundle": bundle}}}}})
    }

    fn bundles(&self) -> Vec<Option<String>> {
        let webhook = self.spec.conversion.as_ref().and_then(|one| one.webhook.as_ref());
        let config = webhook.and_then(|one| one.client_config.as_ref());
        vec![encoded(config.and_then(|one| one.ca_bundle.as_ref()))]
    }
}

impl Injectable for APIService {
    fn injected(&self, bundle: &str) -> Value {
        json!({"spec": {"caBundle": bundle}})
    }

    fn bundles(&self) -> Vec<Option<String>> {
        vec![encoded(self.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref()))]
    }
}

/// Injects the authorities into all objects of a kind, whenever these or a Secret have changed.
async fn inject<K: Injectable>(client: Client) {
    let all: Api<K> = Api::all(client.clone());
    let secrets: Api<Secret> = Api::all(client.clone());
    let objects = watcher(all.clone(), watcher::Config::default()).map(|event| event.map(drop));
    let changes = watcher(secrets, watcher::Config::default()).map(|event| event.map(drop));
    let mut changes = Box::pin(select(objects, changes));
    while changes.next().await.is_some() {
        // What fails is tried again at the next change.
        if let Err(error) = inject_all(&client, &all).await {
            eprintln!("{}: {error:#}", K::kind(&()));
        }
    }
}

async fn inject_all<K: Injectable>(client: &Client, all: &Api<K>) -> anyhow::Result<()> {
    for object in all.list(&ListParams::default()).await? {
        let Some(from) = object.annotations().get(ANNOTATION) else { continue };
        let (namespace, name) = from.split_once('/').context("no namespace")?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = secrets.get_opt(name).await?.and_then(|secret| secret.data);
        let Some(bundle) = secret.and_then(|data| encoded(data.get("ca.crt"))) else { continue };
        if object.bundles().iter().all(|own| own.as_ref() == Some(&bundle)) {
            continue;
        }
        let mut config = object.injected(&bundle);
        config["apiVersion"] = K::api_version(&()).into();
        config["kind"] = K::kind(&()).into();
        let manager = PatchParams::apply("injector").force();
        all.patch(&object.name_any(), &manager, &Patch::Apply(&config)).await?;
    }
    Ok(())
}

/// Admits ConfigMaps with a label, and converts kegs.
fn answer(review: &Value) -> Reply {
    let request = &review["request"];
    let uid = &request["uid"];
    if review["kind"] == "ConversionReview" {
        let convert = |object: &Value| {
            let mut object = object.clone();
            object["apiVersion"] = request["desiredAPIVersion"].clone();
            object
        };
        let objects: Vec<Value> =
            request["objects"].as_array().into_iter().flatten().map(convert).collect();
        return Reply::Json(json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview",
            "response": {"uid": uid, "result": {"status": "Success"}, "convertedObjects": objects}}));
    }
    let mut response = json!({"uid": uid, "allowed": true});
    if request["object"]["data"]["admit"] == "no" {
        response["allowed"] = false.into();
        response["status"] = json!({"message": "it says so"});
    } else if request["object"]["metadata"]["labels"].is_null() {
        let add = r#"[{"op": "add", "path": "/metadata/labels", "value": {"seen": "true"}}]"#;
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64.encode(add).into();
    }
    Reply::Json(json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview",
        "response": response}))
}

/// Leads the connections to an address to one of several servers: those that are open end when it
/// is another one.
async fn relay(listener: TcpListener, to: watch::Receiver<u16>, address: String) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (mut to, address) = (to.clone(), address.clone());
        let port = *to.borrow_and_update();
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect((address.as_str(), port)).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut stream, &mut server) => {}
                _ = to.changed() => {}
            }
        });
    }
}

/// What a user writes of webhooks, without an authority.
fn manifest(fixture: &Fixture, url: &str) -> Value {
    let namespace = fixture.namespace.as_str();
    let metadata =
        |name: &str| json!({"name": name, "annotations": {ANNOTATION: format!("{namespace}/ca")}});
    let webhook = |name: &str| {
        json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "clientConfig": {"url": format!("{url}/admit")},
            // A list without keys is sent again if its defaults are missing.
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"], "scope": "*"}]})
    };
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let items = json!([
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": metadata(namespace),
            "webhooks": [webhook("first.example.com"), webhook("second.example.com")]},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": metadata(namespace), "webhooks": [webhook("third.example.com")]},
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": metadata(KEGS), "spec": {"group": "injection.example.com",
                "scope": "Namespaced", "names": {"plural": "kegs", "singular": "keg", "kind": "Keg"},
                "versions": [version("v1", true), version("v2", false)],
                "conversion": {"strategy": "Webhook", "webhook": {
                    "conversionReviewVersions": ["v1"],
                    "clientConfig": {"url": format!("{url}/convert")}}}}},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": metadata(SERVICE), "spec": {"group": "injected.example.com",
                "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
                "service": {"namespace": namespace, "name": "nowhere"}}},
    ]);
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

pub async fn an_injected_authority_is_followed(fixture: &Fixture) -> anyhow::Result<()> {
    // The webhooks have to answer while the scenario waits for kubectl.
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let gateway = fixture.cluster.gateway();
    let address = gateway.clone();
    let starting = threads.spawn(async move {
        let mut servers = Vec::new();
        for _ in 0..2 {
            servers.push(Webhook::start(&address, &[address.as_str()], answer).await?);
        }
        let listener = TcpListener::bind((address.as_str(), 0)).await?;
        let port = listener.local_addr()?.port();
        let (switch, to) = watch::channel(servers[0].port);
        tokio::spawn(relay(listener, to, address));
        anyhow::Ok((servers, port, switch))
    });
    let (servers, port, switch) = starting.await??;
    let list = manifest(fixture, &format!("https://{gateway}:{port}"));
    let path = write_manifest(fixture, "injected", &list.to_string())?;
    let mut running = JoinSet::new();
    let outcome = follow(fixture, &servers, &switch, &path, &mut running).await;
    running.shutdown().await;
    // They concern the whole cluster.
    kubectl(fixture, &["delete", "--ignore-not-found", "-f", &path])?;
    kubectl(fixture, &["delete", "--ignore-not-found", "crd", Authority::crd_name()])?;
    threads.shutdown_background();
    outcome
}

async fn follow(
    fixture: &Fixture,
    servers: &[Webhook],
    switch: &watch::Sender<u16>,
    path: &str,
    running: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let client = connect(fixture).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let manager = PatchParams::apply("test").force();
    definitions.patch(Authority::crd_name(), &manager, &Patch::Apply(Authority::crd())).await?;
    let established = conditions::is_crd_established();
    await_condition(definitions, Authority::crd_name(), established).await?;

    let certificates = servers.iter().map(|server| server.ca_pem.clone()).collect();
    let issuer = Issuer { client: client.clone(), certificates };
    let all: Api<Authority> = Api::namespaced(client.clone(), &fixture.namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &fixture.namespace);
    let controller = Controller::new(all.clone(), watcher::Config::default())
        .owns(secrets, watcher::Config::default())
        .run(
            |authority, issuer| async move {
                issue(authority, issuer).await.map_err(std::io::Error::other)
            },
            |_, _, _| Action::requeue(std::time::Duration::from_millis(200)),
            Arc::new(issuer),
        );
    running.spawn(controller.for_each(async |_| ()));
    running.spawn(inject::<ValidatingWebhookConfiguration>(client.clone()));
    running.spawn(inject::<MutatingWebhookConfiguration>(client.clone()));
    running.spawn(inject::<CustomResourceDefinition>(client.clone()));
    running.spawn(inject::<APIService>(client.clone()));

    kubectl(fixture, &["apply", "-f", path])?;
    wait::eventually("webhooks without an authority fail", async || {
        let early = kubectl(fixture, &["create", "configmap", "early", "--dry-run=server"]);
        let early = early.err().context("it was admitted")?.to_string();
        ensure!(early.contains("failed calling webhook"), "{early}");
        Ok(())
    })
    .await?;

    for (issue, server) in servers.iter().enumerate() {
        switch.send_replace(server.port);
        let authority = json!({
            "apiVersion": Authority::api_version(&()), "kind": Authority::kind(&()),
            "metadata": {"name": "ca"}, "spec": {"issue": issue},
        });
        let applied = all.patch("ca", &manager, &Patch::Apply(&authority)).await?;
        let ready = |authority: Option<&Authority>| {
            let status = authority.and_then(|one| one.status.as_ref());
            status.into_iter().flat_map(|status| &status.conditions).any(|condition| {
                condition.status == "True"
                    && condition.observed_generation == applied.metadata.generation
            })
        };
        await_condition(all.clone(), "ca", ready).await?;
        let bundle = server.ca_bundle();
        wait::eventually("the authority is injected everywhere", async || {
            let namespace = fixture.namespace.as_str();
            let webhooks = "{.webhooks[*].clientConfig.caBundle}";
            for (kind, name, path, count) in [
                ("mutatingwebhookconfiguration", namespace, webhooks, 2),
                ("validatingwebhookconfiguration", namespace, webhooks, 1),
                ("crd", KEGS, "{.spec.conversion.webhook.clientConfig.caBundle}", 1),
                ("apiservice", SERVICE, "{.spec.caBundle}", 1),
            ] {
                let found = kubectl(fixture, &["get", kind, name, &format!("-o=jsonpath={path}")])?;
                ensure!(found == vec![bundle.as_str(); count].join(" "), "{kind}: {found}");
            }
            Ok(())
        })
        .await?;
        // Its user's manifest says nothing about it.
        let again = kubectl(fixture, &["apply", "-f", path])?;
        ensure!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
        works(fixture, issue).await?;
    }
    Ok(())
}

/// All three webhooks are called.
async fn works(fixture: &Fixture, issue: usize) -> anyhow::Result<()> {
    let name = format!("map-{issue}");
    wait::eventually("webhooks admit", async || {
        kubectl(fixture, &["create", "configmap", &name]).map(drop)
    })
    .await?;
    let label = kubectl(fixture, &["get", "cm", &name, "-o=jsonpath={.metadata.labels.seen}"])?;
    ensure!(label == "true", "{label:?}");
    let denied = kubectl(fixture, &["create", "configmap", "denied", "--from-literal=admit=no"]);
    let denied = denied.err().context("it was admitted")?.to_string();
    ensure!(denied.contains("denied the request: it says so"), "{denied}");
    let keg = json!({"apiVersion": "injection.example.com/v2", "kind": "Keg",
        "metadata": {"name": name}});
    let path = write_manifest(fixture, "keg", &keg.to_string())?;
    wait::eventually("a webhook converts", async || {
        kubectl(fixture, &["apply", "-f", &path]).map(drop)
    })
    .await?;
    let keg = kubectl(fixture, &["get", "kegs.v1.injection.example.com", &name, "-o=json"])?;
    ensure!(keg.contains("\"injection.example.com/v1\""), "{keg}");
    Ok(())
}
