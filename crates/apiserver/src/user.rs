//! Who a request is from.

use std::collections::BTreeMap;
use std::sync::Arc;

/// An authenticated user, as Kubernetes' `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of everyone who was authenticated.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who was not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything, without a look at RBAC.
pub const MASTERS: &str = "system:masters";
/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

impl User {
    /// A user with `groups` and the group of the authenticated.
    pub fn authenticated(name: impl Into<String>, groups: Vec<String>) -> Self {
        let mut user = Self { name: name.into(), groups, ..Self::default() };
        if !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        user
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// `system:node:NAME` in group `system:nodes`: the node's name.
    pub fn node_name(&self) -> Option<&str> {
        self.in_group("system:nodes").then(|| self.name.strip_prefix("system:node:")).flatten()
    }
}

/// What a connection and a request offer as proof of who they are.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// From the TLS client certificate, verified.
    pub certificate: Option<Arc<User>>,
    /// From `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// From the `Impersonate-*` headers.
    pub impersonate: Option<User>,
}
