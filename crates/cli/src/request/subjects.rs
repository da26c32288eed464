//! The subjects of role bindings: `--user`, `--group`, `--serviceaccount`.

use anyhow::Context;
use serde_json::{Value, json};

/// The API group of roles, bindings and their subjects.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Who a role is given to.
#[derive(clap::Args)]
pub struct Subjects {
    #[arg(long = "user", value_delimiter = ',')]
    users: Vec<String>,
    #[arg(long = "group", value_delimiter = ',')]
    groups: Vec<String>,
    /// NAMESPACE:NAME
    #[arg(long = "serviceaccount", value_delimiter = ',')]
    service_accounts: Vec<String>,
}

impl Subjects {
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty() && self.service_accounts.is_empty()
    }

    pub fn list(&self) -> anyhow::Result<Vec<Value>> {
        let person =
            |kind: &str, name: &String| json!({"apiGroup": GROUP, "kind": kind, "name": name});
        let mut subjects: Vec<Value> = Vec::new();
        subjects.extend(self.users.iter().map(|name| person("User", name)));
        subjects.extend(self.groups.iter().map(|name| person("Group", name)));
        for account in &self.service_accounts {
            let (namespace, name) = account
                .split_once(':')
                .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
                .context("serviceaccount must be <namespace>:<name>")?;
            subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        Ok(subjects)
    }
}
