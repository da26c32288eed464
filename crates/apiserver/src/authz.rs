//! Authorization: RBAC, and what kubelets need for their pods, evaluated from the cache.

mod attributes;
mod escalation;
mod layer;
mod node;
mod rbac;

pub use attributes::{Attributes, impersonation_attributes, of_request};
pub use escalation::{check as check_escalation, not_covered};
pub use layer::{AuthzLayer, AuthzService};
pub use rbac::{Rbac, Scope};
