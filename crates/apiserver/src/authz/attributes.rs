//! The attributes of a request that authorization decides by.

use std::fmt;

use api::{ApiError, fields};

use crate::aggregation::Delegated;
use crate::request::{Request, Subject, Target};
use crate::user::User;

/// A resource request or a non-resource request in RBAC's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    Resource {
        verb: String,
        group: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
    },
    Path {
        verb: String,
        path: String,
    },
}

/// The attributes of a request.
pub fn of_request(request: &Request) -> Attributes {
    match &request.subject {
        Subject::Resource { verb, target } => Attributes::Resource {
            verb: verb.as_str().to_owned(),
            group: target.row.group.to_string(),
            resource: target.row.plural.to_string(),
            subresource: target.subresource.clone(),
            namespace: if target.row.kind == "Namespace" {
                target.name.clone()
            } else {
                target.namespace.clone()
            },
            name: name(target, &request.options.fields),
        },
        Subject::Path { path, method, .. } => {
            Attributes::Path { verb: (*method).to_owned(), path: path.clone() }
        }
        Subject::Delegated(Delegated { info, .. }) | Subject::Unserved(info) => {
            match &info.resource {
                Some(resource) => Attributes::Resource {
                    verb: resource.verb.to_owned(),
                    group: resource.group.clone(),
                    resource: resource.resource.clone(),
                    subresource: resource.subresource.clone(),
                    namespace: resource.namespace.clone(),
                    name: resource.name.clone(),
                },
                None => Attributes::Path { verb: info.method.to_owned(), path: info.path.clone() },
            }
        }
    }
}

/// The name in the request, or the one that a field selector restricts a collection to: whoever may
/// read an object may list and watch it alone.
fn name(target: &Target, fields: &fields::Selector) -> String {
    let selected = fields.exact("metadata.name").unwrap_or_default();
    match target.name.as_str() {
        "" => selected.to_owned(),
        name => name.to_owned(),
    }
}

impl Attributes {
    /// The same request with another verb.
    pub fn with_verb(mut self, other: &str) -> Self {
        match &mut self {
            Self::Resource { verb, .. } | Self::Path { verb, .. } => other.clone_into(verb),
        }
        self
    }

    pub fn verb(&self) -> &str {
        match self {
            Self::Resource { verb, .. } | Self::Path { verb, .. } => verb,
        }
    }

    /// The namespace of the request; empty: the whole cluster.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Resource { namespace, .. } => namespace,
            Self::Path { .. } => "",
        }
    }

    /// The error of a denial, as Kubernetes words it; with a reason, if an authorizer has given one.
    pub fn refused(&self, user: &User, reason: &str) -> ApiError {
        let mut refusal = format!("User {:?} cannot {self}", user.name);
        if !reason.is_empty() {
            refusal.push_str(&format!(": {reason}"));
        }
        match self {
            Self::Path { .. } => ApiError::new(403, "Forbidden", format!("forbidden: {refusal}")),
            Self::Resource { group, resource, name, .. } => {
                let qualified =
                    if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                let subject =
                    if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
                let mut error =
                    ApiError::new(403, "Forbidden", format!("{subject} is forbidden: {refusal}"));
                let details = error.status_mut().details.get_or_insert_default();
                details.group = (!group.is_empty()).then(|| group.clone());
                details.kind = Some(resource.clone());
                details.name = (!name.is_empty()).then(|| name.clone());
                error
            }
        }
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { verb, path } => write!(f, "{verb} path {path:?}"),
            Self::Resource { verb, group, resource, subresource, namespace, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                write!(
                    f,
                    "{verb} resource \"{resource}{slash}{subresource}\" in API group {group:?}"
                )?;
                if namespace.is_empty() {
                    write!(f, " at the cluster scope")
                } else {
                    write!(f, " in the namespace {namespace:?}")
                }
            }
        }
    }
}
