//! `skiff set env`: environment variables, from arguments, ConfigMaps or Secrets.

use anyhow::bail;
use client::Client;
use serde_json::{Value, json};

use crate::discovery::Resources;
use crate::request::pods::object_reference;
use crate::request::selection::ObjectReference;
use crate::verbs::write::set::template::{LISTS, names, push};

#[derive(clap::Args)]
pub struct Args {
    /// Only this container; * for all
    #[arg(short, long, default_value = "*")]
    containers: String,
    /// List the variables
    #[arg(long)]
    pub list: bool,
    /// Every key of a ConfigMap or Secret: configmap/NAME, secret/NAME
    #[arg(long)]
    from: Option<String>,
    /// With --from: only these keys
    #[arg(long, value_delimiter = ',')]
    keys: Vec<String>,
    /// With --from: prefix of the variables' names
    #[arg(long, default_value = "")]
    prefix: String,
}

impl Args {
    /// Whether the verb needs no variable in its arguments.
    pub fn needs_no_changes(&self) -> bool {
        self.list || self.from.is_some()
    }

    /// The entries of `env` to set, or with `$patch` to remove.
    pub async fn variables(
        &self,
        client: &Client,
        resources: &Resources,
        changes: &[String],
    ) -> anyhow::Result<Vec<Value>> {
        let removed = changes.iter().filter_map(|change| change.strip_suffix('-'));
        let mut removed = removed.filter(|name| !name.contains('='));
        let is_set = |name: &str| {
            let names = changes.iter().filter_map(|change| change.split_once('='));
            names.into_iter().any(|(set, _)| set == name)
        };
        if removed.any(is_set) {
            bail!(
                "can not both modify and remove the same environment variable in the same command"
            );
        }
        let mut variables: Vec<Value> = changes
            .iter()
            .map(|change| match change.split_once('=') {
                Some((name, value)) => json!({"name": name, "value": value, "valueFrom": null}),
                None => json!({"name": change.trim_end_matches('-'), "$patch": "delete"}),
            })
            .collect();
        let Some(from) = &self.from else {
            return Ok(variables);
        };
        let source = object_reference(client, resources, from)?;
        let reference = match source.resource.kind.as_str() {
            "ConfigMap" => "configMapKeyRef",
            "Secret" => "secretKeyRef",
            _ => bail!("unsupported resource specified in --from"),
        };
        let json = client.get_object(source.target("")).await?.json;
        let object: Value = serde_json::from_slice(&json)?;
        for (key, _) in object["data"].as_object().into_iter().flatten() {
            if !self.keys.is_empty() && !self.keys.contains(key) {
                continue;
            }
            let name = variable_name(key);
            if name != *key {
                eprintln!("Warning: key {key} transferred to {name}");
            }
            variables.push(json!({
                "name": format!("{}{name}", self.prefix),
                "valueFrom": {reference: {"key": key, "name": source.name}},
            }));
        }
        Ok(variables)
    }

    fn wants(&self, container: &str) -> bool {
        self.containers == "*" || self.containers == container
    }

    /// The change to a pod's spec; `None` if no container matches.
    pub fn change(
        &self,
        named: &ObjectReference<'_>,
        pod_spec: &Value,
        variables: &[Value],
    ) -> Option<Value> {
        let mut patch = json!({});
        for list in LISTS {
            for name in names(pod_spec, list).filter(|name| self.wants(name)) {
                push(&mut patch, list, json!({"name": name, "env": variables}));
            }
        }
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            eprintln!(
                "Warning: {}/{} does not have any containers matching {:?}",
                named.resource.kind, named.name, self.containers
            );
            return None;
        }
        Some(patch)
    }

    /// Prints the variables.
    pub fn show(&self, named: &ObjectReference<'_>, pod_spec: &Value) {
        for list in LISTS {
            for container in pod_spec[list].as_array().into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default();
                if !self.wants(name) {
                    continue;
                }
                println!("# {} {}, container {name}", named.resource.kind, named.name);
                for variable in container["env"].as_array().into_iter().flatten() {
                    println!("{}", line(variable));
                }
            }
        }
    }
}

/// A ConfigMap's key as the name of a variable.
fn variable_name(key: &str) -> String {
    let sign = |character: char| {
        if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' }
    };
    key.chars().map(sign).collect()
}

fn line(variable: &Value) -> String {
    let name = variable["name"].as_str().unwrap_or_default();
    let from = &variable["valueFrom"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (field, kind) in [("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")] {
        if from[field].is_object() {
            let (source, key) = (word(&from[field]["name"]), word(&from[field]["key"]));
            return format!("# {name} from {kind} {source}, key {key}");
        }
    }
    if from["fieldRef"].is_object() {
        return format!("# {name} from field path {}", word(&from["fieldRef"]["fieldPath"]));
    }
    if from["resourceFieldRef"].is_object() {
        let resource = word(&from["resourceFieldRef"]["resource"]);
        return format!("# {name} from resource field {resource}");
    }
    format!("{name}={}", word(&variable["value"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_listed_as_in_kubectl() {
        assert_eq!(variable_name("a.b-c"), "A_B_C");
        for (variable, expected) in [
            (json!({"name": "A", "value": "b"}), "A=b"),
            (
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
                "# A from secret s, key k",
            ),
            (
                json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
                "# A from field path status.podIP",
            ),
        ] {
            assert_eq!(line(&variable), expected);
        }
    }
}
