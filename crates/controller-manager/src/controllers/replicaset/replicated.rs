//! What ReplicaSet and ReplicationController have in common.

use api::labels::{Selector, SelectorError};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::machinery::shared_informers::Shared;

/// The counts and the failure that both kinds report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    /// Pods being deleted; only ReplicaSets report it.
    pub terminating: Option<i32>,
    pub observed_generation: Option<i64>,
    /// The condition ReplicaFailure, when it is true.
    pub failure: Option<ReplicaFailure>,
}

/// A condition ReplicaFailure that is true.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaFailure {
    pub reason: String,
    pub message: String,
    pub since: Option<Time>,
}

/// A kind that keeps a number of identical pods.
pub trait Replicated: Shared {
    const CONTROLLER: &'static str;
    /// The component name of its events.
    const RECORDER: &'static str;
    const REPORTS_TERMINATING: bool;

    fn replicas(&self) -> i32;
    /// # Errors
    /// When the selector is malformed.
    fn selector(&self) -> Result<Selector, SelectorError>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready_seconds(&self) -> i32;
    fn status(&self) -> Status;
    fn set_status(&mut self, status: Status);
}

const FAILURE: &str = "ReplicaFailure";

/// The two kinds have the same fields under different types.
macro_rules! status_of {
    ($status:ty, $condition:ty, $($terminating:ident)?) => {
        fn status(&self) -> Status {
            let Some(status) = &self.status else {
                return Status::default();
            };
            let failure = status.conditions.iter().flatten().find(|condition| {
                text(&condition.type_) == FAILURE && text(&condition.status) == "True"
            });
            #[allow(unused_mut)]
            let mut read = Status {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                terminating: None,
                observed_generation: status.observed_generation,
                failure: failure.map(|condition| ReplicaFailure {
                    reason: condition.reason.clone().unwrap_or_default(),
                    message: condition.message.clone().unwrap_or_default(),
                    since: condition.last_transition_time.clone(),
                }),
            };
            $(read.terminating = status.$terminating;)?
            read
        }

        fn set_status(&mut self, status: Status) {
            let others = self.status.take().and_then(|status| status.conditions);
            let mut conditions: Vec<$condition> = others.unwrap_or_default();
            conditions.retain(|condition| text(&condition.type_) != FAILURE);
            conditions.extend(status.failure.map(|failed| {
                let mut condition = <$condition>::default();
                condition.type_ = FAILURE.to_owned().into();
                condition.status = "True".to_owned().into();
                condition.reason = Some(failed.reason);
                condition.message = Some(failed.message);
                condition.last_transition_time = failed.since;
                condition
            }));
            let mut changed = <$status>::default();
            changed.replicas = status.replicas;
            let count = |count: i32| (count != 0).then_some(count);
            changed.fully_labeled_replicas = count(status.fully_labeled);
            changed.ready_replicas = count(status.ready);
            changed.available_replicas = count(status.available);
            $(changed.$terminating = status.terminating;)?
            changed.observed_generation = status.observed_generation;
            changed.conditions = (!conditions.is_empty()).then_some(conditions);
            self.status = Some(changed);
        }
    };
}

/// A string that is required in one kind and optional in the other.
fn text<'a>(value: impl Into<Option<&'a String>>) -> &'a str {
    value.into().map_or("", String::as_str)
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";
    const RECORDER: &'static str = "replicaset-controller";
    const REPORTS_TERMINATING: bool = true;

    status_of!(ReplicaSetStatus, ReplicaSetCondition, terminating_replicas);

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn selector(&self) -> Result<Selector, SelectorError> {
        Selector::from_label_selector(Some(&self.spec.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";
    const RECORDER: &'static str = "replication-controller";
    const REPORTS_TERMINATING: bool = false;

    status_of!(ReplicationControllerStatus, ReplicationControllerCondition,);

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Result<Selector, SelectorError> {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        Ok(labels
            .filter(|labels| !labels.is_empty())
            .map_or_else(Selector::nothing, Selector::from_map))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }
}
