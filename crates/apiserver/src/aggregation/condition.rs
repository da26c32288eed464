//! The condition `Available` of an APIService
//! (`k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper`). Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition,
};

const AVAILABLE: &str = "Available";

/// What has been found out about an APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What is always true of one that this server answers itself.
pub fn local() -> Finding {
    let message = "Local APIServices are always available".to_owned();
    Finding { available: true, reason: "Local", message }
}

pub fn passed() -> Finding {
    Finding { available: true, reason: "Passed", message: "all checks passed".to_owned() }
}

pub fn failed(reason: &'static str, message: String) -> Finding {
    Finding { available: false, reason, message }
}

/// The condition, if it is known.
pub fn available(service: &APIService) -> Option<&APIServiceCondition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == AVAILABLE)
}

/// Whether the condition is true.
pub fn is_available(service: &APIService) -> bool {
    available(service).is_some_and(|condition| condition.status == "True")
}

/// Sets the condition. Its time changes with its status only.
pub fn set(service: &mut APIService, finding: &Finding, now: Timestamp) {
    let status = if finding.available { "True" } else { "False" };
    let all = service.status.get_or_insert_default().conditions.get_or_insert_default();
    let index = all.iter().position(|condition| condition.type_ == AVAILABLE);
    let index = index.unwrap_or_else(|| {
        all.push(APIServiceCondition { type_: AVAILABLE.to_owned(), ..Default::default() });
        all.len() - 1
    });
    let condition = &mut all[index];
    if condition.status != status {
        status.clone_into(&mut condition.status);
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        condition.last_transition_time = Some(Time(seconds));
    }
    condition.reason = Some(finding.reason.to_owned());
    condition.message = Some(finding.message.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_change_of_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let time = |service: &APIService| {
            available(service).unwrap().last_transition_time.as_ref().unwrap().0.as_second()
        };
        let mut service = APIService::default();
        assert!(!is_available(&service));
        set(&mut service, &failed("MissingEndpoints", "none".to_owned()), at(1));
        assert_eq!((is_available(&service), time(&service)), (false, 1));
        set(&mut service, &failed("FailedDiscoveryCheck", "x".to_owned()), at(2));
        assert_eq!(time(&service), 1);
        assert_eq!(available(&service).unwrap().reason.as_deref(), Some("FailedDiscoveryCheck"));
        set(&mut service, &passed(), at(3));
        assert_eq!((is_available(&service), time(&service)), (true, 3));
        let before = service.clone();
        set(&mut service, &passed(), at(4));
        assert_eq!(service, before);
    }
}
