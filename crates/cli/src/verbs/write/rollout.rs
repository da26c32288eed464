//! `skiff rollout`: status, history, undo, pause, resume, restart.

mod progress;
mod revisions;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Client, PatchKind};
use serde_json::{Value, json};

use crate::describe::{Description, template as describe_template};
use crate::discovery::Resources;
use crate::output::Printer;
use crate::output::tabwriter::align;
use crate::request::failure::Failures;
use crate::request::pods::REVISION;
use crate::request::selection::{ObjectReference, Selection};
use crate::request::write::{DryRun, Report, WriteFlags};
use crate::request::{Connection, duration, watch};
use progress::progress;
use revisions::{CHANGE_CAUSE, revisions};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    write: WriteFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Wait until the newest revision is rolled out
    Status {
        #[command(flatten)]
        selection: Selection,
        /// Wait until the rollout is complete; with --watch=false, report its state
        #[arg(short, long, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        watch: bool,
        /// Give up after this long
        #[arg(long)]
        timeout: Option<String>,
        /// Fail unless this revision is running
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Show revisions
    History {
        #[command(flatten)]
        selection: Selection,
        /// The details of one revision
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Roll back to an earlier revision
    Undo {
        #[command(flatten)]
        selection: Selection,
        /// The revision; 0 for the previous one
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Pause the rollout
    Pause {
        #[command(flatten)]
        selection: Selection,
    },
    /// Resume the rollout
    Resume {
        #[command(flatten)]
        selection: Selection,
    },
    /// Restart every pod
    Restart {
        #[command(flatten)]
        selection: Selection,
    },
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let (Action::Status { selection, .. }
    | Action::History { selection, .. }
    | Action::Undo { selection, .. }
    | Action::Pause { selection }
    | Action::Resume { selection }
    | Action::Restart { selection }) = &args.action;
    if selection.is_empty() {
        bail!("required resource not specified");
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut rollout = Rollout {
        client: &client,
        resources: &resources,
        write: &args.write,
        report: args.write.report()?,
    };
    let mut failures = Failures::default();
    for named in selection.objects(&client, &resources).await? {
        match rollout.run(&args.action, &named).await {
            Ok(()) => {}
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

/// What the actions share.
struct Rollout<'a> {
    client: &'a Client,
    resources: &'a Resources,
    write: &'a WriteFlags,
    report: Report,
}

impl Rollout<'_> {
    async fn run(&mut self, action: &Action, named: &ObjectReference<'_>) -> anyhow::Result<()> {
        match action {
            Action::Status { watch, timeout, revision, .. } => {
                let waited = status(self.client, named, *watch, *revision);
                let Some(text) = timeout else {
                    return waited.await;
                };
                let limit = Duration::from_millis(duration::millis(text)?);
                if limit.is_zero() {
                    return waited.await;
                }
                match tokio::time::timeout(limit, waited).await {
                    Ok(outcome) => outcome,
                    Err(_) => bail!("timed out waiting for the condition"),
                }
            }
            Action::History { revision, .. } => self.history(named, *revision).await,
            Action::Undo { to_revision, .. } => self.undo(named, *to_revision).await,
            Action::Pause { .. } => self.set_paused(named, true).await,
            Action::Resume { .. } => self.set_paused(named, false).await,
            Action::Restart { .. } => self.restart(named).await,
        }
    }

    async fn history(
        &mut self,
        named: &ObjectReference<'_>,
        revision: Option<i64>,
    ) -> anyhow::Result<()> {
        let object = object(self.client, named).await?;
        let revisions = revisions(self.client, self.resources, named, &object).await?;
        if let Some(number) = revision.filter(|number| *number > 0) {
            let one = revisions.iter().find(|revision| revision.number == number);
            let one = one.context("unable to find the specified revision")?;
            if let Some(mut printer) = self.write.print.printer()? {
                return self.show(&mut printer, &one.object);
            }
            println!("{} with revision #{number}", named.path());
            println!("{}", template_text(&one.template));
            return Ok(());
        }
        if let Some(mut printer) = self.write.print.printer()? {
            return revisions
                .iter()
                .try_for_each(|revision| self.show(&mut printer, &revision.object));
        }
        println!("{} ", named.path());
        let mut text = "REVISION\tCHANGE-CAUSE\n".to_owned();
        for revision in revisions {
            text.push_str(&format!("{}\t{}\n", revision.number, revision.cause));
        }
        println!("{}", align(&text, 0, 2));
        Ok(())
    }

    fn show(&self, printer: &mut Printer, object: &Value) -> anyhow::Result<()> {
        let word = |field: &str| object[field].as_str().unwrap_or_default();
        let resource = self.resources.of_kind(word("apiVersion"), word("kind"))?;
        printer.object(resource, object)
    }

    async fn undo(&mut self, named: &ObjectReference<'_>, to: i64) -> anyhow::Result<()> {
        let object = object(self.client, named).await?;
        if object["spec"]["paused"] == true {
            bail!(
                "you cannot rollback a paused deployment; resume it first with 'skiff rollout resume {}' and try again",
                named.path()
            );
        }
        let revisions = revisions(self.client, self.resources, named, &object).await?;
        let chosen = if to > 0 {
            revisions
                .iter()
                .find(|revision| revision.number == to)
                .with_context(|| format!("unable to find specified revision {to} in history"))?
        } else {
            let before = revisions.len().checked_sub(2);
            &revisions[before.context("no last revision to roll back to")?]
        };
        if self.write.dry_run == DryRun::Client {
            println!(
                "{} {}{}",
                named.path(),
                template_text(&chosen.template),
                DryRun::Client.suffix()
            );
            return Ok(());
        }
        let mut template = chosen.template.clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        if template == object["spec"]["template"] {
            println!(
                "{} skipped rollback (current template already matches revision {})",
                named.path(),
                chosen.number
            );
            return Ok(());
        }
        // A replacement, conditional on the version that was read: nothing of the newer template
        // may stay.
        let mut patch = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]}),
            json!({"op": "replace", "path": "/spec/template", "value": template}),
        ];
        if chosen.cause != "<none>" {
            let mut annotations =
                object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            annotations.insert(CHANGE_CAUSE.to_owned(), chosen.cause.as_str().into());
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
        }
        self.send(named, PatchKind::Json, &Value::Array(patch), "rolled back").await
    }

    async fn set_paused(
        &mut self,
        named: &ObjectReference<'_>,
        paused: bool,
    ) -> anyhow::Result<()> {
        if named.resource.kind != "Deployment" {
            let word = if paused { "pausing" } else { "resuming" };
            bail!("{} {word} is not supported", quoted(named));
        }
        if (object(self.client, named).await?["spec"]["paused"] == true) == paused {
            let word = if paused { "already" } else { "not" };
            bail!("{} is {word} paused", quoted(named));
        }
        let value = if paused { json!(true) } else { Value::Null };
        let patch = json!({"spec": {"paused": value}});
        let done = if paused { "paused" } else { "resumed" };
        self.send(named, PatchKind::Merge, &patch, done).await
    }

    async fn restart(&mut self, named: &ObjectReference<'_>) -> anyhow::Result<()> {
        if !matches!(named.resource.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            bail!("{} restarting is not supported", quoted(named));
        }
        if object(self.client, named).await?["spec"]["paused"] == true {
            bail!("can't restart paused deployment (run rollout resume first)");
        }
        let now = clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.send(named, PatchKind::Strategic, &patch, "restarted").await
    }

    /// Sends the patch and reports what was done.
    async fn send(
        &mut self,
        named: &ObjectReference<'_>,
        kind: PatchKind,
        patch: &Value,
        done: &str,
    ) -> anyhow::Result<()> {
        let object = if self.write.dry_run == DryRun::Client {
            object(self.client, named).await?
        } else {
            let options = self.write.options("skiff-rollout");
            let body = serde_json::to_vec(patch)?;
            let after = self.client.patch_object(named.target(""), kind, body, options).await?;
            serde_json::from_slice(&after.json)?
        };
        self.report.done(named.resource, &object, done)
    }
}

