//! `skiff auth`: the user's rights and identity.

use std::process::ExitCode;

use anyhow::bail;
use client::Client;
use rpc::api_v1::Target;
use serde_json::{Value, json};

use crate::describe::policy_rows;
use crate::discovery::Resources;
use crate::output::PrintFlags;
use crate::output::table::TextTable;
use crate::request::Connection;

/// kubectl's message for `can-i` with too few or too many arguments.
const TWO_ARGUMENTS: &str =
    "you must specify two arguments: verb resource or verb resource/resourceName.
See 'skiff auth can-i -h' for help and examples.";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Whether an action is allowed: VERB TYPE[/NAME], VERB /path
    CanI(CanI),
    /// Show the user that the server authenticates
    Whoami {
        #[command(flatten)]
        print: PrintFlags,
    },
}

#[derive(clap::Args)]
struct CanI {
    words: Vec<String>,
    /// List everything that is allowed in the namespace
    #[arg(long)]
    list: bool,
    /// Print nothing; the exit code has the answer
    #[arg(short, long)]
    quiet: bool,
    #[arg(long, default_value = "")]
    subresource: String,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(long)]
    no_headers: bool,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    match args.action {
        Action::CanI(args) if args.list => list(&args, &client).await,
        Action::CanI(args) => can_i(&args, &client).await,
        Action::Whoami { print } => whoami(&print, &client).await,
    }
}

/// Creates a review, which the server answers in its status.
async fn review(client: &Client, group: &str, kind: &str, spec: Value) -> anyhow::Result<Value> {
    let target = Target {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: format!("{}s", kind.to_lowercase()),
        ..Default::default()
    };
    let object = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {}, "spec": spec,
    });
    let body = serde_json::to_vec(&object)?;
    let answer = client.create_object(target, body, Default::default()).await?;
    Ok(serde_json::from_slice(&answer.json)?)
}

async fn can_i(args: &CanI, client: &Client) -> anyhow::Result<ExitCode> {
    let [verb, what, names @ ..] = args.words.as_slice() else {
        bail!(TWO_ARGUMENTS);
    };
    let spec = if what.starts_with('/') {
        json!({"nonResourceAttributes": {"verb": verb, "path": what}})
    } else {
        let attributes = attributes(args, client, (verb, what), names).await?;
        json!({"resourceAttributes": attributes})
    };
    let answer = review(client, "authorization.k8s.io", "SelfSubjectAccessReview", spec).await?;
    let status = &answer["status"];
    let allowed = status["allowed"] == true;
    if !args.quiet {
        let mut text = if allowed { "yes" } else { "no" }.to_owned();
        for field in ["reason", "evaluationError"] {
            if let Some(why) = status[field].as_str().filter(|why| !why.is_empty() && !allowed) {
                text.push_str(&format!(" - {why}"));
            }
        }
        println!("{text}");
    }
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn attributes(
    args: &CanI,
    client: &Client,
    (verb, what): (&str, &str),
    names: &[String],
) -> anyhow::Result<Value> {
    if names.len() > 1 {
        bail!(TWO_ARGUMENTS);
    }
    let (kind, rest) = what.split_once('/').unwrap_or((what, ""));
    let name = names.first().map_or(rest, String::as_str);
    let (mut group, mut resource, mut namespaced) = (String::new(), kind.to_owned(), true);
    if kind == "*" {
        group = "*".to_owned();
    } else {
        match Resources::discover(client).await?.find(kind) {
            Ok(found) => {
                group.clone_from(&found.group);
                resource.clone_from(&found.plural);
                namespaced = found.namespaced;
            }
            Err(_) => eprintln!("Warning: the server doesn't have a resource type '{kind}'\n"),
        }
    }
    let mut namespace = client.default_namespace();
    if !namespaced {
        eprintln!(
            "Warning: resource '{resource}' is not namespace scoped{}\n",
            if group.is_empty() { String::new() } else { format!(" in group '{group}'") }
        );
    }
    if args.all_namespaces || !namespaced {
        namespace = "";
    }
    let mut attributes = json!({"verb": verb, "resource": resource});
    for (field, value) in [
        ("group", group.as_str()),
        ("namespace", namespace),
        ("name", name),
        ("subresource", &args.subresource),
    ] {
        if !value.is_empty() {
            attributes[field] = value.into();
        }
    }
    Ok(attributes)
}

async fn list(args: &CanI, client: &Client) -> anyhow::Result<ExitCode> {
    if !args.words.is_empty() {
        bail!("list option must be specified with no arguments");
    }
    let spec = json!({"namespace": client.default_namespace()});
    let answer = review(client, "authorization.k8s.io", "SelfSubjectRulesReview", spec).await?;
    let status = &answer["status"];
    let lists = [&status["resourceRules"], &status["nonResourceRules"]];
    let all = lists.into_iter().flat_map(|list| list.as_array().into_iter().flatten());
    let rules: Value = all.cloned().collect();
    let rows = policy_rows(&rules);
    let headers = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"];
    let text = TextTable {
        headers: headers.map(str::to_owned).into(),
        rows: rows.into_iter().map(Vec::from).collect(),
    };
    print!("{}", text.render(!args.no_headers, &mut Vec::new()));
    Ok(ExitCode::SUCCESS)
}

async fn whoami(print: &PrintFlags, client: &Client) -> anyhow::Result<ExitCode> {
    let answer = review(client, "authentication.k8s.io", "SelfSubjectReview", json!({})).await?;
    if let Some(mut printer) = print.printer()? {
        printer.value(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let user = &answer["status"]["userInfo"];
    let list = |value: &Value| {
        let words: Vec<&str> =
            value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("[{}]", words.join(" "))
    };
    let mut text =
        TextTable { headers: ["ATTRIBUTE", "VALUE"].map(str::to_owned).into(), rows: Vec::new() };
    for (title, field) in [("Username", "username"), ("UID", "uid")] {
        if let Some(value) = user[field].as_str().filter(|value| !value.is_empty()) {
            text.rows.push(vec![title.to_owned(), value.to_owned()]);
        }
    }
    if user["groups"].is_array() {
        text.rows.push(vec!["Groups".to_owned(), list(&user["groups"])]);
    }
    for (key, value) in user["extra"].as_object().into_iter().flatten() {
        text.rows.push(vec![format!("Extra: {key}"), list(value)]);
    }
    print!("{}", text.render(true, &mut Vec::new()));
    Ok(ExitCode::SUCCESS)
}
