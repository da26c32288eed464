//! `skiff create`: creates objects from a manifest, or from arguments for common kinds.
//!
//! A generator turns arguments into an object; creating it is the same for all.

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

use crate::discovery::Resources;
use crate::output::yaml;
use crate::request::Connection;
use crate::request::editor::in_editor;
use crate::request::failure::Failures;
use crate::request::generate::{CreateFlags, create_generated, metadata};
use crate::request::manifest::{self, Document, Manifests, namespace_of};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    manifests: Manifests,
    /// Not supported: post the manifest to this path
    #[arg(long)]
    raw: Option<String>,
    /// Edit the objects first
    #[arg(long)]
    edit: bool,
    #[command(flatten)]
    create: CreateFlags,
    #[command(subcommand)]
    generator: Option<Generator>,
}

#[derive(clap::Subcommand)]
enum Generator {
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

impl Generator {
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

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let Some(generator) = &args.generator else {
        return from_files(&args, connection).await;
    };
    let client = connection.client()?;
    if let Generator::Token(token) = generator {
        return token.run(&client, &args.create.write).await;
    }
    let resources = Resources::discover(&client).await?;
    let object = generator.object(&client, &resources).await?;
    let mut report = args.create.write.report()?;
    let flags = (&args.create, &mut report);
    create_generated(flags, connection, &client, &resources, object, "created").await?;
    Ok(ExitCode::SUCCESS)
}

async fn from_files(args: &Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    args.manifests.files.require()?;
    let (mut documents, broken) = args.manifests.files.read()?;
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
    let selector = args.manifests.selector()?;
    let mut report = args.create.write.report()?;
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
                .create
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
    let texts: Vec<String> = documents.iter().map(|document| yaml(&document.object)).collect();
    manifest::parse(&in_editor(&texts.join("---\n"))?, "edited-file")
}
