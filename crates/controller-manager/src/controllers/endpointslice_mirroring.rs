//! EndpointSlices that mirror the Endpoints of services without a selector
//! (`k8s.io/kubernetes/pkg/controller/endpointslicemirroring`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use crate::Error;
use crate::controllers::endpointslice::endpoint::is_of_type;
use crate::controllers::endpointslice::pack::{self, Common, Group, pack};
use crate::controllers::endpointslice::write::SliceWriter;
use crate::controllers::endpointslice::{
    MANAGED_BY, SERVICE_NAME, is_managed_by, services_of_slice,
};
use crate::machinery::cache::{Cache, Key};
use crate::machinery::owner::{self, is_deleting};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::of_service;
use crate::wire::Wiring;

const OURS: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not copied to the slices.
const EXCLUDED_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "endpoints.kubernetes.io/over-capacity",
];
/// Maximum number of mirrored endpoints of one subset, and in one slice.
const SUBSET_MAX: usize = 1000;

struct Mirroring {
    services: Arc<Cache<Service>>,
    endpoints: Arc<Cache<Endpoints>>,
    slices: Arc<Cache<EndpointSlice>>,
    writer: SliceWriter,
}

/// Adds the controller; its keys are Endpoints.
pub fn start(wiring: &mut Wiring) {
    let controller = Mirroring {
        services: wiring.cache(),
        endpoints: wiring.cache(),
        slices: wiring.cache(),
        writer: SliceWriter::new(wiring.client.clone(), wiring.cache()),
    };
    wiring
        .controller(controller)
        .of::<Endpoints>()
        .of::<Service>()
        .maps(|change| services_of_slice(change, OURS))
        .start();
}

/// Whether these Endpoints of this service are mirrored.
fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let metadata = &endpoints.metadata;
    let labels = metadata.labels.as_ref();
    let skip = labels.and_then(|labels| labels.get(SKIP)).is_some_and(|value| value == "true");
    let elects =
        metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    let without_selector = service
        .and_then(|service| service.spec.as_ref())
        .is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty));
    !skip && !elects && without_selector && !is_deleting(metadata)
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let convert = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        };
        let ports: Vec<_> = subset.ports.iter().flatten().map(convert).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten();
        let all = ready.chain(not_ready.map(|address| (address, false)));
        for (address, ready) in all.take(SUBSET_MAX) {
            let types = ["IPv4", "IPv6"];
            if let Some(type_) = types.iter().find(|type_| is_of_type(&address.ip, type_)) {
                pack::add(&mut groups, type_, ports.clone(), endpoint(address, ready));
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn common(endpoints: &Endpoints) -> Common {
    let metadata = &endpoints.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let mut labels = metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), OURS.into());
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !EXCLUDED_ANNOTATIONS.contains(&key.as_str()));
    Common {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        prefix: name,
        labels,
        annotations,
        trigger_time: None,
        owner: owner::reference(endpoints),
    }
}

impl Controller for Mirroring {
    const NAME: &'static str = "endpointslicemirroring";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let expectations_met = self.writer.expectations.satisfied(key);
        if !expectations_met {
            return Ok(Next::Change);
        }
        let mut existing = self.slices.indexed(&of_service(&key.namespace, &key.name));
        existing.retain(|slice| is_managed_by(slice, OURS) && !is_deleting(&slice.metadata));
        let service = self.services.get(key);
        let endpoints = self.endpoints.get(key);
        let mirrored = endpoints.filter(|endpoints| is_mirrored(endpoints, service.as_deref()));
        let plan = match mirrored {
            None => pack::Plan { delete: existing, ..Default::default() },
            Some(endpoints) => {
                pack(&existing, &groups(&endpoints), &common(&endpoints), SUBSET_MAX)
            }
        };
        self.writer.apply(key, plan).await?;
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::service;
    use k8s_openapi::api::core::v1::EndpointSubset;

    #[test]
    fn only_selectorless_services_are_mirrored() {
        let mut of = service("web", &[("http", 80, 8080)]);
        let mut endpoints = Endpoints::default();
        assert!(!is_mirrored(&endpoints, Some(&of)));
        assert!(!is_mirrored(&endpoints, None));
        of.spec.as_mut().unwrap().selector = None;
        assert!(is_mirrored(&endpoints, Some(&of)));
        endpoints.metadata.labels = Some([(SKIP.to_owned(), "true".to_owned())].into());
        assert!(!is_mirrored(&endpoints, Some(&of)));
    }

    #[test]
    fn addresses_are_grouped_by_family() {
        let address = |ip: &str| EndpointAddress { ip: ip.into(), ..Default::default() };
        let endpoints = Endpoints {
            subsets: Some(vec![EndpointSubset {
                addresses: Some(vec![address("10.0.0.1"), address("fd00::1")]),
                not_ready_addresses: Some(vec![address("10.0.0.2")]),
                ports: None,
            }]),
            ..Default::default()
        };
        let groups = groups(&endpoints);
        let shape: Vec<_> = groups
            .iter()
            .map(|group| (group.address_type.as_str(), group.endpoints.len()))
            .collect();
        assert_eq!(shape, [("IPv4", 2), ("IPv6", 1)]);
        let conditions = groups[0].endpoints[1].conditions.as_ref().unwrap();
        assert_eq!(conditions.ready, Some(false));
    }
}
