//! `skiff create`: from a manifest, or from arguments for the kinds that people make by hand.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::Client;
use rpc::api_v1::WriteOptions;
use serde_json::{Map, Value, json};

use super::Connection;
use super::apply::{DryRun, field_validation, namespace_of, report, suffix};
use super::manifest::{self, Document};
use super::output::{Format, print_objects};
use super::resources::Resources;

#[derive(clap::Args)]
pub struct Args {
    /// Manifest file, directory, or - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    filenames: Vec<String>,
    #[arg(short = 'R', long)]
    recursive: bool,
    #[arg(long, value_enum, global = true, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    #[arg(long, default_value = "strict", value_parser = ["strict", "warn", "ignore", "true", "false"])]
    validate: String,
    #[arg(short, long, global = true)]
    output: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace { name: String },
    /// A ConfigMap from literals and files
    #[command(visible_alias = "cm")]
    Configmap {
        name: String,
        #[command(flatten)]
        data: Data,
    },
    /// A Secret
    #[command(subcommand)]
    Secret(Secret),
    /// A ServiceAccount
    #[command(visible_alias = "sa")]
    Serviceaccount { name: String },
    /// A Deployment
    #[command(visible_alias = "deploy")]
    Deployment {
        name: String,
        #[arg(long, required = true)]
        image: Vec<String>,
        #[arg(short, long, default_value_t = 1)]
        replicas: u32,
        #[arg(long)]
        port: Option<u16>,
        /// The command, after --
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A Job
    Job {
        name: String,
        #[arg(long)]
        image: String,
        /// The command, after --
        #[arg(last = true)]
        command: Vec<String>,
    },
}

#[derive(clap::Subcommand)]
enum Secret {
    /// Any keys and values
    Generic {
        name: String,
        #[command(flatten)]
        data: Data,
        #[arg(long = "type", default_value = "Opaque")]
        kind: String,
    },
    /// Credentials of an image registry
    DockerRegistry {
        name: String,
        #[arg(long)]
        docker_server: String,
        #[arg(long)]
        docker_username: String,
        #[arg(long)]
        docker_password: String,
        #[arg(long, default_value = "")]
        docker_email: String,
    },
    /// A certificate and its key
    Tls {
        name: String,
        #[arg(long)]
        cert: String,
        #[arg(long)]
        key: String,
    },
}

/// Where keys and values come from.
#[derive(clap::Args)]
struct Data {
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// FILE, KEY=FILE, or a directory
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

impl Data {
    fn read(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut all: Vec<(String, Vec<u8>)> = Vec::new();
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .with_context(|| format!("invalid literal source {literal}, expected key=value"))?;
            all.push((key.to_owned(), value.as_bytes().to_vec()));
        }
        for source in &self.from_file {
            let (key, file) = match source.split_once('=') {
                Some((key, file)) => (Some(key), Path::new(file)),
                None => (None, Path::new(source.as_str())),
            };
            let base = |path: &Path| {
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default()
            };
            if key.is_none() && file.is_dir() {
                for entry in std::fs::read_dir(file)? {
                    let path = entry?.path();
                    if path.is_file() {
                        all.push((base(&path), std::fs::read(&path)?));
                    }
                }
                continue;
            }
            let bytes =
                std::fs::read(file).with_context(|| format!("error reading {}", file.display()))?;
            all.push((key.map_or_else(|| base(file), str::to_owned), bytes));
        }
        for file in &self.from_env_file {
            let text = std::fs::read_to_string(file).with_context(|| file.clone())?;
            for line in text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                let (key, value) = line
                    .split_once('=')
                    .with_context(|| format!("{file}: {line:?} is not KEY=VALUE"))?;
                all.push((key.to_owned(), value.as_bytes().to_vec()));
            }
        }
        for (index, (key, _)) in all.iter().enumerate() {
            if all[..index].iter().any(|(other, _)| other == key) {
                bail!("cannot add key {key:?}, another key by that name already exists");
            }
        }
        Ok(all)
    }
}

