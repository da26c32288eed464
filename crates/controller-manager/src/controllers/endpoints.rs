//! Endpoints, the deprecated predecessor of EndpointSlices, of the services that select pods
//! (`k8s.io/kubernetes/pkg/controller/endpoint`).

use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};

use crate::Error;
use crate::controllers::endpointslice::endpoint::{
    address, address_types, hostname, is_headless, ports, reference, selects_pods,
};
use crate::controllers::endpointslice::trigger_time::{self, TriggerTimes};
use crate::controllers::endpointslice::{HEADLESS, select, services_of};
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_control::is_namespace_terminating;
use crate::machinery::pod_state::is_ready;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OURS: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Maximum number of addresses in one object.
const CAPACITY: usize = 1000;

struct EndpointsController {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    endpoints: Arc<Cache<Endpoints>>,
    trigger_times: TriggerTimes,
}

/// Adds the controller; its keys are services.
pub fn start(wiring: &mut Wiring) {
    let controller = EndpointsController {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("endpoint-controller"),
        services: wiring.cache(),
        pods: wiring.cache(),
        endpoints: wiring.cache(),
        trigger_times: TriggerTimes::default(),
    };
    let of_pods = services_of(wiring.cache());
    wiring.controller(controller).of::<Service>().of::<Endpoints>().maps(of_pods).start();
}

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(Box<Endpoints>),
    Replace(Box<Endpoints>),
    Delete(Box<Endpoints>),
}

/// `existing`: the object with the service's name. `trigger_time`: when the change happened that a
/// write would be about.
fn plan(
    service: Option<&Service>,
    pods: &[Arc<Pod>],
    existing: Option<&Endpoints>,
    trigger_time: Option<String>,
) -> Plan {
    let Some(service) = service else {
        // Only objects of this controller are deleted with their service.
        return match existing {
            Some(endpoints) if is_ours(endpoints) => Plan::Delete(Box::new(endpoints.clone())),
            _ => Plan::Nothing,
        };
    };
    if !selects_pods(service) || is_deleting(&service.metadata) {
        return Plan::Nothing;
    }
    let (subsets, over) = subsets(service, pods);
    let mut wanted = existing.cloned().unwrap_or_default();
    wanted.metadata.name.clone_from(&service.metadata.name);
    wanted.metadata.namespace.clone_from(&service.metadata.namespace);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), OURS.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    wanted.metadata.labels = Some(labels);
    if over {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else if let Some(annotations) = &mut wanted.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    if existing == Some(&wanted) {
        return Plan::Nothing;
    }
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.remove(trigger_time::ANNOTATION);
    annotations.extend(trigger_time.map(|time| (trigger_time::ANNOTATION.to_owned(), time)));
    wanted.metadata.annotations.take_if(|annotations| annotations.is_empty());
    match existing {
        None => Plan::Create(Box::new(wanted)),
        Some(_) => Plan::Replace(Box::new(wanted)),
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(OURS)
}

/// Addresses grouped by ports, and whether some were left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish_all =
        service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let family = address_types(service).remove(0);
    let mut groups: Vec<(Vec<EndpointPort>, EndpointSubset)> = Vec::new();
    let candidates: Vec<_> = pods
        .iter()
        .filter(|pod| !api::pod::is_terminal(pod))
        .filter(|pod| publish_all || !is_deleting(&pod.metadata))
        .filter_map(|pod| Some((pod, address(pod, &family)?)))
        .collect();
    let over = candidates.len() > CAPACITY;
    for (pod, ip) in candidates.into_iter().take(CAPACITY) {
        let ports = subset_ports(service, pod);
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        let index = groups.iter().position(|(of, _)| *of == ports).unwrap_or_else(|| {
            groups.push((ports.clone(), EndpointSubset::default()));
            groups.len() - 1
        });
        let subset = &mut groups[index].1;
        let list = if publish_all || is_ready(pod) {
            subset.addresses.get_or_insert_default()
        } else {
            subset.not_ready_addresses.get_or_insert_default()
        };
        list.push(EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: api::pod::node_name(pod).map(str::to_owned),
            target_ref: Some(reference(pod)),
        });
    }
    let finish = |(ports, mut subset): (Vec<EndpointPort>, EndpointSubset)| {
        let lists = [&mut subset.addresses, &mut subset.not_ready_addresses];
        for list in lists.into_iter().flatten() {
            list.sort_by(|one, other| one.ip.cmp(&other.ip));
        }
        subset.ports = (!ports.is_empty()).then_some(ports);
        subset
    };
    (groups.into_iter().map(finish).collect(), over)
}

