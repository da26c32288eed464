//! Protects the ranges of cluster IPs while addresses of theirs are in use, and says which are ready
//! (`k8s.io/kubernetes/pkg/controller/servicecidrs`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{is_deleting, patch_finalizers};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Time in which every apiserver learns that a range is being deleted, and allocates no more of it.
const DELETION_GRACE: Duration = Duration::from_secs(10);
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

struct ServiceCidrs {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    ranges: Arc<Cache<ServiceCIDR>>,
    addresses: Arc<Cache<IPAddress>>,
}

/// Adds the controller; its keys are ServiceCIDRs.
pub fn start(wiring: &mut Wiring) {
    let controller = ServiceCidrs {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("service-cidr-controller"),
        clock: wiring.clock.clone(),
        ranges: wiring.cache(),
        addresses: wiring.cache(),
    };
    let ranges = wiring.cache::<ServiceCIDR>();
    let waiting = move || ranges.keys(|range| is_deleting(&range.metadata));
    let waiting_for_address = waiting.clone();
    wiring
        .controller(controller)
        .of::<ServiceCIDR>()
        // A range that comes or goes may free one that overlaps it.
        .maps(
            move |change: &Change<ServiceCIDR>| {
                if change.sides().count() == 1 { waiting() } else { Vec::new() }
            },
        )
        // Only a range that is to be deleted cares about addresses that go.
        .maps(
            move |change: &Change<IPAddress>| {
                if change.new.is_none() { waiting_for_address() } else { Vec::new() }
            },
        )
        .start();
}

/// What is to be done about a range.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// It should have these finalizers.
    Finalizers(Vec<String>),
    /// It should have this condition `Ready`: status, reason, message.
    Ready(&'static str, &'static str, &'static str),
    /// It can be deleted after this time.
    Wait(Duration),
}

fn plan(
    range: &ServiceCIDR,
    others: &[Arc<ServiceCIDR>],
    addresses: &[IpAddr],
    now: Timestamp,
) -> Plan {
    let finalizers = range.metadata.finalizers.clone().unwrap_or_default();
    let protected = finalizers.iter().any(|one| one == FINALIZER);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        if !protected {
            return Plan::Finalizers([finalizers, vec![FINALIZER.to_owned()]].concat());
        }
        return ready(range, "True", "", "Kubernetes Service CIDR is ready");
    };
    if !protected {
        return Plan::Nothing;
    }
    if is_needed(range, others, addresses) {
        return ready(range, "False", "Terminating", IN_USE);
    }
    let since = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    if since < DELETION_GRACE {
        return Plan::Wait(DELETION_GRACE - since);
    }
    Plan::Finalizers(finalizers.into_iter().filter(|one| one != FINALIZER).collect())
}

fn ready(
    range: &ServiceCIDR,
    status: &'static str,
    reason: &'static str,
    message: &'static str,
) -> Plan {
    let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same = |one: &Condition| {
        (one.type_.as_str(), one.status.as_str(), one.reason.as_str()) == ("Ready", status, reason)
    };
    if conditions.into_iter().any(same) {
        return Plan::Nothing;
    }
    Plan::Ready(status, reason, message)
}

/// Whether an address of the range would be in no other one.
fn is_needed(range: &ServiceCIDR, others: &[Arc<ServiceCIDR>], addresses: &[IpAddr]) -> bool {
    let own = nets(range);
    let others: Vec<IpNet> = others
        .iter()
        .filter(|other| other.metadata.uid != range.metadata.uid)
        .flat_map(|other| nets(other))
        .collect();
    if own.iter().all(|net| others.iter().any(|other| other.contains(net))) {
        return false;
    }
    let orphaned = |address: &IpAddr| {
        own.iter().any(|net| net.contains(address))
            && !others.iter().any(|net| net.contains(address))
    };
    addresses.iter().any(orphaned)
}

fn nets(range: &ServiceCIDR) -> Vec<IpNet> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The address, if the allocator of the apiserver has made it.
fn allocated(address: &IPAddress) -> Option<IpAddr> {
    let labels = address.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).filter(|by| *by == ALLOCATOR)?;
    address.metadata.name.as_deref()?.parse().ok()
}

