//! A Job's conditions. A Job ends in two steps: one condition announces the end, and one is set
//! when all pods have terminated.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub success: bool,
    pub reason: String,
    pub message: String,
}

impl Ending {
    pub fn failed(reason: &str, message: &str) -> Self {
        Self { success: false, reason: reason.into(), message: message.into() }
    }

    pub fn succeeded(reason: &str, message: &str) -> Self {
        Self { success: true, reason: reason.into(), message: message.into() }
    }

    /// The condition that announces the end, and the final one.
    fn types(&self) -> (&'static str, &'static str) {
        if self.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") }
    }
}

pub fn condition_is_true(status: &JobStatus, type_: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The end that the conditions announce or state.
pub fn final_condition(status: &JobStatus) -> Option<Ending> {
    let of = |types: &[&str]| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|one| one.status == "True" && types.contains(&one.type_.as_str())).map(
            |one| {
                let (reason, message) = (one.reason.clone(), one.message.clone());
                (reason.unwrap_or_default(), message.unwrap_or_default())
            },
        )
    };
    let ending =
        |success| move |(reason, message): (String, String)| Ending { success, reason, message };
    of(&["Failed", "FailureTarget"])
        .map(ending(false))
        .or_else(|| of(&["Complete", "SuccessCriteriaMet"]).map(ending(true)))
}

pub fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|one| one.type_ == type_ && one.status == value) {
        return;
    }
    conditions.retain(|one| one.type_ != type_);
    conditions.push(JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

/// Announces an end, and sets the final condition once `over`. Returns whether it was set just now.
pub fn set_ending(status: &mut JobStatus, ending: &Ending, over: bool, now: Timestamp) -> bool {
    let (announced, reached) = ending.types();
    let (reason, message) = (ending.reason.as_str(), ending.message.as_str());
    set_condition(status, announced, "True", reason, message, now);
    let settled = status.uncounted_terminated_pods.as_ref().is_none_or(|uncounted| {
        let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        empty(&uncounted.succeeded) && empty(&uncounted.failed)
    });
    if !over || !settled || condition_is_true(status, reached) {
        return false;
    }
    set_condition(status, reached, "True", reason, message, now);
    if ending.success {
        status.completion_time = Some(Time(now));
    }
    true
}
