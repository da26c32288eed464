//! `skiff config`: shows and changes the kubeconfig.
//!
//! The file is read and written as an untyped tree, so that unknown fields are kept.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::output::table::TextTable;
use crate::output::{PrintFlags, yaml};
use crate::request::{Connection, manifest};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Print the current context
    CurrentContext,
    /// Set the current context
    #[command(alias = "use")]
    UseContext {
        name: String,
    },
    /// List contexts
    GetContexts {
        name: Option<String>,
        /// name: print names only
        #[arg(short, long)]
        output: Option<String>,
        #[arg(long)]
        no_headers: bool,
    },
    /// List clusters
    GetClusters,
    /// List users
    GetUsers,
    /// Show the kubeconfig, without secrets
    View {
        #[command(flatten)]
        print: PrintFlags,
        /// Only what the current context needs
        #[arg(long)]
        minify: bool,
        /// Show secrets
        #[arg(long)]
        raw: bool,
        /// Replace file names by the files' contents
        #[arg(long)]
        flatten: bool,
    },
    /// Create or change a context
    SetContext {
        name: Option<String>,
        /// The current context
        #[arg(long)]
        current: bool,
        #[arg(long)]
        cluster: Option<String>,
        #[arg(long)]
        user: Option<String>,
    },
    /// Create or change a cluster
    SetCluster {
        name: String,
        #[arg(long)]
        certificate_authority: Option<PathBuf>,
        /// Embed certificates in the kubeconfig
        #[arg(long)]
        embed_certs: bool,
        #[arg(long)]
        tls_server_name: Option<String>,
    },
    /// Create or change a user
    SetCredentials {
        name: String,
        #[arg(long)]
        client_certificate: Option<PathBuf>,
        #[arg(long)]
        client_key: Option<PathBuf>,
        /// Embed certificates in the kubeconfig
        #[arg(long)]
        embed_certs: bool,
    },
    /// Rename a context
    RenameContext {
        from: String,
        to: String,
    },
    DeleteContext {
        name: String,
    },
    DeleteCluster {
        name: String,
    },
    DeleteUser {
        name: String,
    },
    /// Set a property: contexts.dev.namespace VALUE
    Set {
        property: String,
        value: String,
    },
    /// Remove a property
    Unset {
        property: String,
    },
}

/// The lists of a kubeconfig, and the key of an entry's contents.
const LISTS: [(&str, &str); 3] =
    [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];
/// Fields that are not shown, and what is shown instead.
const SECRETS: [(&str, &str); 6] = [
    ("certificate-authority-data", "DATA+OMITTED"),
    ("client-certificate-data", "DATA+OMITTED"),
    ("client-key-data", "DATA+OMITTED"),
    ("token", "REDACTED"),
    ("password", "REDACTED"),
    ("auth-provider", "REDACTED"),
];

pub fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::GetContexts { .. }
        | Action::GetClusters
        | Action::GetUsers
        | Action::CurrentContext
        | Action::View { .. } => show(args.action, connection),
        change => change_file(change, connection),
    }
}

/// The kubeconfig files, in order of precedence.
fn paths(connection: &Connection) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(path) = &connection.kubeconfig {
        return Ok(vec![path.clone()]);
    }
    Ok(client::kubeconfig::paths()?)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let values = manifest::values(&text)
                .with_context(|| format!("error loading config file {:?}", path.display()))?;
            Ok(values.into_iter().next().unwrap_or_default())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// All files merged: the first that names something wins.
