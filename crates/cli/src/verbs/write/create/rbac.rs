//! Roles and their bindings.

use anyhow::bail;
use serde_json::{Map, Value, json};

use crate::discovery::Resources;
use crate::request::generate::metadata;
use crate::request::subjects::{GROUP, Subjects};

/// Verbs that the server knows; others are allowed with a warning.
const VERBS: [&str; 12] = [
    "*",
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "impersonate",
];

#[derive(clap::Args)]
pub struct Role {
    name: String,
    #[command(flatten)]
    rules: Rules,
}

#[derive(clap::Args)]
pub struct ClusterRole {
    name: String,
    #[command(flatten)]
    rules: Rules,
    /// Non-resource URLs of the server
    #[arg(long = "non-resource-url", value_delimiter = ',')]
    non_resource_urls: Vec<String>,
    /// Aggregate the rules of ClusterRoles with these labels: KEY=VALUE,...
    #[arg(long, value_delimiter = ',')]
    aggregation_rule: Vec<String>,
}

#[derive(clap::Args)]
struct Rules {
    /// get, list, watch, ...
    #[arg(long = "verb", value_delimiter = ',')]
    verbs: Vec<String>,
    /// A resource, in full TYPE.GROUP/SUBRESOURCE
    #[arg(long = "resource", value_delimiter = ',')]
    resources: Vec<String>,
    /// Only objects of these names
    #[arg(long = "resource-name")]
    names: Vec<String>,
}

impl Rules {
    fn verbs(&self) -> anyhow::Result<Vec<&str>> {
        if self.verbs.is_empty() {
            bail!("at least one verb must be specified");
        }
        let mut verbs: Vec<&str> = Vec::new();
        for verb in &self.verbs {
            if verb == "*" {
                return Ok(vec!["*"]);
            }
            if !VERBS.contains(&verb.as_str()) {
                eprintln!("Warning: '{verb}' is not a standard resource verb");
            }
            if !verbs.contains(&verb.as_str()) {
                verbs.push(verb);
            }
        }
        Ok(verbs)
    }

    /// One rule per API group, ordered by group.
    fn rules(&self, known: &Resources, verbs: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut groups: std::collections::BTreeMap<String, Vec<String>> = Default::default();
        for word in &self.resources {
            let (word, subresource) = word.split_once('/').unwrap_or((word, ""));
            let (group, mut name) = if word == "*" {
                ("*".to_owned(), "*".to_owned())
            } else {
                let found = known.find(word)?;
                (found.group.clone(), found.plural.clone())
            };
            if !subresource.is_empty() {
                name = format!("{name}/{subresource}");
            }
            let names = groups.entry(group).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let rule = |(group, resources): (String, Vec<String>)| {
            let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
            if !self.names.is_empty() {
                rule["resourceNames"] = json!(self.names);
            }
            rule
        };
        Ok(groups.into_iter().map(rule).collect())
    }
}

fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(name), "rules": rules,
    })
}

impl Role {
    pub fn object(&self, known: &Resources) -> anyhow::Result<Value> {
        let verbs = self.rules.verbs()?;
        if self.rules.resources.is_empty() {
            bail!("at least one resource must be specified");
        }
        let rules = self.rules.rules(known, &verbs)?;
        Ok(role("Role", &self.name, rules.into()))
    }
}

impl ClusterRole {
    pub fn object(&self, known: &Resources) -> anyhow::Result<Value> {
        if !self.aggregation_rule.is_empty() {
            let labels: Map<String, Value> = self
                .aggregation_rule
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect();
            let mut object = role("ClusterRole", &self.name, Value::Null);
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            return Ok(object);
        }
        let verbs = self.rules.verbs()?;
        if self.rules.resources.is_empty() && self.non_resource_urls.is_empty() {
            bail!("one of resource or nonResourceURL must be specified");
        }
        let mut rules = self.rules.rules(known, &verbs)?;
        if !self.non_resource_urls.is_empty() {
            rules.push(json!({"nonResourceURLs": self.non_resource_urls, "verbs": verbs}));
        }
        Ok(role("ClusterRole", &self.name, rules.into()))
    }
}

#[derive(clap::Args)]
pub struct RoleBinding {
    name: String,
    #[arg(long)]
    role: Option<String>,
    #[arg(long)]
    clusterrole: Option<String>,
    #[command(flatten)]
    subjects: Subjects,
}

#[derive(clap::Args)]
pub struct ClusterRoleBinding {
    name: String,
    #[arg(long)]
    clusterrole: String,
    #[command(flatten)]
    subjects: Subjects,
}

fn binding(
    kind: &str,
    name: &str,
    role: (&str, &str),
    subjects: &Subjects,
) -> anyhow::Result<Value> {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": role.0, "name": role.1},
    });
    let subjects = subjects.list()?;
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    Ok(object)
}

impl RoleBinding {
    pub fn object(&self) -> anyhow::Result<Value> {
        let role = match (&self.role, &self.clusterrole) {
            (Some(role), None) => ("Role", role.as_str()),
            (None, Some(role)) => ("ClusterRole", role.as_str()),
            _ => bail!("exactly one of clusterrole or role must be specified"),
        };
        binding("RoleBinding", &self.name, role, &self.subjects)
    }
}

impl ClusterRoleBinding {
    pub fn object(&self) -> anyhow::Result<Value> {
        let role = ("ClusterRole", self.clusterrole.as_str());
        binding("ClusterRoleBinding", &self.name, role, &self.subjects)
    }
}
