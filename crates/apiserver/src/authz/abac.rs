//! Policies in a file, one JSON object a line (`k8s.io/kubernetes/pkg/auth/authorizer/abac`): the
//! authorizer of `--authorization-mode=ABAC`. The file is read when the server starts, as upstream.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Attributes;
use crate::configuration::Unusable;
use crate::user::{AUTHENTICATED, User};

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";
const KIND: &str = "Policy";
/// What stands for everything.
const ANY: &str = "*";

/// What one line allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    namespace: String,
    resource: String,
    non_resource_path: String,
}

/// The policies.
#[derive(Debug, Default)]
pub struct Policies(Vec<Policy>);

impl Policies {
    /// # Errors
    /// When the file cannot be read, or a line is no policy.
    pub fn load(path: &Path) -> Result<Self, Unusable> {
        let text = crate::configuration::read(path)
            .map_err(|error| Unusable(format!("open {}: {error}", path.display())))?;
        let mut all = Vec::new();
        let mut unversioned = 0;
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let problem = |why: &str| {
                let number = index + 1;
                Unusable(format!(
                    "error reading policy file {}, line {number}: {line}: {why}",
                    path.display()
                ))
            };
            let value: Value = serde_json::from_str(line).map_err(|_| problem("no JSON object"))?;
            unversioned += usize::from(value.get("apiVersion").is_none());
            all.push(policy(value).map_err(|why| problem(&why))?);
        }
        if unversioned > 0 {
            tracing::warn!(path = %path.display(), unversioned, "policies without a version are deprecated");
        }
        Ok(Self(all))
    }

    /// Whether one of them allows it.
    pub fn allow(&self, user: &User, attributes: &Attributes) -> bool {
        self.0.iter().any(|policy| policy.is_about(user) && policy.allows(attributes))
    }
}

/// # Errors
/// When it is of another version or kind, or has fields of another type.
fn policy(value: Value) -> Result<Policy, String> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        (VERSION, KIND) => {
            let spec = value.get("spec").cloned().unwrap_or_else(|| serde_json::json!({}));
            let policy: Policy = serde_json::from_value(spec).map_err(|error| error.to_string())?;
            Ok(policy.of_everybody())
        }
        ("", "") => {
            let old: Policy = serde_json::from_value(value).map_err(|error| error.to_string())?;
            Ok(old.of_no_version())
        }
        (version, kind) => Err(format!("no kind {kind:?} is registered for version {version:?}")),
    }
}

impl Policy {
    /// `*` is everybody who is authenticated.
    fn of_everybody(mut self) -> Self {
        if self.user == ANY || self.group == ANY {
            self.user.clear();
            AUTHENTICATED.clone_into(&mut self.group);
        }
        self
    }

    /// Of a policy without version what is missing matches everything.
    fn of_no_version(mut self) -> Self {
        if self.user.is_empty() && self.group.is_empty() {
            AUTHENTICATED.clone_into(&mut self.group);
        }
        self.non_resource_path.clear();
        if self.namespace.is_empty() && self.resource.is_empty() {
            ANY.clone_into(&mut self.non_resource_path);
        }
        for field in [&mut self.namespace, &mut self.resource] {
            if field.is_empty() {
                ANY.clone_into(field);
            }
        }
        ANY.clone_into(&mut self.api_group);
        self.of_everybody()
    }

    fn is_about(&self, user: &User) -> bool {
        let named = self.user.is_empty() || self.user == user.name;
        let grouped = self.group.is_empty() || user.in_group(&self.group);
        let is_somebody = !self.user.is_empty() || !self.group.is_empty();
        is_somebody && named && grouped
    }

    fn allows(&self, attributes: &Attributes) -> bool {
        let matches = |own: &str, asked: &str| own == ANY || own == asked;
        match attributes {
            Attributes::Resource { verb, group, resource, namespace, .. } => {
                self.allows_verb(verb)
                    && matches(&self.namespace, namespace)
                    && matches(&self.resource, resource)
                    && matches(&self.api_group, group)
            }
            Attributes::Path { verb, path } => {
                let below = self.non_resource_path.strip_suffix(ANY);
                self.allows_verb(verb)
                    && (matches(&self.non_resource_path, path)
                        || below.is_some_and(|below| path.starts_with(below)))
            }
        }
    }

    fn allows_verb(&self, verb: &str) -> bool {
        !self.readonly || matches!(verb, "get" | "list" | "watch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Policies, Unusable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.jsonl");
        std::fs::write(&path, text).unwrap();
        Policies::load(&path)
    }

    fn resource(verb: &str, group: &str, resource: &str, namespace: &str) -> Attributes {
        Attributes::Resource {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: namespace.to_owned(),
            name: String::new(),
        }
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User::authenticated(name.to_owned(), groups.iter().map(|&group| group.to_owned()).collect())
    }

    #[test]
    fn policies_name_somebody_and_something() {
        let versioned = |spec: &str| {
            format!("{{\"apiVersion\":\"{VERSION}\",\"kind\":\"Policy\",\"spec\":{{{spec}}}}}\n")
        };
        let text = [
            "# a comment\n\n".to_owned(),
            versioned(r#""user":"alice","namespace":"*","resource":"*","apiGroup":"*""#),
            versioned(r#""user":"bob","namespace":"n","resource":"pods","readonly":true"#),
            versioned(r#""group":"*","readonly":true,"nonResourcePath":"/version*""#),
            versioned(r#""user":"carol","group":"ops","namespace":"*","resource":"nodes""#),
            versioned(r#""namespace":"*","resource":"*","apiGroup":"*""#),
            "{\"user\":\"old\",\"resource\":\"pods\"}\n".to_owned(),
        ];
        let policies = load(&text.concat()).unwrap();
        let get = |name: &str| resource("get", "", name, "n");
        let path = |path: &str| Attributes::Path { verb: "get".to_owned(), path: path.to_owned() };
        for (who, groups, what, allowed) in [
            ("alice", &[][..], resource("delete", "apps", "deployments", "x"), true),
            ("alice", &[], path("/metrics"), false),
            ("bob", &[], get("pods"), true),
            ("bob", &[], resource("create", "", "pods", "n"), false),
            ("bob", &[], resource("get", "", "pods", "m"), false),
            ("bob", &[], resource("get", "metrics.k8s.io", "pods", "n"), false),
            ("bob", &[], path("/version/x"), true),
            ("bob", &[], path("/healthz"), false),
            ("carol", &["ops"], get("nodes"), true),
            ("carol", &[], get("nodes"), false),
            ("dave", &["ops"], get("nodes"), false),
            ("old", &[], resource("delete", "apps", "pods", "x"), true),
            ("old", &[], path("/metrics"), false),
        ] {
            assert_eq!(policies.allow(&user(who, groups), &what), allowed, "{who} {what:?}");
        }
        // Whoever is not authenticated is not everybody.
        let nobody = User { name: "system:anonymous".to_owned(), ..User::default() };
        assert!(!policies.allow(&nobody, &path("/version")));
    }

    #[test]
    fn a_line_that_is_no_policy_is_named() {
        for (line, why) in [
            ("x", "line 2: x: no JSON object"),
            (
                r#"{"apiVersion":"v9","kind":"Policy"}"#,
                "no kind \"Policy\" is registered for version \"v9\"",
            ),
            (r#"{"user":1}"#, "invalid type"),
        ] {
            let error = load(&format!("\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