/// `deployments.apps "web"`
fn quoted(named: &ObjectReference<'_>) -> String {
    format!("{} {:?}", named.resource.qualified(), named.name)
}

/// A pod template as text. kubectl leaves its tabs unaligned here.
fn template_text(template: &Value) -> String {
    let mut out = Description::default();
    describe_template(template, &mut out);
    out.unaligned()
}

async fn object(client: &Client, named: &ObjectReference<'_>) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&client.get_object(named.target("")).await?.json)?)
}

async fn status(
    client: &Client,
    named: &ObjectReference<'_>,
    wait: bool,
    revision: Option<i64>,
) -> anyhow::Result<()> {
    // Fails with NotFound instead of waiting for the object to appear.
    client.get_object(named.target("")).await?;
    let mut printed = String::new();
    watch::until(client, named, |object| {
        let object = object.context("object has been deleted")?;
        let own = object["metadata"]["annotations"][REVISION].as_str();
        if let (Some(wanted), Some(own)) = (revision.filter(|number| *number > 0), own)
            && own.parse() != Ok(wanted)
        {
            bail!("desired revision ({wanted}) is different from the running revision ({own})");
        }
        let (message, done) = progress(&named.resource.kind, &named.name, object)?;
        if message != printed {
            println!("{message}");
            printed = message;
        }
        Ok((done || !wait).then_some(()))
    })
    .await
}