impl Controller for ServiceCidrs {
    const NAME: &'static str = "service-cidr";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(range) = self.ranges.get(key) else {
            return Ok(Next::Change);
        };
        let addresses: Vec<IpAddr> = match is_deleting(&range.metadata) {
            true => self.addresses.list().iter().filter_map(|one| allocated(one)).collect(),
            false => Vec::new(),
        };
        let now = self.clock.now();
        match plan(&range, &self.ranges.list(), &addresses, now) {
            Plan::Nothing => {}
            Plan::Wait(time) => return Ok(Next::After(time)),
            Plan::Finalizers(finalizers) => {
                patch_finalizers::<ServiceCIDR>(&self.client, &range.metadata, finalizers)
                    .await
                    .during(|| format!("protect servicecidr {key}"))?;
            }
            Plan::Ready(status, reason, message) => {
                let set = |range: &mut _| set_ready(range, (status, reason, message), now);
                let written = status::update(&self.client, &*range, set).await;
                if written.is_err() {
                    let message = "The ServiceCIDR Status can not be set to Ready=True";
                    self.recorder.warning(&*range, "KubernetesServiceCIDRError", message);
                }
                written?;
            }
        }
        Ok(Next::Change)
    }
}

fn set_ready(
    range: &mut ServiceCIDR,
    (status, reason, message): (&str, &str, &str),
    now: Timestamp,
) {
    let conditions = &mut range.status.get_or_insert_default().conditions;
    let conditions = conditions.get_or_insert_default();
    let before = conditions.iter().find(|one| one.type_ == "Ready" && one.status == status);
    let since = before.map_or(Time(now), |before| before.last_transition_time.clone());
    conditions.retain(|one| one.type_ != "Ready");
    conditions.push(Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::at;

    fn range(name: &str, cidr: &str, protected: bool, deleted: Option<i64>) -> ServiceCIDR {
        let mut range = ServiceCIDR::default();
        range.metadata.name = Some(name.to_owned());
        range.metadata.uid = Some(name.to_owned());
        range.metadata.finalizers = protected.then(|| vec![FINALIZER.to_owned()]);
        range.metadata.deletion_timestamp = deleted.map(|second| Time(at(second)));
        range.spec.get_or_insert_default().cidrs = Some(vec![cidr.to_owned()]);
        range
    }

    fn planned(range: &ServiceCIDR, others: &[ServiceCIDR], addresses: &[&str], now: i64) -> Plan {
        let mut all: Vec<Arc<ServiceCIDR>> = others.iter().cloned().map(Arc::new).collect();
        all.push(Arc::new(range.clone()));
        let addresses: Vec<IpAddr> = addresses.iter().map(|one| one.parse().unwrap()).collect();
        plan(range, &all, &addresses, at(now))
    }

    #[test]
    fn a_range_is_protected_then_ready() {
        let new = range("a", "10.0.0.0/24", false, None);
        assert_eq!(planned(&new, &[], &[], 0), Plan::Finalizers(vec![FINALIZER.into()]));
        let mut protected = range("a", "10.0.0.0/24", true, None);
        let Plan::Ready("True", reason, message) = planned(&protected, &[], &[], 0) else {
            panic!("not ready");
        };
        set_ready(&mut protected, ("True", reason, message), at(0));
        assert_eq!(planned(&protected, &[], &[], 1), Plan::Nothing);
    }

    #[test]
    fn a_range_stays_while_its_addresses_are_in_use_and_in_no_other_range() {
        let mut gone = range("a", "10.0.0.0/24", true, Some(0));
        let used = &["10.0.0.9", "10.1.0.9"];
        let refused = Plan::Ready("False", "Terminating", IN_USE);
        assert_eq!(planned(&gone, &[], used, 60), refused);
        let apart = range("b", "10.1.0.0/24", true, None);
        assert_eq!(planned(&gone, std::slice::from_ref(&apart), used, 60), refused);
        set_ready(&mut gone, ("False", "Terminating", IN_USE), at(60));
        assert_eq!(planned(&gone, &[], used, 61), Plan::Nothing);
        let larger = range("c", "10.0.0.0/16", true, None);
        assert_eq!(planned(&gone, &[larger], used, 60), Plan::Finalizers(vec![]));
        let part = range("d", "10.0.0.8/29", true, None);
        assert_eq!(planned(&gone, &[part], used, 60), Plan::Finalizers(vec![]));
        assert_eq!(planned(&gone, &[apart], &used[1..], 4), Plan::Wait(Duration::from_secs(6)));
        gone.metadata.finalizers = None;
        assert_eq!(planned(&gone, &[], used, 60), Plan::Nothing);
    }
}
