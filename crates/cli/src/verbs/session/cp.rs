//! `skiff cp`: copies files to and from containers, with the `tar` in the container.

use std::io::{PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Api, Client};
use k8s_openapi::api::core::v1::Pod;
use rpc::api_v1::Channel;

use crate::request::Connection;
use crate::request::pods::default_container;
use crate::request::stream::{Session, exit_code, open, pod_target};

#[derive(clap::Args)]
pub struct Args {
    /// Source and destination: FILE, or [NAMESPACE/]POD:FILE
    #[arg(num_args = 0..=2, value_names = ["FROM", "TO"])]
    files: Vec<String>,
    #[arg(short, long)]
    container: Option<String>,
    /// Do not preserve ownership and permissions
    #[arg(long)]
    no_preserve: bool,
    /// Accepted for compatibility; copies are not retried
    #[arg(long, default_value_t = 0, hide = true)]
    retries: i32,
}

/// `[NAMESPACE/]POD:FILE`
struct Remote {
    namespace: String,
    pod: String,
    container: String,
    file: String,
}

impl Remote {
    /// `None` for a local file.
    async fn parse(text: &str, args: &Args, client: &Client) -> anyhow::Result<Option<Self>> {
        let Some((pod, file)) = text.split_once(':') else {
            return Ok(None);
        };
        if Path::new(text).exists() {
            return Ok(None);
        }
        let (namespace, name) = pod.split_once('/').unwrap_or((client.default_namespace(), pod));
        if name.is_empty() || file.is_empty() {
            bail!("filespec must match the canonical format: [[namespace/]pod:]file/path");
        }
        let found: Pod = Api::namespaced(client, namespace).get(name).await?;
        let container = match &args.container {
            Some(container) => container.clone(),
            None => default_container(&found)?,
        };
        Ok(Some(Self {
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            container,
            file: file.to_owned(),
        }))
    }

    /// Runs a command, passing its standard output to `output`; returns its exit code.
    async fn run(
        &self,
        client: &Client,
        command: &[&str],
        input: Option<PipeReader>,
        mut output: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u8> {
        let mut parameters: Vec<(&str, String)> =
            command.iter().map(|word| ("command", (*word).to_owned())).collect();
        parameters.push(("container", self.container.clone()));
        for name in ["stdout", "stderr"] {
            parameters.push((name, "true".to_owned()));
        }
        if input.is_some() {
            parameters.push(("stdin", "true".to_owned()));
        }
        let target = pod_target(&self.namespace, &self.pod, "exec");
        let session = open(client, target, &parameters).await?;
        let Session { input: stdin, output: mut frames } = session;
        if let Some(reader) = input {
            stdin.forward(reader);
        }
        while let Some(frame) = frames.message().await.map_err(client::Error::from)? {
            match frame.channel() {
                Channel::Stdout => output(&frame.data)?,
                // As in kubectl: tar's messages go to standard output.
                Channel::Stderr => std::io::stdout().lock().write_all(&frame.data)?,
                Channel::Status => return exit_code(&frame),
                _ => {}
            }
        }
        bail!("the server ended the stream without a status")
    }
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let [from, to] = args.files.as_slice() else {
        bail!("source and destination are required");
    };
    let source = Remote::parse(from, &args, &client).await?;
    let target = Remote::parse(to, &args, &client).await?;
    match (source, target) {
        (None, Some(target)) => upload(&args, &client, Path::new(from), &target).await?,
        (Some(source), None) => download(&client, &source, Path::new(to)).await?,
        (Some(_), Some(_)) => bail!("one of src or dest must be a local file specification"),
        (None, None) => bail!("one of src or dest must be a remote file specification"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn upload(args: &Args, client: &Client, from: &Path, to: &Remote) -> anyhow::Result<()> {
    if !from.exists() {
        bail!("{} doesn't exist in local filesystem", from.display());
    }
    let base = from
        .canonicalize()?
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .context("the source has no name")?;
    let mut file = to.file.trim_end_matches('/').to_owned();
    let into_directory = to.run(client, &["test", "-d", &to.file], None, |_| Ok(())).await? == 0;
    if into_directory || to.file.ends_with('/') {
        file = format!("{file}/{base}");
    }
    let (folder, name) = file.rsplit_once('/').unwrap_or((".", &file));
    let folder = if folder.is_empty() { "/" } else { folder };
    let (reader, writer) = std::io::pipe()?;
    let (from, name) = (from.to_owned(), name.to_owned());
    let packing = tokio::task::spawn_blocking(move || pack(writer, &from, &name));
    let mut command = vec!["tar", "-xmf", "-", "-C", folder];
    if args.no_preserve {
        command =
            vec!["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", folder];
    }
    let code = to.run(client, &command, Some(reader), |_| Ok(())).await?;
    if code != 0 {
        bail!("command terminated with exit code {code}");
    }
    packing.await?
}

fn pack(writer: impl Write, from: &Path, name: &str) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(writer);
    archive.follow_symlinks(false);
    if from.is_dir() {
        archive.append_dir_all(name, from)?;
    } else {
        archive.append_path_with_name(from, name)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

async fn download(client: &Client, from: &Remote, to: &Path) -> anyhow::Result<()> {
    let file = from.file.trim_end_matches('/').to_owned();
    let base = file.rsplit('/').next().unwrap_or(&file).to_owned();
    let to = if to.is_dir() { to.join(&base) } else { to.to_owned() };
    let (reader, mut writer) = std::io::pipe()?;
    let prefix = PathBuf::from(file.trim_start_matches('/'));
    let unpacking = tokio::task::spawn_blocking(move || unpack(reader, &prefix, &to));
    let code = from
        .run(client, &["tar", "cf", "-", &file], None, |data| Ok(writer.write_all(data)?))
        .await?;
    drop(writer);
    unpacking.await??;
    if code != 0 {
        bail!("command terminated with exit code {code}");
    }
    Ok(())
}

/// Unpacks the entries below `prefix` into `to`; no entry is written elsewhere.
fn unpack(reader: impl Read, prefix: &Path, to: &Path) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let below = path.strip_prefix(prefix).unwrap_or(&path).to_owned();
        if below.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            eprintln!("warning: file {:?} is outside target destination, skipping", path.display());
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            eprintln!("warning: skipping symlink: {:?}", path.display());
            continue;
        }
        let place = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        entry.unpack(&place).with_context(|| format!("cannot write {}", place.display()))?;
    }
    Ok(())
}
