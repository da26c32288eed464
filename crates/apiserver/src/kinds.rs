//! What differs between kinds: one table ([`table::Rows`]) per kind, in one file per kind under
//! `kinds/`.
//!
//! The verbs are written once (`verbs/`) and read the table of the object's kind through [`Strategy`].
//! Every built-in kind that has objects has a line in [`STRATEGIES`]. The order on a write is
//! Kubernetes': decode, [`default`](Strategy::default), admission, `prepare_*`, `validate*`, store.
//!
//! It must not know requests, the store or any I/O: a strategy sees objects and a [`Context`].

mod admission_policy;
mod api_service;
pub mod at;
mod certificate_signing_request;
mod check;
mod cluster_trust_bundle;
pub mod columns;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod custom;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod devices;
mod endpoint_slice;
mod endpoints;
pub mod event;
mod flow_schema;
pub mod forms;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod job;
mod lease;
mod limit_range;
mod mutating_admission_policy;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_certificate_request;
mod pod_disruption_budget;
pub mod pod_spec;
mod pod_template;
mod priority_class;
mod priority_level_configuration;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_metrics;
mod resource_quota;
mod runtime_class;
mod secret;
mod semantic;
pub mod service;
mod service_account;
mod service_cidr;
mod signer_name;
mod stateful_set;
mod status;
mod storage;
mod storage_class;
mod storage_version_migration;
mod table;
mod validating_admission_policy;
mod volumes;
mod webhook_configuration;
mod workload;

pub use webhook_configuration::REVIEW_VERSIONS;

use std::collections::HashMap;
use std::sync::LazyLock;

use api::defaults::fill;
use api::object::Object;
use api::status::FieldError;
use api::{Kind, KindRow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;

use self::table::Rows;
use crate::user::User;

pub(crate) use api::duration::human as human_duration;

/// What a strategy may know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub user: &'a User,
    /// `""` for the object itself, or `status`, `scale`, ...
    pub subresource: &'a str,
}

/// What a deletion that names no policy does to the dependents of an object of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// The garbage collector deletes them.
    Deleted,
    /// They stay, as the kind's first version had it. The warning is for clients that may not expect it.
    Orphaned { warning: Option<&'static str> },
    /// There are none: no policy leaves a finalizer.
    Unsupported,
}

/// One printer column of a kind's Table, as Kubernetes names and describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, `boolean`, `number`
    pub kind: &'static str,
    /// `name` for the object's name, otherwise empty.
    pub format: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: i32,
    pub description: &'static str,
}

