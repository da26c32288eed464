//! Users and credentials.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::ApiError;

/// An authenticated user, as Kubernetes' `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of all authenticated users.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of all unauthenticated users.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything, without RBAC.
pub const MASTERS: &str = "system:masters";
/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The extra field that says which credential was used.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

impl User {
    /// A user with `groups` and the group of authenticated users.
    pub fn authenticated(name: impl Into<String>, groups: Vec<String>) -> Self {
        let mut user = Self { name: name.into(), groups, ..Self::default() };
        if !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        user
    }

    /// The anonymous user.
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

    /// The node of a kubelet: user `system:node:NAME` in group `system:nodes`.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:").filter(|name| !name.is_empty());
        name.filter(|_| self.in_group("system:nodes"))
    }

    /// Whether this is a kubelet's user that does not say of which node.
    pub fn is_nameless_node(&self) -> bool {
        self.name == "system:node:" && self.in_group("system:nodes")
    }
}

/// What the connection's client certificate proves; it is added to a request's extensions.
#[derive(Clone, Debug, Default)]
pub enum ClientCertificate {
    #[default]
    Absent,
    /// The user of a valid certificate.
    Valid(Arc<User>),
    /// Why the certificate is not valid, or no longer.
    Invalid(Arc<str>),
}

/// Whose valid credentials a request has shown, once authentication has accepted them. It is added
/// to a request's extensions, where its connection looks at it.
#[derive(Clone, Debug, Default)]
pub struct Proof(Arc<OnceLock<Arc<User>>>);

impl Proof {
    pub fn give(&self, user: &Arc<User>) {
        self.0.get_or_init(|| user.clone());
    }

    pub fn user(&self) -> Option<&User> {
        self.0.get().map(Arc::as_ref)
    }
}

/// The credentials of a connection and a request.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub certificate: ClientCertificate,
    /// From `Authorization: Bearer`; empty for a header without a token.
    pub bearer: Option<String>,
    /// From the `Impersonate-*` headers; the error if they cannot be read.
    pub impersonate: Option<Result<User, ApiError>>,
    pub proof: Proof,
}
