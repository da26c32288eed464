//! The object model that every component shares.
//!
//! - [`kind`]: the kind table. One [`KindRow`](kind::KindRow) per kind has everything that does not
//!   depend on a Rust type (group, version, plural, scope, short names, subresources); the trait
//!   [`Kind`](kind::Kind) ties a `k8s-openapi` type to its row and to its JSON codec.
//! - [`custom`]: kinds and objects that CustomResourceDefinitions define.
//! - [`object`]: objects whose type is known only at run time, for the apiserver's pipeline.
//! - [`status`]: Kubernetes' `Status` errors with codes, reasons and causes.
//! - [`schema`]: every field of every kind with its type and how it merges; [`strategic`] (merge
//!   patches), [`apply`] (server-side apply) and [`protobuf`] (bodies) traverse JSON by it.
//! - [`structural`]: schemas of custom resources: pruning, defaults, validation.
//! - [`labels`], [`fields`]: selectors. [`quantity`]: resource quantities. [`names`]: name rules.
//!   [`jsonpath`]: kubectl's dialect. [`quota`]: what objects use of ResourceQuotas. [`address`]: what
//!   IP addresses mean. [`local_path`]: the volumes that nodes make on demand. [`webhook`]: how
//!   webhooks are reached. [`metrics`]: the kinds of `metrics.k8s.io`. [`defaults`] of pods, and the objects that they refer to ([`references`]).
//! - [`certificates`]: what certificate signing requests ask for; [`der`]; [`pem`]; [`bootstrap_token`].
//!
//! Every typed decode and encode of a Kubernetes object happens in this crate, in functions that
//! are not generic, so that no other crate pays for compiling `k8s-openapi`'s serde code.
//!
//! It must not know tokio, I/O, clocks, the store or any component.

pub mod address;
pub mod apply;
pub mod bootstrap_token;
pub mod cel;
pub mod certificates;
pub mod custom;
pub mod defaults;
pub mod der;
pub mod duration;
pub mod fields;
pub mod jsonpath;
pub mod kind;
pub mod labels;
pub mod local_path;
pub mod metrics;
pub mod names;
pub mod object;
pub mod options;
pub mod owners;
pub mod pem;
pub mod pod;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod references;
pub mod schema;
pub mod status;
pub mod storage_class;
pub mod strategic;
pub mod structural;
pub mod webhook;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use kind::{Kind, KindRef, KindRow};
pub use status::ApiError;

/// A point in the store's history: etcd's revision, and Kubernetes' `resourceVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