/// The differences of one kind, of objects whose type is erased. Panics are impossible as long as
/// callers find the strategy by the object's own row.
pub trait Strategy: Send + Sync {
    /// Fills defaults, as Kubernetes' `SetDefaults_*` do. Idempotent.
    fn default(&self, object: &mut dyn Object);
    /// Before a create: drops what clients may not set (status).
    fn prepare_create(&self, object: &mut dyn Object, context: &Context<'_>);
    /// Before an update of the object itself: resets what such an update may not change (status).
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object, context: &Context<'_>);
    /// Before an update of the subresource in `context`: resets everything else.
    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object, context: &Context<'_>);
    fn validate(&self, object: &dyn Object) -> Vec<FieldError>;
    /// In addition to [`validate`](Self::validate) on creates: fields that only a subresource sets.
    fn validate_create(&self, object: &dyn Object) -> Vec<FieldError>;
    /// In addition to [`validate`](Self::validate) on updates: immutable fields.
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Vec<FieldError>;
    /// On updates of the subresource in `context`.
    fn validate_subresource_update(
        &self,
        new: &dyn Object,
        old: &dyn Object,
        context: &Context<'_>,
    ) -> Vec<FieldError>;
    /// Warnings about what is valid but unlikely to be intended. `old`: on updates.
    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// Whether this change increments `metadata.generation`. `None`: the kind has no generation.
    fn generation_changes(&self, new: &dyn Object, old: &dyn Object) -> Option<bool>;
    /// Whether finalizers need no domain (`k8s.io/apimachinery/pkg/api/validation`, rather than
    /// `pkg/apis/core/validation`).
    fn any_finalizer(&self) -> bool;
    /// What is wrong with a name of this kind.
    fn validate_name(&self, name: &str) -> Vec<String>;
    /// The grace period of a delete that specifies none; `None`: deleted at once.
    fn default_grace_seconds(&self, object: &dyn Object) -> Option<i64>;
    /// Upstream's `DefaultGarbageCollectionPolicy`.
    fn dependents(&self) -> Dependents;
    /// Whether a PUT on a missing object creates it.
    fn allow_create_on_update(&self) -> bool;
    /// Whether a PUT without resourceVersion is accepted.
    fn allow_unconditional_update(&self) -> bool;
    /// The columns of the kind's Table; the first is the name.
    fn columns(&self) -> Vec<Column>;
    /// One cell per column: strings, integers or booleans as JSON.
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<serde_json::Value>;
}

/// Whether a field of both is the same, where zero values are the same as none.
pub fn same_field(one: &dyn Object, other: &dyn Object, name: &str) -> bool {
    semantic::field(one, name) == semantic::field(other, name)
}

/// `5d3h`, `12m`: the object's age, as kubectl prints it.
pub fn age(metadata: &api::ObjectMeta, now: Timestamp) -> String {
    match &metadata.creation_timestamp {
        Some(time) => human_duration(now.as_second() - time.0.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// The strategy of every built-in kind that has objects; one line per kind.
static STRATEGIES: &[(&KindRow, &dyn Strategy)] = &[
    of(&api_service::RULES),
    of(&certificate_signing_request::RULES),
    of(&cluster_trust_bundle::RULES),
    of(&pod_certificate_request::RULES),
    of(&config_map::RULES),
    of(&controller_revision::RULES),
    of(&event::RULES),
    of(&event::NEWER_RULES),
    of(&lease::RULES),
    of(&runtime_class::RULES),
    of(&service_account::RULES),
    of(&cron_job::RULES),
    of(&custom_resource_definition::RULES),
    of(&daemon_set::RULES),
    of(&deployment::RULES),
    of(&endpoint_slice::RULES),
    of(&endpoints::RULES),
    of(&horizontal_pod_autoscaler::RULES),
    of(&horizontal_pod_autoscaler::OLDER_RULES),
    of(&ingress::RULES),
    of(&ingress_class::RULES),
    of(&job::RULES),
    of(&limit_range::RULES),
    of(&namespace::RULES),
    of(&network_policy::RULES),
    of(&node::RULES),
    of(&persistent_volume::RULES),
    of(&persistent_volume_claim::RULES),
    of(&pod::RULES),
    of(&pod_disruption_budget::RULES),
    of(&pod_template::RULES),
    of(&priority_class::RULES),
    of(&flow_schema::RULES),
    of(&priority_level_configuration::RULES),
    of(&rbac::ROLES),
    of(&rbac::CLUSTER_ROLES),
    of(&rbac::ROLE_BINDINGS),
    of(&rbac::CLUSTER_ROLE_BINDINGS),
    of(&replica_set::RULES),
    of(&replication_controller::RULES),
    of(&resource_quota::RULES),
    of(&secret::RULES),
    of(&service::RULES),
    of(&stateful_set::RULES),
    of(&storage_class::RULES),
    of(&storage::CSI_DRIVERS),
    of(&storage::CSI_NODES),
    of(&storage::CSI_STORAGE_CAPACITIES),
    of(&storage::VOLUME_ATTACHMENTS),
    of(&storage::VOLUME_ATTRIBUTES_CLASSES),
    of(&service_cidr::SERVICE_CIDRS),
    of(&service_cidr::IP_ADDRESSES),
    of(&devices::DEVICE_CLASSES),
    of(&devices::RESOURCE_CLAIMS),
    of(&devices::RESOURCE_CLAIM_TEMPLATES),
    of(&devices::RESOURCE_SLICES),
    of(&devices::DEVICE_TAINT_RULES),
    of(&storage_version_migration::STORAGE_VERSION_MIGRATIONS),
    of(&webhook_configuration::MUTATING),
    of(&webhook_configuration::VALIDATING),
    of(&mutating_admission_policy::POLICIES),
    of(&mutating_admission_policy::BINDINGS),
    of(&validating_admission_policy::POLICIES),
    of(&validating_admission_policy::BINDINGS),
];

const fn of<K: Kind>(rows: &'static Rows<K>) -> (&'static KindRow, &'static dyn Strategy) {
    (K::ROW, rows)
}

/// A kind's group, version and name.
type Key<'a> = (&'a str, &'a str, &'a str);

static BY_KIND: LazyLock<HashMap<Key<'_>, &dyn Strategy>> =
    LazyLock::new(|| STRATEGIES.iter().map(|(row, strategy)| (key(row), *strategy)).collect());

fn key(row: &KindRow) -> Key<'_> {
    (&row.group, &row.version, &row.kind)
}

/// The strategy of a kind that has objects.
pub fn strategy(row: &KindRow) -> &'static dyn Strategy {
    if *row == *ComponentStatus::ROW {
        return &component_status::RULES;
    }
    if row.computed {
        return &resource_metrics::RULES;
    }
    if row.custom.is_some() {
        return &custom::RULES;
    }
    BY_KIND.get(&key(row)).copied().expect("every kind that has objects has a strategy")
}

#[cfg(test)]
mod tests;
