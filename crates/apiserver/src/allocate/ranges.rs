//! The ranges of cluster IPs that ServiceCIDRs add to the server's own.

use api::Kind;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;

use crate::cache::{Cache, Filter};

/// The ranges of the same family as `own` that are ready, and are not being deleted, in order of
/// their objects' names. Only read when `own` does not have what is wanted.
pub fn further(cache: &Cache, own: &IpNet) -> Vec<IpNet> {
    let all = cache.resource(ServiceCIDR::ROW).list(&Filter::everything(ServiceCIDR::ROW, ""));
    let mut ready: Vec<ServiceCIDR> =
        all.iter().filter_map(|version| ServiceCIDR::decode(&version.json).ok()).collect();
    ready.retain(|one| one.metadata.deletion_timestamp.is_none() && is_ready(one));
    ready.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let ranges = ready.iter().filter_map(|one| one.spec.as_ref()?.cidrs.as_ref()).flatten();
    let ranges = ranges.filter_map(|range| range.parse::<IpNet>().ok());
    ranges.filter(|range| range != own && range.addr().is_ipv4() == own.addr().is_ipv4()).collect()
}

fn is_ready(range: &ServiceCIDR) -> bool {
    let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
