//! `skiff run`: creates a pod from arguments, and attaches the terminal on request.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use serde_json::{Map, Value, json};

use crate::discovery::Resources;
use crate::request::failure::usage;
use crate::request::generate::{CreateFlags, create_generated, metadata, variables};
use crate::request::pods::{container_started, container_state};
use crate::request::selection::ObjectReference;
use crate::request::session::{StreamOptions, attach_or_follow};
use crate::request::write::DryRun;
use crate::request::{Connection, log, watch};

/// The status field with the states of regular containers.
const STATUSES: &str = "containerStatuses";

#[derive(clap::Args)]
pub struct Args {
    name: String,
    #[arg(long)]
    image: String,
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// KEY=VALUE, repeatable
    #[arg(long)]
    env: Vec<String>,
    /// The port that the container serves
    #[arg(long)]
    port: Option<u16>,
    /// KEY=VALUE,...; default run=NAME
    #[arg(short, long, value_delimiter = ',')]
    labels: Vec<String>,
    /// KEY=VALUE, repeatable
    #[arg(long)]
    annotations: Vec<String>,
    /// Always, OnFailure or Never
    #[arg(long, default_value = "Always")]
    restart: String,
    /// What follows -- is the command rather than its arguments
    #[arg(long)]
    command: bool,
    /// Also create a Service for --port
    #[arg(long)]
    expose: bool,
    /// JSON that is merged into the pod
    #[arg(long)]
    overrides: Option<String>,
    #[arg(long)]
    privileged: bool,
    #[command(flatten)]
    stream: StreamOptions,
    /// Attach to the container
    #[arg(long)]
    attach: bool,
    /// Delete the pod when it has ended
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    create: CreateFlags,
    /// Arguments of the container, after --
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Args {
    fn attaches(&self) -> bool {
        self.attach || self.stream.stdin || self.stream.tty
    }

    /// # Errors
    /// When flags contradict each other.
    fn check(&self) -> anyhow::Result<()> {
        let image = regex::Regex::new("^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")?;
        if !image.is_match(&self.image) {
            bail!("Invalid image name {:?}: invalid reference format", self.image);
        }
        if !matches!(self.restart.as_str(), "Always" | "OnFailure" | "Never") {
            bail!("invalid restart policy: {}", self.restart);
        }
        if self.rm && !self.attaches() {
            return Err(usage("run", "--rm should only be used for attached containers"));
        }
        if self.stream.tty && !self.stream.stdin {
            return Err(usage("run", "-i/--stdin is required for containers with -t/--tty=true"));
        }
        if self.attaches() && self.create.write.dry_run != DryRun::None {
            return Err(usage(
                "run",
                "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
            ));
        }
        if self.expose && self.port.is_none() {
            return Err(usage("run", "--port must be set when exposing a service"));
        }
        Ok(())
    }

    fn labels(&self) -> anyhow::Result<Map<String, Value>> {
        if self.labels.is_empty() {
            return Ok(Map::from_iter([("run".to_owned(), self.name.as_str().into())]));
        }
        pairs(&self.labels)
    }

    fn pod(&self) -> anyhow::Result<Value> {
        let mut container = json!({"name": self.name, "image": self.image, "resources": {}});
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = policy.as_str().into();
        }
        if !self.arguments.is_empty() {
            let field = if self.command { "command" } else { "args" };
            container[field] = json!(self.arguments);
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !self.env.is_empty() {
            container["env"] = variables(&self.env)?;
        }
        for (field, flag) in [
            ("stdin", self.stream.stdin),
            ("stdinOnce", self.stream.stdin && self.restart == "Never"),
            ("tty", self.stream.tty),
        ] {
            if flag {
                container[field] = true.into();
            }
        }
        if self.privileged {
            container["securityContext"] = json!({"privileged": true});
        }
        let mut metadata = metadata(&self.name);
        metadata["labels"] = self.labels()?.into();
        if !self.annotations.is_empty() {
            metadata["annotations"] = pairs(&self.annotations)?.into();
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {},
            "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": self.restart},
        });
        if let Some(text) = &self.overrides {
            let overrides: Value =
                serde_json::from_str(text).with_context(|| format!("invalid JSON: {text}"))?;
            json_patch::merge(&mut pod, &overrides);
        }
        Ok(pod)
    }

    fn service(&self) -> anyhow::Result<Value> {
        let port = json!({"port": self.port, "protocol": "TCP", "targetPort": self.port});
        Ok(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(&self.name),
            "spec": {"ports": [port], "selector": self.labels()?}, "status": {"loadBalancer": {}},
        }))
    }
}

fn pairs(texts: &[String]) -> anyhow::Result<Map<String, Value>> {
    texts
        .iter()
        .map(|text| {
            let (key, value) =
                text.split_once('=').with_context(|| format!("unexpected label spec: {text}"))?;
            Ok((key.to_owned(), value.into()))
        })
        .collect()
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    args.check()?;
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let pod = args.pod()?;
    let mut objects = Vec::new();
    if args.expose {
        objects.push(args.service()?);
    }
    if args.attaches() {
        let kind = resources.find("pods")?;
        let namespace = client.default_namespace();
        args.create.create(&client, kind, namespace, &pod).await?;
    } else {
        objects.push(pod);
    }
    let mut report = args.create.write.report()?;
    for object in objects {
        create_generated(
            (&args.create, &mut report),
            connection,
            &client,
            &resources,
            object,
            "created",
        )
        .await?;
    }
    if !args.attaches() {
        return Ok(ExitCode::SUCCESS);
    }
    let named = ObjectReference {
        resource: resources.find("pods")?,
        namespace: client.default_namespace().to_owned(),
        name: args.name.clone(),
        source: None,
    };
    let result = attached(&args, &client, &named).await;
    if args.rm {
        client.delete_object(named.target(""), &Default::default()).await?;
        if !args.stream.quiet {
            println!("pod {:?} deleted", args.name);
        }
    }
    result
}

/// Follows the pod until it ends; returns its exit code if it is not restarted.
async fn attached(
    args: &Args,
    client: &Client,
    named: &ObjectReference<'_>,
) -> anyhow::Result<ExitCode> {
    let container = args.name.clone();
    let ended =
        watch::until(client, named, |pod| container_started(pod, STATUSES, &container)).await?;
    // The log has everything from the start; attaching is only needed for input.
    if args.stream.stdin && !ended {
        attach_or_follow(client, &args.name, container.clone(), args.stream).await?;
    } else {
        log::follow(client, &args.name, &container).await?;
    }
    if args.restart != "Never" {
        return Ok(ExitCode::SUCCESS);
    }
    let (code, reason) = watch::until(client, named, |pod| outcome(pod, &container)).await?;
    if code != 0 {
        eprintln!("pod {}/{} terminated ({reason})", named.namespace, args.name);
    }
    Ok(ExitCode::from(code))
}

fn outcome(pod: Option<&Value>, container: &str) -> anyhow::Result<Option<(u8, String)>> {
    let ended = &container_state(pod, STATUSES, container)?["terminated"];
    let code = ended["exitCode"].as_i64();
    Ok(code.map(|code| {
        let reason = ended["reason"].as_str().unwrap_or_default();
        (u8::try_from(code).unwrap_or(1), reason.to_owned())
    }))
}