fn merged(connection: &Connection) -> anyhow::Result<Value> {
    let mut all =
        json!({"apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": ""});
    for (list, _) in LISTS {
        all[list] = json!([]);
    }
    for path in paths(connection)? {
        let one = read(&path)?;
        if all["current-context"] == "" && one["current-context"].is_string() {
            all["current-context"] = one["current-context"].clone();
        }
        for (list, _) in LISTS {
            for entry in one[list].as_array().into_iter().flatten() {
                if find(&all, list, entry["name"].as_str().unwrap_or_default()).is_none() {
                    push(&mut all, list, entry.clone());
                }
            }
        }
    }
    for (list, _) in LISTS {
        if all[list].as_array().is_some_and(Vec::is_empty) {
            all[list] = Value::Null;
        }
        if let Some(entries) = all[list].as_array_mut() {
            entries.sort_by(|left, right| left["name"].as_str().cmp(&right["name"].as_str()));
        }
    }
    if let Some(context) = &connection.context {
        all["current-context"] = context.as_str().into();
    }
    Ok(all)
}

fn find<'a>(config: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    config[list].as_array()?.iter().find(|entry| entry["name"] == name)
}

fn push(config: &mut Value, list: &str, entry: Value) {
    if !config[list].is_array() {
        config[list] = json!([]);
    }
    if let Some(entries) = config[list].as_array_mut() {
        entries.push(entry);
    }
}

