//! `skiff debug`: adds an ephemeral container to a running pod.

use std::process::ExitCode;

use anyhow::bail;
use client::{Client, PatchKind};
use rand::RngExt;
use serde_json::{Value, json};

use crate::discovery::Resources;
use crate::request::failure::usage;
use crate::request::generate::variables;
use crate::request::pods::{container_started, object_reference};
use crate::request::selection::ObjectReference;
use crate::request::session::{StreamOptions, attach_or_follow};
use crate::request::{Connection, log, watch};

/// Characters of generated names, as in pods': none that make words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

#[derive(clap::Args)]
pub struct Args {
    /// POD, TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    target: Option<String>,
    #[arg(long)]
    image: Option<String>,
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// Name of the new container
    #[arg(short, long)]
    container: Option<String>,
    /// Container whose processes the new one can see
    #[arg(long = "target", value_name = "CONTAINER")]
    target_container: Option<String>,
    /// KEY=VALUE, repeatable
    #[arg(long)]
    env: Vec<String>,
    /// The container's security profile
    #[arg(long, value_enum, default_value = "general")]
    profile: Profile,
    #[command(flatten)]
    stream: StreamOptions,
    /// Attach to the container
    #[arg(long)]
    attach: bool,
    /// The command and its arguments, after --
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Profile {
    Legacy,
    General,
    Baseline,
    Restricted,
    Netadmin,
    Sysadmin,
}

impl Profile {
    fn security_context(self) -> Option<Value> {
        match self {
            Self::Legacy | Self::Baseline => None,
            Self::General => Some(json!({"capabilities": {"add": ["SYS_PTRACE"]}})),
            Self::Restricted => Some(json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            })),
            Self::Netadmin => Some(json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}})),
            Self::Sysadmin => Some(json!({"privileged": true})),
        }
    }
}

impl Args {
    fn container(&self, name: &str, image: &str) -> anyhow::Result<Value> {
        let mut container = json!({
            "name": name,
            "image": image,
            "terminationMessagePolicy": "File",
        });
        for (field, value) in [
            ("imagePullPolicy", &self.image_pull_policy),
            ("targetContainerName", &self.target_container),
        ] {
            if let Some(value) = value {
                container[field] = value.as_str().into();
            }
        }
        if !self.arguments.is_empty() {
            container["command"] = json!(self.arguments);
        }
        if !self.env.is_empty() {
            container["env"] = variables(&self.env)?;
        }
        if let Some(context) = self.profile.security_context() {
            container["securityContext"] = context;
        }
        for (field, flag) in [("stdin", self.stream.stdin), ("tty", self.stream.tty)] {
            if flag {
                container[field] = true.into();
            }
        }
        Ok(container)
    }
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let Some(image) = &args.image else {
        bail!("you must specify --image when not using --copy-to.");
    };
    let Some(target) = &args.target else {
        return Err(usage("debug", "NAME is required for debug"));
    };
    if args.stream.tty && !args.stream.stdin {
        bail!("-i/--stdin is required for containers with -t/--tty=true");
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let named = object_reference(&client, &resources, target)?;
    if named.resource.kind != "Pod" {
        let (group, version) = (&named.resource.group, &named.resource.version);
        let kind = &named.resource.kind;
        bail!("\"{group}/{version}, Kind={kind}\" not supported by debug");
    }
    let pod: Value = serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
    let name = match &args.container {
        Some(name) => name.clone(),
        None => generated_name(),
    };
    if !args.stream.quiet {
        if let Some(target) = &args.target_container {
            eprintln!(
                "Targeting container {target:?}. If you don't see processes from this container it may be because the container runtime doesn't support this feature."
            );
        }
        if args.container.is_none() {
            eprintln!("Defaulting debug container name to {name}.");
        }
    }
    // A merge by name would not change an existing container.
    let taken = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .any(|container| container["name"] == name.as_str());
    if taken {
        bail!("container {name:?} already exists in pod {:?}", named.name);
    }
    let patch = json!({"spec": {"ephemeralContainers": [args.container(&name, image)?]}});
    let body = serde_json::to_vec(&patch)?;
    let options = rpc::api_v1::WriteOptions::default();
    client
        .patch_object(named.target("ephemeralcontainers"), PatchKind::Strategic, body, options)
        .await?;
    if args.attach || args.stream.stdin || args.stream.tty {
        attach(&args, &client, &named, name).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn attach(
    args: &Args,
    client: &Client,
    named: &ObjectReference<'_>,
    container: String,
) -> anyhow::Result<()> {
    let ended = watch::until(client, named, |pod| {
        container_started(pod, "ephemeralContainerStatuses", &container)
    })
    .await?;
    if ended {
        return log::follow(client, &named.name, &container).await;
    }
    attach_or_follow(client, &named.name, container, args.stream).await
}

/// `debugger-x7k2p`
fn generated_name() -> String {
    let mut random = rand::rng();
    let suffix: String =
        (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    format!("debugger-{suffix}")
}
