//! Kubeconfigs: one for each component, and the context written into the user's own.
//!
//! The user's file is read and written as an untyped tree, so that unknown fields are kept.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cluster::files;
use crate::cluster::layout::Layout;

/// A server, and the credentials for it, in PEM.
pub struct Access {
    pub server: String,
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Access {
    /// Reads the certificates of one identity (a path below the PKI folder, without its extension).
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(layout: &Layout, server: &str, identity: &str) -> anyhow::Result<Self> {
        let read = |name: String| {
            let path = layout.pki_file(&name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            server: server.to_owned(),
            authority: read("ca.crt".to_owned())?,
            certificate: read(format!("{identity}.crt"))?,
            key: read(format!("{identity}.key"))?,
        })
    }

    fn cluster(&self) -> Value {
        json!({
            "server": self.server,
            "certificate-authority-data": STANDARD.encode(&self.authority),
        })
    }

    fn user(&self) -> Value {
        json!({
            "client-certificate-data": STANDARD.encode(&self.certificate),
            "client-key-data": STANDARD.encode(&self.key),
        })
    }
}

/// A kubeconfig with this one context, as YAML.
///
/// # Errors
/// When it cannot be written as YAML.
pub fn render(context: &str, access: &Access) -> anyhow::Result<String> {
    let mut config = Value::Null;
    set_context(&mut config, context, access)?;
    Ok(serde_saphyr::to_string(&config)?)
}

/// Writes the kubeconfig of every component and node, and the administrator's.
///
/// # Errors
/// When a certificate cannot be read or a file cannot be written.
pub fn write_components(layout: &Layout, server: &str, nodes: &[String]) -> anyhow::Result<()> {
    let components = ["admin", "scheduler", "controller-manager", "proxy", "dns"];
    let mut identities: Vec<(String, String)> =
        components.map(|name| (name.to_owned(), name.to_owned())).to_vec();
    for node in nodes {
        identities.push((format!("kubelet-{node}"), format!("nodes/{node}/kubelet")));
    }
    for (identity, certificate) in identities {
        let text =
            render(&context_name(layout.name()), &Access::read(layout, server, &certificate)?)?;
        files::replace_if_changed(&layout.kubeconfig(&identity), text.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The name of a cluster's context, cluster and user in the user's kubeconfig.
pub fn context_name(cluster: &str) -> String {
    if cluster == "skiff" { cluster.to_owned() } else { format!("skiff-{cluster}") }
}

/// The file that a context is written to: the first file of `$KUBECONFIG` that exists, else the
/// last; without `$KUBECONFIG`, `~/.kube/config`.
///
/// # Errors
/// When neither `$KUBECONFIG` nor `$HOME` is set.
pub fn user_file() -> anyhow::Result<PathBuf> {
    let paths = client::kubeconfig::paths()?;
    let chosen = paths.iter().find(|path| path.exists()).or(paths.last());
    chosen.cloned().context("$KUBECONFIG names no file")
}

/// Adds or replaces the context in the file and makes it the current one.
///
/// # Errors
/// When the file cannot be read, parsed or written.
pub fn write_context(path: &Path, context: &str, access: &Access) -> anyhow::Result<()> {
    let mut config = read(path)?;
    set_context(&mut config, context, access)?;
    write(path, &config)
}

/// Copies the one context of another kubeconfig, given as YAML, into the file, under the name
/// `context`, and makes it the current one.
///
/// # Errors
/// When either cannot be parsed, or the file cannot be written.
pub fn import(path: &Path, context: &str, other: &str) -> anyhow::Result<()> {
    let other: Value = serde_saphyr::from_str(other).context("not a kubeconfig")?;
    let mut config = read(path)?;
    let (cluster, user) = (&other["clusters"][0]["cluster"], &other["users"][0]["user"]);
    set(&mut config, context, cluster.clone(), user.clone())?;
    write(path, &config)
}

/// Removes the context, its cluster and its user from the file; returns whether there was one.
///
/// # Errors
/// When the file exists and cannot be read, parsed or written.
pub fn remove_context(path: &Path, context: &str) -> anyhow::Result<bool> {
    let mut config = read(path)?;
    let Some(map) = config.as_object_mut() else {
        return Ok(false);
    };
    let mut removed = false;
    for list in ["clusters", "contexts", "users"] {
        if let Some(Value::Array(items)) = map.get_mut(list) {
            let before = items.len();
            items.retain(|item| item["name"] != context);
            removed |= items.len() != before;
        }
    }
    if map.get("current-context").is_some_and(|current| current == context) {
        map.insert("current-context".to_owned(), json!(""));
        removed = true;
    }
    if removed {
        write(path, &config)?;
    }
    Ok(removed)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let Some(text) = files::read_if_there(path)? else {
        return Ok(Value::Null);
    };
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not a kubeconfig", path.display()))
}

fn write(path: &Path, config: &Value) -> anyhow::Result<()> {
    // A symbolic link is followed, so that its target is replaced and the link kept.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    files::replace(&target, serde_saphyr::to_string(config)?.as_bytes(), 0o600)
}

fn set_context(config: &mut Value, context: &str, access: &Access) -> anyhow::Result<()> {
    set(config, context, access.cluster(), access.user())
}

fn set(config: &mut Value, context: &str, cluster: Value, user: Value) -> anyhow::Result<()> {
    if config.is_null() {
        *config = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
    }
    let Some(map) = config.as_object_mut() else { bail!("the kubeconfig is not a mapping") };
    put(map, "clusters", context, "cluster", cluster)?;
    put(map, "users", context, "user", user)?;
    put(map, "contexts", context, "context", json!({"cluster": context, "user": context}))?;
    map.insert("current-context".to_owned(), json!(context));
    Ok(())
}

fn put(
    map: &mut Map<String, Value>,
    list: &str,
    name: &str,
    field: &str,
    value: Value,
) -> anyhow::Result<()> {
    let items = map.entry(list).or_insert_with(|| json!([]));
    if items.is_null() {
        *items = json!([]);
    }
    let Some(items) = items.as_array_mut() else { bail!("{list} in the kubeconfig is not a list") };
    items.retain(|item| item["name"] != name);
    items.push(json!({"name": name, field: value}));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(server: &str) -> Access {
        Access {
            server: server.into(),
            authority: "authority".into(),
            certificate: "certificate".into(),
            key: "key".into(),
        }
    }

    #[test]
    fn other_contexts_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config");
        let other = "apiVersion: v1\nkind: Config\nclusters:\n- name: other\n  cluster: {server: \
                     'https://x', extra: 1}\ncontexts:\n- name: other\n  context: {cluster: other, \
                     user: other}\nusers:\n- name: other\n  user: {exec: {command: aws}}\n\
                     current-context: other\n";
        files::replace(&path, other.as_bytes(), 0o600).unwrap();

        write_context(&path, "skiff", &access("https://172.30.0.1:6443")).unwrap();
        write_context(&path, "skiff", &access("https://172.30.0.1:6444")).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["current-context"], "skiff");
        assert_eq!(config["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(config["clusters"][1]["cluster"]["server"], "https://172.30.0.1:6444");
        assert_eq!(config["users"][0]["user"]["exec"]["command"], "aws");

        assert!(remove_context(&path, "skiff").unwrap());
        assert!(!remove_context(&path, "skiff").unwrap());
        let config = read(&path).unwrap();
        assert_eq!(config["clusters"].as_array().unwrap().len(), 1);
        assert_eq!(config["clusters"][0]["cluster"]["extra"], 1);
        assert_eq!(config["current-context"], "");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, "- a\n- list\n").unwrap();
        assert!(write_context(&path, "skiff", &access("https://x")).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "- a\n- list\n");
    }

    #[test]
    fn names_of_contexts() {
        assert_eq!(context_name("skiff"), "skiff");
        assert_eq!(context_name("compose"), "skiff-compose");
    }
}
