//! What caused the latest change of a service's endpoints, and when: the earliest of the changes
//! that were not written yet. Consumers measure with it how long the network takes to follow
//! (`k8s.io/endpointslice/trigger_time_tracker.go`).

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::Mutex;

use crate::machinery::cache::Key;

/// The annotation on Endpoints and EndpointSlices.
pub const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The times of a service and its pods when its endpoints were last written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

/// What was written, by service.
#[derive(Debug, Default)]
pub struct TriggerTimes(Mutex<HashMap<Key, Written>>);

impl TriggerTimes {
    /// The value of the annotation for the next write, and what to record once it succeeded.
    pub fn next(
        &self,
        key: &Key,
        service: &Service,
        pods: &[Arc<Pod>],
    ) -> (Option<String>, Written) {
        let now = observe(service, pods);
        let known = self.0.lock();
        let time = match known.get(key) {
            None => now.service,
            Some(before) => {
                let changed = |name: &String, time: &Timestamp| before.pods.get(name) < Some(time);
                let pods = now.pods.iter().filter(|(name, time)| changed(name, time));
                let service = now.service.filter(|time| before.service < Some(*time));
                pods.map(|(_, time)| *time).chain(service).min()
            }
        };
        (time.map(|time| time.to_string()), now)
    }

    pub fn record(&self, key: &Key, written: Written) {
        self.0.lock().insert(key.clone(), written);
    }

    /// Forgets a service that is gone.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

fn observe(service: &Service, pods: &[Arc<Pod>]) -> Written {
    let pod_time = |pod: &Arc<Pod>| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
        Some((pod.metadata.name.clone()?, ready.last_transition_time.as_ref()?.0))
    };
    Written {
        service: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
        pods: pods.iter().filter_map(pod_time).collect(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::machinery::testing::{at, pod, service};

    #[test]
    fn the_earliest_change_since_the_last_write_counts() {
        let (times, key) = (TriggerTimes::default(), Key::new("ns", "web"));
        let mut web = service("web", &[("http", 80, 8080)]);
        web.metadata.creation_timestamp = Some(Time(at(5)));
        let pods = |ready: &[(&str, i64)]| -> Vec<Arc<Pod>> {
            let pods = ready.iter();
            pods.map(|(name, second)| Arc::new(pod(name).ready_at(*second).build())).collect()
        };
        let (first, written) = times.next(&key, &web, &pods(&[("a", 9)]));
        assert_eq!(first.as_deref(), Some("1970-01-01T00:00:05Z"), "a new service");
        times.record(&key, written);
        assert_eq!(times.next(&key, &web, &pods(&[("a", 9)])).0, None, "nothing changed");
        let changed = pods(&[("a", 30), ("b", 20), ("c", 25)]);
        let next = || times.next(&key, &web, &changed);
        assert_eq!(next().0.as_deref(), Some("1970-01-01T00:00:20Z"));
        assert_eq!(next().0.as_deref(), Some("1970-01-01T00:00:20Z"), "it was not written");
        times.record(&key, next().1);
        assert_eq!(next().0, None);
        times.forget(&key);
        assert_eq!(next().0.as_deref(), Some("1970-01-01T00:00:05Z"));
    }
}
