//! `skiff create`: from a manifest, or from arguments for the kinds that people make by hand.
//!
//! A generator turns arguments into an object; what happens with the object is the same for all.

mod data;
mod policy;
mod rbac;
mod service;
mod token;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use serde_json::{Value, json};

use super::Connection;
use super::apply::{field_validation, namespace_of, with_last_applied};
use super::failure::Failures;
use super::manifest::{Document, Files};
use super::resources::{Resource, Resources};
use super::writing::{DryRun, Report, Writing};
pub use rbac::Subjects;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Only the manifests' objects with these labels
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Send the manifest to this path of the server as it is
    #[arg(long)]
    raw: Option<String>,
    /// Change the objects in an editor first
    #[arg(long)]
    edit: bool,
    #[command(flatten)]
    creating: Creating,
    #[command(subcommand)]
    what: Option<What>,
}

/// Flags of everything that creates.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Creating {
    #[command(flatten)]
    pub writing: Writing,
    /// Check fields strictly, warn, or ignore what is unknown
    #[arg(long, global = true, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", value_parser = ["strict", "warn", "ignore", "true", "false"])]
    validate: String,
    /// Keep the configuration in an annotation, for a later apply
    #[arg(long, global = true)]
    save_config: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace { name: String },
    /// A ConfigMap from literals and files
    #[command(visible_alias = "cm")]
    Configmap(data::ConfigMap),
    /// A Secret
    #[command(subcommand)]
    Secret(data::Secret),
    /// A ServiceAccount
    #[command(visible_alias = "sa")]
    Serviceaccount { name: String },
    /// A Service
    #[command(subcommand, visible_alias = "svc")]
    Service(service::Service),
    /// A Deployment
    #[command(visible_alias = "deploy")]
    Deployment(workload::Deployment),
    /// A Job
    Job(workload::Job),
    /// A CronJob
    #[command(visible_alias = "cj")]
    Cronjob(workload::CronJob),
    /// A Role
    Role(rbac::Role),
    /// A ClusterRole
    Clusterrole(rbac::ClusterRole),
    /// A RoleBinding
    Rolebinding(rbac::RoleBinding),
    /// A ClusterRoleBinding
    Clusterrolebinding(rbac::ClusterRoleBinding),
    /// A ResourceQuota
    #[command(visible_alias = "resourcequota")]
    Quota(policy::Quota),
    /// A PriorityClass
    #[command(visible_alias = "pc")]
    Priorityclass(policy::PriorityClass),
    /// A PodDisruptionBudget
    #[command(visible_alias = "pdb")]
    Poddisruptionbudget(policy::DisruptionBudget),
    /// An Ingress
    #[command(visible_alias = "ing")]
    Ingress(service::Ingress),
    /// A token of a ServiceAccount
    Token(token::Args),
}

impl What {
    async fn object(&self, client: &Client, resources: &Resources) -> anyhow::Result<Value> {
        let plain = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": metadata(name)});
        Ok(match self {
            Self::Namespace { name } => {
                let mut object = plain("Namespace", name);
                object["spec"] = json!({});
                object["status"] = json!({});
                object
            }
            Self::Serviceaccount { name } => plain("ServiceAccount", name),
            Self::Configmap(args) => args.object()?,
            Self::Secret(args) => args.object()?,
            Self::Service(args) => args.object()?,
            Self::Deployment(args) => args.object(),
            Self::Job(args) => args.object(client).await?,
            Self::Cronjob(args) => args.object(),
            Self::Role(args) => args.object(resources)?,
            Self::Clusterrole(args) => args.object(resources)?,
            Self::Rolebinding(args) => args.object()?,
            Self::Clusterrolebinding(args) => args.object()?,
            Self::Quota(args) => args.object()?,
            Self::Priorityclass(args) => args.object(),
            Self::Poddisruptionbudget(args) => args.object()?,
            Self::Ingress(args) => args.object()?,
            Self::Token(_) => bail!("a token is not an object"),
        })
    }
}