impl What {
    fn object(&self) -> anyhow::Result<Value> {
        let metadata = |name: &str| json!({"name": name});
        Ok(match self {
            Self::Namespace { name } => {
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(name)})
            }
            Self::Serviceaccount { name } => {
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name)})
            }
            Self::Configmap { name, data } => {
                let (mut text, mut binary) = (Map::new(), Map::new());
                for (key, bytes) in data.read()? {
                    match String::from_utf8(bytes) {
                        Ok(value) => text.insert(key, value.into()),
                        Err(error) => binary.insert(key, BASE64.encode(error.as_bytes()).into()),
                    };
                }
                let mut object =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name)});
                for (field, map) in [("data", text), ("binaryData", binary)] {
                    if !map.is_empty() {
                        object[field] = map.into();
                    }
                }
                object
            }
            Self::Secret(secret) => secret.object()?,
            Self::Deployment {
                name,
                image,
                replicas,
                port,
                command,
            } => {
                let mut containers = Vec::new();
                for image in image {
                    let mut container = json!({"name": container_name(image), "image": image});
                    if !command.is_empty() {
                        container["command"] = json!(command);
                    }
                    if let Some(port) = port {
                        container["ports"] = json!([{"containerPort": port}]);
                    }
                    containers.push(container);
                }
                let labels = json!({"app": name});
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": {
                    "replicas": replicas, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
                }})
            }
            Self::Job {
                name,
                image,
                command,
            } => {
                let mut container = json!({"name": name, "image": image});
                if !command.is_empty() {
                    container["command"] = json!(command);
                }
                json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(name), "spec": {
                    "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
                }})
            }
        })
    }
}

impl Secret {
    fn object(&self) -> anyhow::Result<Value> {
        let secret = |name: &str, kind: &str, data: Vec<(String, Vec<u8>)>| {
            let data: Map<String, Value> = data
                .into_iter()
                .map(|(key, bytes)| (key, BASE64.encode(bytes).into()))
                .collect();
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data})
        };
        Ok(match self {
            Self::Generic { name, data, kind } => secret(name, kind, data.read()?),
            Self::DockerRegistry {
                name,
                docker_server,
                docker_username,
                docker_password,
                docker_email,
            } => {
                let auth = BASE64.encode(format!("{docker_username}:{docker_password}"));
                let config = json!({"auths": {docker_server: {
                    "username": docker_username, "password": docker_password, "email": docker_email, "auth": auth,
                }}});
                let data = vec![(
                    ".dockerconfigjson".to_owned(),
                    config.to_string().into_bytes(),
                )];
                secret(name, "kubernetes.io/dockerconfigjson", data)
            }
            Self::Tls { name, cert, key } => {
                let read = |path: &String| std::fs::read(path).with_context(|| path.clone());
                let data = vec![
                    ("tls.crt".to_owned(), read(cert)?),
                    ("tls.key".to_owned(), read(key)?),
                ];
                secret(name, "kubernetes.io/tls", data)
            }
        })
    }
}

/// `registry:5000/team/nginx:1.2` gives `nginx`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split([':', '@']).next().unwrap_or(last).to_owned()
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let documents = match &args.what {
        Some(what) => vec![Document {
            object: what.object()?,
            source: "arguments".to_owned(),
        }],
        None if args.filenames.is_empty() => bail!("must specify one of -f, or what to create"),
        None => manifest::read(&args.filenames, args.recursive)?,
    };
    let client = connection.client()?;
    let format = args
        .output
        .as_deref()
        .map(str::parse::<Format>)
        .transpose()?;
    let resources = Resources::discover(&client).await?;
    let mut failed = false;
    for document in documents {
        let resource = resources.of_kind(&document.api_version(), &document.kind())?;
        match create(&args, connection, &client, resource, &document).await {
            Ok(object) => match &format {
                Some(format) => print_objects(format, &[(resource, object)], true)?,
                None => {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    println!("{} created{}", resource.path(name), suffix(args.dry_run));
                }
            },
            Err(error) => {
                failed = true;
                report(&document, &error);
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn create(
    args: &Args,
    connection: &Connection,
    client: &Client,
    resource: &super::resources::Resource,
    document: &Document,
) -> anyhow::Result<Value> {
    let namespace = namespace_of(connection.namespace.as_deref(), client, resource, document)?;
    if args.dry_run == DryRun::Client {
        return Ok(document.object.clone());
    }
    let options = WriteOptions {
        dry_run: args.dry_run == DryRun::Server,
        field_manager: "skiff-create".to_owned(),
        field_validation: field_validation(&args.validate).to_owned(),
        force: false,
    };
    let target = resource.target(&namespace, "", "");
    let object = client
        .create_object(target, serde_json::to_vec(&document.object)?, options)
        .await?;
    Ok(serde_json::from_slice(&object.json)?)
}