fn subset_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let convert = |port: k8s_openapi::api::discovery::v1::EndpointPort| EndpointPort {
        name: port.name.filter(|name| !name.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol,
        app_protocol: port.app_protocol,
    };
    ports(service, pod).into_iter().map(convert).collect()
}

impl Controller for EndpointsController {
    const NAME: &'static str = "endpoints";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let service = self.services.get(key);
        let pods = match &service {
            Some(service) if selects_pods(service) => select(&self.pods, service),
            _ => Vec::new(),
        };
        let existing = self.endpoints.get(key);
        let api = Api::<Endpoints>::namespaced(&self.client, &key.namespace);
        let times = service.as_ref().map(|service| self.trigger_times.next(key, service, &pods));
        let (trigger_time, written) = times.unzip();
        match plan(service.as_deref(), &pods, existing.as_deref(), trigger_time.flatten()) {
            Plan::Nothing => {}
            Plan::Create(endpoints) => match api.create(&endpoints).await {
                Err(error) if is_namespace_terminating(&error) => {}
                outcome => {
                    if let Err(error) = &outcome
                        && !error.is_already_exists()
                    {
                        let message = format!(
                            "Failed to create endpoint for service {}/{}: {error}",
                            key.namespace, key.name
                        );
                        self.recorder.warning(&*endpoints, "FailedToCreateEndpoint", message);
                    }
                    outcome.during(|| format!("create endpoints {key}"))?;
                }
            },
            Plan::Replace(endpoints) => {
                let outcome = api.replace(&endpoints).await;
                if let Err(error) = &outcome
                    && !error.is_conflict()
                {
                    let message = format!(
                        "Failed to update endpoint {}/{}: {error}",
                        key.namespace, key.name
                    );
                    self.recorder.warning(&*endpoints, "FailedToUpdateEndpoint", message);
                }
                outcome.during(|| format!("replace endpoints {key}"))?;
            }
            Plan::Delete(endpoints) => {
                match api.delete_exactly(&endpoints, &DeleteOptions::default()).await {
                    Err(error) if error.is_not_found() => {}
                    outcome => outcome.during(|| format!("delete endpoints {key}"))?,
                }
            }
        }
        match written {
            Some(written) => self.trigger_times.record(key, written),
            None => self.trigger_times.forget(key),
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{pod, service};

    fn pods() -> Vec<Arc<Pod>> {
        vec![
            Arc::new(pod("b").running().ip("10.0.0.2").ready_at(1).on("n").build()),
            Arc::new(pod("a").running().ip("10.0.0.1").ready_at(1).build()),
            Arc::new(pod("c").running().ip("10.0.0.3").build()),
            Arc::new(pod("going").running().ip("10.0.0.4").ready_at(1).deleting().build()),
            Arc::new(pod("done").phase("Succeeded").ip("10.0.0.5").build()),
            Arc::new(pod("no-address").build()),
        ]
    }

    fn ips(list: &Option<Vec<EndpointAddress>>) -> Vec<&str> {
        list.iter().flatten().map(|address| address.ip.as_str()).collect()
    }

    #[test]
    fn ready_and_not_ready_addresses_are_separate() {
        let service = service("web", &[("http", 80, 8080)]);
        let Plan::Create(mut made) = plan(Some(&service), &pods(), None, None) else {
            panic!("must create")
        };
        let subset = &made.subsets.as_ref().unwrap()[0];
        assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(plan(Some(&service), &pods(), Some(&made), Some("now".into())), Plan::Nothing);
        assert_eq!(plan(None, &[], Some(&made), None), Plan::Delete(made.clone()));
        let Plan::Replace(changed) = plan(Some(&service), &[], Some(&made), Some("now".into()))
        else {
            panic!("must replace")
        };
        assert_eq!(changed.metadata.annotations.unwrap()[trigger_time::ANNOTATION], "now");
        made.metadata.labels = None;
        assert_eq!(plan(None, &[], Some(&made), None), Plan::Nothing);
    }

    #[test]
    fn services_without_a_selector_are_ignored() {
        let mut service = service("web", &[("http", 80, 8080)]);
        service.spec.as_mut().unwrap().selector = None;
        assert_eq!(plan(Some(&service), &pods(), None, None), Plan::Nothing);
    }
}