/// Metadata as kubectl's generators write it.
pub fn metadata(name: &str) -> Value {
    json!({"creationTimestamp": null, "name": name})
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let Some(what) = &args.what else {
        return from_files(&args, connection).await;
    };
    let client = connection.client()?;
    if let What::Token(token) = what {
        return token.run(&client, &args.creating.writing).await;
    }
    let resources = Resources::discover(&client).await?;
    let object = what.object(&client, &resources).await?;
    let mut report = args.creating.writing.report()?;
    let creating = (&args.creating, &mut report);
    generated(creating, connection, &client, &resources, object, "created").await?;
    Ok(ExitCode::SUCCESS)
}

/// Creates what a generator made, and says so.
pub async fn generated(
    (creating, report): (&Creating, &mut Report),
    connection: &Connection,
    client: &Client,
    resources: &Resources,
    mut object: Value,
    what: &str,
) -> anyhow::Result<()> {
    let document = Document { object: object.clone(), source: String::new() };
    let resource = document.resource(resources)?;
    if resource.namespaced && connection.namespace.is_some() {
        object["metadata"]["namespace"] = client.default_namespace().into();
    }
    let created = match creating.create(client, resource, client.default_namespace(), &object).await
    {
        Ok(created) => created,
        Err(client::Error::Api(error))
            if matches!(error.reason(), "AlreadyExists" | "Invalid")
                && resource.kind != "Namespace"
                && !creating.writing_tries() =>
        {
            bail!("failed to create {}: {error}", singular(resource));
        }
        Err(error) => return Err(error.into()),
    };
    report.done(resource, &created, what)
}

fn singular(resource: &Resource) -> String {
    resource.kind.to_lowercase()
}

async fn from_files(args: &Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    args.files.require()?;
    let (mut documents, broken) = args.files.read()?;
    let client = connection.client()?;
    if args.raw.is_some() {
        bail!(
            "--raw is not supported: the connection to the server is gRPC, whose methods know objects, not paths"
        );
    }
    if args.edit {
        documents = edited(&documents)?;
    }
    let resources = Resources::discover(&client).await?;
    let selector = api::labels::Selector::parse(&args.selector)?;
    let mut report = args.creating.writing.report()?;
    let mut failures = Failures::default();
    if documents.is_empty() && broken.is_empty() {
        bail!("no objects passed to create");
    }
    broken.into_iter().for_each(|error| failures.push(error));
    for document in documents.iter().filter(|document| document.matches(&selector)) {
        let created = async {
            let resource = document.resource(&resources)?;
            let flag = connection.namespace.as_deref();
            let namespace = namespace_of(flag, &client, resource, document)?;
            let mut object = document.object.clone();
            if resource.namespaced {
                object["metadata"]["namespace"] = namespace.as_str().into();
            }
            let created = args
                .creating
                .create(&client, resource, &namespace, &object)
                .await
                .with_context(|| format!("error when creating {:?}", document.source))?;
            anyhow::Ok((resource, created))
        };
        match created.await {
            Ok((resource, created)) => report.done(resource, &created, "created")?,
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

fn edited(documents: &[Document]) -> anyhow::Result<Vec<Document>> {
    let texts: Vec<String> =
        documents.iter().map(|document| super::output::yaml(&document.object)).collect();
    super::manifest::parse(&super::edit::in_editor(&texts.join("---\n"))?, "edited-file")
}

impl Creating {
    fn writing_tries(&self) -> bool {
        self.writing.dry_run != DryRun::None
    }

    /// Sends one object; with a client's dry run it comes back as it was.
    pub async fn create(
        &self,
        client: &Client,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<Value, client::Error> {
        let annotated =
            self.save_config.then(|| with_last_applied(object, namespace, resource).ok()).flatten();
        let object = annotated.as_ref().unwrap_or(object);
        if self.writing.dry_run == DryRun::Client {
            return Ok(object.clone());
        }
        let mut options = self.writing.options("skiff-create");
        options.field_validation = field_validation(&self.validate).to_owned();
        let body = object.to_string().into_bytes();
        let created =
            client.create_object(resource.target(namespace, "", ""), body, options).await?;
        serde_json::from_slice(&created.json)
            .map_err(|error| client::Error::Config(error.to_string()))
    }
}