fn show(action: Action, connection: &Connection) -> anyhow::Result<ExitCode> {
    let config = merged(connection)?;
    let names = |list: &str| -> Vec<String> {
        config[list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
            .collect()
    };
    match action {
        Action::CurrentContext => match config["current-context"].as_str() {
            Some(name) if !name.is_empty() => println!("{name}"),
            _ => bail!("current-context is not set"),
        },
        Action::GetClusters | Action::GetUsers => {
            let list = if matches!(action, Action::GetUsers) { "users" } else { "clusters" };
            println!("NAME");
            names(list).iter().for_each(|name| println!("{name}"));
        }
        Action::GetContexts { name, output, no_headers } => {
            let wanted = name.map_or_else(|| names("contexts"), |name| vec![name]);
            return contexts(&config, &wanted, output.as_deref(), !no_headers);
        }
        Action::View { print, minify, raw, flatten } => {
            view(config, &print, (minify, raw, flatten))?
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn contexts(
    config: &Value,
    wanted: &[String],
    output: Option<&str>,
    headers: bool,
) -> anyhow::Result<ExitCode> {
    let columns = ["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"];
    let mut text = TextTable { headers: columns.map(str::to_owned).into(), rows: Vec::new() };
    let mut missing = Vec::new();
    for name in wanted {
        let Some(entry) = find(config, "contexts", name) else {
            missing.push(name);
            continue;
        };
        let current = if config["current-context"] == name.as_str() { "*" } else { "" };
        let word = |field: &str| entry["context"][field].as_str().unwrap_or_default().to_owned();
        text.rows.push(vec![
            current.to_owned(),
            name.clone(),
            word("cluster"),
            word("user"),
            word("namespace"),
        ]);
    }
    match output {
        Some("name") => text.rows.iter().for_each(|row| println!("{}", row[1])),
        Some(other) => bail!("output must be one of '' or 'name': {other}"),
        None => print!("{}", text.render(headers, &mut Vec::new())),
    }
    for name in &missing {
        eprintln!("error: context {name} not found");
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn view(
    mut config: Value,
    print: &PrintFlags,
    (minify, raw, flatten): (bool, bool, bool),
) -> anyhow::Result<()> {
    if minify {
        let name = config["current-context"].as_str().unwrap_or_default().to_owned();
        let context = find(&config, "contexts", &name)
            .with_context(|| format!("cannot locate context {name}"))?
            .clone();
        for (list, name) in [
            ("contexts", &context["name"]),
            ("clusters", &context["context"]["cluster"]),
            ("users", &context["context"]["user"]),
        ] {
            if let Some(entries) = config[list].as_array_mut() {
                entries.retain(|entry| entry["name"] == *name);
            }
        }
    }
    for (list, inner) in LISTS {
        for entry in config[list].as_array_mut().into_iter().flatten() {
            let Some(contents) = entry[inner].as_object_mut() else {
                continue;
            };
            if flatten {
                embed(contents)?;
            }
            for (field, hidden) in SECRETS {
                if !raw && contents.contains_key(field) {
                    contents.insert(field.to_owned(), hidden.into());
                }
            }
        }
    }
    match print.printer()? {
        Some(mut printer) => printer.value(&config),
        None => {
            print!("{}", yaml(&config));
            Ok(())
        }
    }
}

/// Replaces file names by the files' contents.
fn embed(contents: &mut Map<String, Value>) -> anyhow::Result<()> {
    use base64::Engine;
    for field in ["certificate-authority", "client-certificate", "client-key"] {
        let Some(path) = contents.remove(field) else {
            continue;
        };
        let path = path.as_str().unwrap_or_default();
        let bytes = std::fs::read(path).with_context(|| path.to_owned())?;
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        contents.insert(format!("{field}-data"), text.into());
    }
    Ok(())
}

fn change_file(action: Action, connection: &Connection) -> anyhow::Result<ExitCode> {
    let all = paths(connection)?;
    let first = all.first().context("$KUBECONFIG names no file")?;
    // The first file that exists, else the first of the list.
    let path = all.iter().find(|path| path.exists()).unwrap_or(first);
    let mut config = read(path)?;
    if config.is_null() {
        config = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
    }
    let message = change(action, connection, &mut config, path)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    write_privately(path, &yaml(&config))?;
    println!("{message}");
    Ok(ExitCode::SUCCESS)
}

/// Replaces the file atomically, readable by its owner only.
fn write_privately(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes())?;
    file.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}

/// Changes the tree; returns the message to print.
fn change(
    action: Action,
    connection: &Connection,
    config: &mut Value,
    path: &Path,
) -> anyhow::Result<String> {
    Ok(match action {
        Action::UseContext { name } => {
            if find(&merged(connection)?, "contexts", &name).is_none() {
                bail!("no context exists with the name: {name:?}");
            }
            config["current-context"] = name.as_str().into();
            format!("Switched to context {name:?}.")
        }
        Action::SetContext { name, current, cluster, user } => {
            let name = match (name, current) {
                (Some(name), false) => name,
                (None, true) => match config["current-context"].as_str() {
                    Some(name) if !name.is_empty() => name.to_owned(),
                    _ => bail!("no current context is set"),
                },
                _ => bail!("you must specify a non-empty context name or --current"),
            };
            let known = find(config, "contexts", &name).is_some();
            let fields = vec![
                ("cluster", cluster),
                ("user", user),
                ("namespace", connection.namespace.clone()),
            ];
            put(config, ("contexts", "context"), &name, fields);
            format!("Context {name:?} {}.", if known { "modified" } else { "created" })
        }
        Action::SetCluster { name, certificate_authority, embed_certs, tls_server_name } => {
            let fields = vec![
                ("server", connection.server.clone()),
                ("tls-server-name", tls_server_name),
                ("certificate-authority", certificate_authority.map(text)),
            ];
            put_files(config, ("clusters", "cluster"), &name, fields, embed_certs)?;
            format!("Cluster {name:?} set.")
        }
        Action::SetCredentials { name, client_certificate, client_key, embed_certs } => {
            let fields = vec![
                ("token", connection.token.clone()),
                ("client-certificate", client_certificate.map(text)),
                ("client-key", client_key.map(text)),
            ];
            put_files(config, ("users", "user"), &name, fields, embed_certs)?;
            format!("User {name:?} set.")
        }
        Action::RenameContext { from, to } => rename(config, &from, &to, path)?,
        Action::DeleteContext { name } => remove(config, "contexts", "context", &name, path)?,
        Action::DeleteCluster { name } => remove(config, "clusters", "cluster", &name, path)?,
        Action::DeleteUser { name } => remove(config, "users", "user", &name, path)?,
        Action::Set { property, value } => {
            set_property(config, &property, Some(value))?;
            format!("Property {property:?} set.")
        }
        Action::Unset { property } => {
            set_property(config, &property, None)?;
            format!("Property {property:?} unset.")
        }
        _ => bail!("this action changes nothing"),
    })
}

fn rename(config: &mut Value, from: &str, to: &str, path: &Path) -> anyhow::Result<String> {
    let file = path.display();
    if find(config, "contexts", from).is_none() {
        bail!("cannot rename the context {from:?}, it's not in {file}");
    }
    if find(config, "contexts", to).is_some() {
        bail!("cannot rename the context {from:?}, the context {to:?} already exists in {file}");
    }
    for entry in config["contexts"].as_array_mut().into_iter().flatten() {
        if entry["name"] == from {
            entry["name"] = to.into();
        }
    }
    if config["current-context"] == from {
        config["current-context"] = to.into();
    }
    Ok(format!("Context {from:?} renamed to {to:?}."))
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

fn put_files(
    config: &mut Value,
    list: (&str, &str),
    name: &str,
    fields: Vec<(&str, Option<String>)>,
    embeds: bool,
) -> anyhow::Result<()> {
    let contents = put(config, list, name, fields);
    if embeds && let Some(contents) = contents.as_object_mut() {
        embed(contents)?;
    }
    Ok(())
}

/// Sets the given fields of an entry, creating the entry if it is missing.
fn put<'a>(
    config: &'a mut Value,
    (list, inner): (&str, &str),
    name: &str,
    fields: Vec<(&str, Option<String>)>,
) -> &'a mut Value {
    if find(config, list, name).is_none() {
        push(config, list, json!({"name": name, inner: {}}));
    }
    let entry = config[list]
        .as_array_mut()
        .into_iter()
        .flatten()
        .find(|entry| entry["name"] == name)
        .expect("the entry was put there");
    for (field, value) in fields {
        if let Some(value) = value {
            entry[inner][field] = value.into();
        }
    }
    &mut entry[inner]
}

fn remove(
    config: &mut Value,
    list: &str,
    word: &str,
    name: &str,
    path: &Path,
) -> anyhow::Result<String> {
    let file = path.display();
    if find(config, list, name).is_none() {
        bail!("cannot delete {word} {name}, not in {file}");
    }
    if let Some(entries) = config[list].as_array_mut() {
        entries.retain(|entry| entry["name"] != name);
    }
    if word == "context" && config["current-context"] == name {
        eprintln!(
            "warning: this removed your active context, use \"skiff config use-context\" to select a different one"
        );
    }
    Ok(format!("deleted {word} {name} from {file}"))
}

/// Sets `contexts.dev.namespace` or `current-context`; `None` removes it.
fn set_property(config: &mut Value, property: &str, value: Option<String>) -> anyhow::Result<()> {
    let parts: Vec<&str> = property.split('.').collect();
    let inner = LISTS.iter().find(|(list, _)| *list == parts[0]);
    match (inner, parts.as_slice()) {
        (Some((list, inner)), [_, name @ .., field]) if !name.is_empty() => {
            let name = name.join(".");
            match value {
                Some(value) => {
                    put(config, (list, inner), &name, vec![(field, Some(value))]);
                }
                None => {
                    for entry in config[*list].as_array_mut().into_iter().flatten() {
                        if entry["name"] == name.as_str()
                            && let Some(contents) = entry[inner].as_object_mut()
                        {
                            contents.remove(*field);
                        }
                    }
                }
            }
        }
        (Some((list, _)), [_, name]) if value.is_none() => {
            if let Some(entries) = config[*list].as_array_mut() {
                entries.retain(|entry| entry["name"] != *name);
            }
        }
        (Some((list, _)), [_]) if value.is_none() => config[*list] = json!([]),
        (None, ["current-context"]) => config["current-context"] = value.unwrap_or_default().into(),
        (None, ["preferences", field]) => config["preferences"][*field] = value.into(),
        _ => bail!("unable to locate path {property}"),
    }
    Ok(())
}
