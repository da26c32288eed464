//! `skiff set`: changes to pod templates, selectors and subjects.

mod env;
mod template;

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Client, PatchKind};
use serde_json::{Map, Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::selection::{NOTHING_NAMED, ObjectReference, Selection};
use crate::request::subjects::Subjects;
use crate::request::write::{DryRun, WriteFlags};
use template::{Template, images, resources};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    write: WriteFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Set the image of containers: TYPE/NAME CONTAINER=IMAGE..., *=IMAGE for all
    Image {
        #[command(flatten)]
        selection: Targets,
    },
    /// Set or remove variables: TYPE/NAME KEY=VALUE..., KEY- to remove
    Env {
        #[command(flatten)]
        selection: Targets,
        #[command(flatten)]
        env: env::Args,
    },
    /// Set resource requests and limits of containers
    Resources {
        #[command(flatten)]
        selection: Targets,
        /// Only this container; * for all
        #[arg(short, long, default_value = "*")]
        containers: String,
        /// cpu=1,memory=1Gi
        #[arg(long, value_delimiter = ',')]
        limits: Vec<String>,
        /// cpu=1,memory=1Gi
        #[arg(long, value_delimiter = ',')]
        requests: Vec<String>,
    },
    /// Set the ServiceAccount of pods: TYPE/NAME ACCOUNT
    #[command(visible_alias = "sa")]
    Serviceaccount {
        #[command(flatten)]
        selection: Targets,
    },
    /// Set the selector of a Service: TYPE/NAME KEY=VALUE,...
    Selector {
        #[command(flatten)]
        selection: Targets,
    },
    /// Add users, groups and ServiceAccounts to a role binding
    Subject {
        #[command(flatten)]
        selection: Targets,
        #[command(flatten)]
        subjects: Subjects,
    },
}

/// A selection, and `--all`.
#[derive(clap::Args)]
struct Targets {
    #[command(flatten)]
    selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
}

impl Action {
    /// The selection, and the text for the output.
    fn parts(&mut self) -> (&mut Targets, &'static str) {
        match self {
            Self::Image { selection } => (selection, "image updated"),
            Self::Env { selection, .. } => (selection, "env updated"),
            Self::Resources { selection, .. } => (selection, "resource requirements updated"),
            Self::Serviceaccount { selection } => (selection, "serviceaccount updated"),
            Self::Selector { selection } => (selection, "selector updated"),
            Self::Subject { selection, .. } => (selection, "subjects updated"),
        }
    }

    /// Takes the changes out of the arguments.
    fn take_changes(&mut self) -> anyhow::Result<Vec<String>> {
        let takes_last = matches!(self, Self::Serviceaccount { .. });
        let listed = match self {
            Self::Env { env, .. } => env.needs_no_changes(),
            Self::Resources { .. } | Self::Subject { .. } => true,
            _ => false,
        };
        let one = match self {
            Self::Image { .. } => "image",
            Self::Env { .. } => "environment variable",
            _ => "selector",
        };
        let (targets, _) = self.parts();
        if targets.selection.is_empty() {
            bail!(NOTHING_NAMED);
        }
        let words = &mut targets.selection.words;
        if takes_last {
            let account = words.pop().context("serviceaccount is required")?;
            return Ok(vec![account]);
        }
        let from = 1.min(words.len());
        let changes: Vec<String> =
            words.extract_if(from.., |word| word.contains('=') || word.ends_with('-')).collect();
        if changes.is_empty() && !listed {
            bail!("at least one {one} update is required");
        }
        Ok(changes)
    }
}

pub async fn run(mut args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if let Action::Resources { limits, requests, .. } = &args.action
        && limits.is_empty()
        && requests.is_empty()
    {
        bail!(
            "you must specify an update to requests or limits (in the form of --requests/--limits)"
        );
    }
    let changes = args.action.take_changes()?;
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let sources = match &args.action {
        Action::Env { env, .. } => env.variables(&client, &resources, &changes).await?,
        _ => Vec::new(),
    };
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    let (targets, done) = args.action.parts();
    targets.selection.require_names(targets.all)?;
    for named in targets.selection.objects(&client, &resources).await? {
        let changed = async {
            let object = client.get_object(named.target("")).await?;
            let object: Value = serde_json::from_slice(&object.json)?;
            let Some(patch) = patch(&args.action, &named, &object, &changes, &sources)? else {
                return anyhow::Ok(None);
            };
            apply(&args.write, &client, &named, object, &patch).await
        };
        match changed.await {
            Ok(Some(object)) => report.done(named.resource, &object, done)?,
            Ok(None) => {}
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

/// The change to one object; `None` if it was only listed, or there is nothing to change.
fn patch(
    action: &Action,
    named: &ObjectReference<'_>,
    object: &Value,
    changes: &[String],
    variables: &[Value],
) -> anyhow::Result<Option<Value>> {
    if let Action::Selector { .. } = action {
        let pairs: Map<String, Value> = changes
            .iter()
            .flat_map(|change| change.split(','))
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        return Ok(Some(json!({"spec": {"selector": pairs}})));
    }
    if let Action::Subject { subjects, .. } = action {
        if subjects.is_empty() {
            bail!("you must specify at least one value of user, group or serviceaccount");
        }
        let mut all = object["subjects"].as_array().cloned().unwrap_or_default();
        for subject in subjects.list()? {
            if !all.contains(&subject) {
                all.push(subject);
            }
        }
        return Ok(Some(json!({"subjects": all})));
    }
    let template = Template::of(named, object)?;
    let change = match action {
        Action::Image { .. } => images(template.spec, changes)?,
        Action::Env { env, .. } if env.list => {
            env.show(named, template.spec);
            return Ok(None);
        }
        Action::Env { env, .. } => match env.change(named, template.spec, variables) {
            Some(change) => change,
            None => return Ok(None),
        },
        Action::Resources { containers, limits, requests, .. } => {
            resources(template.spec, containers, limits, requests)?
        }
        _ => {
            let account = changes.first().context("serviceaccount is required")?;
            json!({"serviceAccountName": account, "serviceAccount": account})
        }
    };
    Ok(Some(template.patch(change)))
}

/// Sends the patch; returns `None` if it changed nothing.
async fn apply(
    write: &WriteFlags,
    client: &Client,
    named: &ObjectReference<'_>,
    before: Value,
    patch: &Value,
) -> anyhow::Result<Option<Value>> {
    let mut options = write.options("skiff-set");
    // Only the server knows the result of a patch, so that a client-side dry run asks it too.
    options.dry_run = write.dry_run != DryRun::None;
    let body = serde_json::to_vec(patch)?;
    let after = client.patch_object(named.target(""), PatchKind::Strategic, body, options).await?;
    let after: Value = serde_json::from_slice(&after.json)?;
    let same = ["spec", "subjects"].iter().all(|part| before[part] == after[part]);
    Ok((!same).then_some(after))
}
