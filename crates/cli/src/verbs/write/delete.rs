//! `skiff delete`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Client, DeleteOptions};
use rpc::api_v1::{DeleteRequest, Object};

use crate::discovery::Resources;
use crate::request::failure::Failures;
use crate::request::selection::{NOTHING_NAMED, ObjectReference, Selection};
use crate::request::watch::until_deleted;
use crate::request::write::DryRun;
use crate::request::{Connection, duration};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
    /// Give up waiting after this long; 0 for never
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Delete pods immediately, without a grace period
    #[arg(long)]
    force: bool,
    /// Same as --grace-period=1
    #[arg(long)]
    now: bool,
    /// Seconds that a pod gets to terminate; 0 only with --force; -1 for the pod's own grace period
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// background, foreground or orphan: what happens to dependents
    #[arg(long, default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    cascade: String,
    /// Do not fail when an object does not exist
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ignore_not_found: Option<bool>,
    /// name: print only the names of deleted objects
    #[arg(short, long)]
    output: Option<String>,
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Ask for confirmation
    #[arg(short, long)]
    interactive: bool,
}

impl Args {
    /// # Errors
    /// When flags contradict each other.
    fn options(&self) -> anyhow::Result<DeleteOptions> {
        let mut grace = self.grace_period;
        if self.now {
            if grace != -1 {
                bail!("--now and --grace-period cannot be specified together");
            }
            grace = 1;
        }
        if grace == 0 && !self.force {
            // Immediate deletion needs --force; without it the grace period is at least one second.
            grace = 1;
        }
        if self.force && grace < 0 {
            grace = 0;
        }
        if self.force && grace > 0 {
            bail!("--force and --grace-period greater than 0 cannot be specified together");
        }
        let propagation_policy = match self.cascade.as_str() {
            "background" | "true" => "Background",
            "foreground" => "Foreground",
            "orphan" | "false" => "Orphan",
            other => bail!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            ),
        };
        Ok(DeleteOptions {
            grace_period_seconds: (grace >= 0).then_some(grace),
            propagation_policy: Some(propagation_policy),
            ..Default::default()
        })
    }
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if args.output.as_deref().is_some_and(|output| output != "name") {
        bail!(
            "unexpected -o output mode: {}. We only support '-o name'",
            args.output.unwrap_or_default()
        );
    }
    let client = connection.client()?;
    let selection = &args.selection;
    if selection.is_empty() {
        bail!(NOTHING_NAMED);
    }
    let resources = Resources::discover(&client).await?;
    let chosen = args.all || !selection.selector.is_empty() || !selection.field_selector.is_empty();
    selection.require_names(args.all)?;
    let options = args.options()?;
    if args.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let names = selection.objects(&client, &resources).await?;
    if names.is_empty() && chosen {
        println!("No resources found");
        return Ok(ExitCode::SUCCESS);
    }
    if connection.namespace.is_some() && names.iter().any(|named| !named.resource.namespaced) {
        eprintln!(
            "Warning: deleting cluster-scoped resources, not scoped to the provided namespace"
        );
    }
    if args.interactive && !confirmed(&names)? {
        println!("deletion is cancelled");
        return Ok(ExitCode::SUCCESS);
    }
    let ignore = args.ignore_not_found.unwrap_or(chosen);
    let mut failures = Failures::default();
    let mut waiting: Vec<(ObjectReference<'_>, String)> = Vec::new();
    for named in names {
        match delete(&args, &client, &named, &options).await {
            Ok(object) => {
                report(&args, &named);
                if !object.uid.is_empty() {
                    waiting.push((named, object.uid));
                }
            }
            Err(error) if error.is_not_found() && ignore => {}
            Err(error) if error.api().is_some() => {
                let error = anyhow::Error::new(error);
                failures.push(match &named.source {
                    Some(file) => error.context(format!("error when deleting {file:?}")),
                    None => error,
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    if args.wait && !args.force && args.dry_run == DryRun::None {
        let limit = Duration::from_millis(duration::millis(&args.timeout)?);
        let all = futures::future::try_join_all(
            waiting.iter().map(|(named, uid)| until_deleted(&client, named, uid)),
        );
        if limit.is_zero() {
            all.await?;
        } else {
            tokio::time::timeout(limit, all)
                .await
                .context("timed out waiting for the condition")??;
        }
    }
    Ok(failures.finish())
}

async fn delete(
    args: &Args,
    client: &Client,
    named: &ObjectReference<'_>,
    options: &DeleteOptions,
) -> Result<Object, client::Error> {
    if args.dry_run == DryRun::Client {
        return client.get_object(named.target("")).await;
    }
    let request = DeleteRequest {
        target: Some(named.target("")),
        options_json: options.to_json().into(),
        dry_run: args.dry_run == DryRun::Server,
    };
    Ok(client.resources().delete(request).await?.into_inner())
}

/// `pod "web" deleted`
fn report(args: &Args, named: &ObjectReference<'_>) {
    let path = named.path();
    if args.output.is_some() {
        println!("{path}");
        return;
    }
    let kind = path.split('/').next().unwrap_or_default();
    let forced = if args.force { " force" } else { "" };
    println!("{kind} {:?}{forced} deleted{}", named.name, args.dry_run.suffix());
}

fn confirmed(names: &[ObjectReference<'_>]) -> anyhow::Result<bool> {
    println!("You are about to delete the following {} resource(s):", names.len());
    for named in names {
        println!("{}", named.path());
    }
    println!("Do you want to continue? (y/N): ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
