//! Approves kubelets' serving certificates for the addresses that are the node's and nobody else's.
//! Upstream leaves this to administrators, and managed clusters have it.
//!
//! A kubelet says itself which addresses its node has, so that its word proves nothing against
//! another's. An address that others claim as well, in a node's status or as an external address of a
//! Service, is only approved for the node whose last certificate has it: a claim takes no address
//! away from its owner, and gives none to who makes it. The addresses of the cluster itself, which
//! are those of the apiserver and the cluster IPs of Services, are of no node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::address::{Special, canonical};
use api::certificates::{self, APPROVED, KUBELET_SERVING_SIGNER, Request, kubelet};
use client::{Api, Client};
use clock::SharedClock;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::approve::is_pending;
use super::{add_condition, last_serving, usages};
use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::of_service;
use crate::wire::Wiring;

const NODES: &str = "system:nodes";
/// When a request is looked at again whose node has not reported its addresses yet.
const AGAIN: Duration = Duration::from_secs(10);
const MESSAGE: &str = "Auto approving kubelet serving certificate for the node's own addresses.";

struct Approval {
    client: Client,
    clock: SharedClock,
    known: Known,
}

/// What says whose an address is.
struct Known {
    requests: Arc<Cache<CertificateSigningRequest>>,
    nodes: Arc<Cache<Node>>,
    services: Arc<Cache<Service>>,
    slices: Arc<Cache<EndpointSlice>>,
}

/// Adds the controller; its keys are requests.
pub fn start(wiring: &mut Wiring) {
    let known = Known {
        requests: wiring.cache(),
        nodes: wiring.cache(),
        services: wiring.cache(),
        slices: wiring.cache(),
    };
    let (client, clock) = (wiring.client.clone(), wiring.clock.clone());
    let controller = Approval { client, clock, known };
    wiring.controller(controller).of_present::<CertificateSigningRequest>().start();
}

/// Whose the addresses are that a request is for. All are canonical.
#[derive(Debug, Default, PartialEq)]
struct Observed {
    /// Those that the node says it has.
    own: BTreeSet<IpAddr>,
    /// Those in its last certificate.
    proven: BTreeSet<IpAddr>,
    /// Those that somebody else says to have.
    claimed: BTreeSet<IpAddr>,
    /// Those that are somebody else's for sure: of the cluster, and those that other nodes say they
    /// have and that are in their last certificates.
    taken: BTreeSet<IpAddr>,
}

impl Observed {
    fn may_have(&self, address: IpAddr) -> bool {
        // The same address in another form would be in none of the sets.
        canonical(address) == address
            && Special::of(address).is_none()
            && self.own.contains(&address)
            && !self.taken.contains(&address)
            && (!self.claimed.contains(&address) || self.proven.contains(&address))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Approve,
    /// It is for something that is not known to be the node's.
    Wait(String),
}

/// A pending request of a kubelet for its own node: the node's name, and what is asked for.
fn own_request(request: &CertificateSigningRequest) -> Option<(String, Request)> {
    let spec = &request.spec;
    if spec.signer_name != KUBELET_SERVING_SIGNER || !is_pending(request) {
        return None;
    }
    let parsed = certificates::parse(&spec.request.0).ok()?;
    kubelet::check_serving(&parsed, usages(request)).ok()?;
    let is_node = spec.groups.iter().flatten().any(|group| group == NODES);
    let is_own = spec.username.as_deref() == Some(&parsed.common_name);
    let node = parsed.common_name.strip_prefix(kubelet::USER_PREFIX)?.to_owned();
    (is_node && is_own).then_some((node, parsed))
}

/// The name of a node is its own, whoever says to have it too: no other node asks for it.
fn plan(node: &str, request: &Request, observed: &Observed) -> Plan {
    let name = request.dns_names.iter().find(|name| *name != node || !is_plain(name));
    let address = request.ip_addresses.iter().find(|address| !observed.may_have(**address));
    match (name, address) {
        (Some(name), _) => Plan::Wait(name.clone()),
        (None, Some(address)) => Plan::Wait(address.to_string()),
        (None, None) => Plan::Approve,
    }
}

/// Not a name of the apiserver, of a Service, or of every machine.
fn is_plain(name: &str) -> bool {
    let mut labels = name.split('.');
    !matches!(labels.next(), Some("kubernetes" | "localhost")) && labels.all(|label| label != "svc")
}

fn parsed<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).map(canonical)
}

fn addresses_of(node: &Node) -> BTreeSet<IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    parsed(addresses.into_iter().flatten().map(|address| &address.address)).collect()
}

/// The addresses that the cluster has given a Service.
fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let spec = service.spec.iter();
    parsed(spec.flat_map(|spec| spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten())))
}

/// Those that whoever has made a Service may say that it has.
fn external_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let given = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    parsed(given.chain(ingress.into_iter().flatten().filter_map(|one| one.ip.as_ref())))
}

impl Known {
    fn observe(&self, own: &str, request: &Request) -> Observed {
        let mut observed = Observed::default();
        for node in self.nodes.list() {
            let (name, addresses) = (node.metadata.name.as_deref(), addresses_of(&node));
            if name == Some(own) {
                observed.own = addresses;
            } else if request.ip_addresses.iter().any(|address| addresses.contains(address)) {
                let proven = self.proven(name.unwrap_or_default());
                observed.taken.extend(addresses.intersection(&proven));
                observed.claimed.extend(addresses);
            }
        }
        for service in self.services.list() {
            observed.taken.extend(cluster_ips(&service));
            observed.claimed.extend(external_ips(&service));
        }
        for slice in self.slices.indexed(&of_service("default", "kubernetes")) {
            let endpoints = slice.endpoints.iter().flatten();
            observed.taken.extend(parsed(endpoints.flat_map(|endpoint| &endpoint.addresses)));
        }
        observed.proven = self.proven(own);
        observed
    }

    /// The addresses in a node's last certificate.
    fn proven(&self, node: &str) -> BTreeSet<IpAddr> {
        let requests = self.requests.list();
        let last = last_serving(&requests, &format!("{}{node}", kubelet::USER_PREFIX));
        let request = last.and_then(|last| certificates::parse(&last.spec.request.0).ok());
        request.map(|request| request.ip_addresses.into_iter().collect()).unwrap_or_default()
    }
}

impl Controller for Approval {
    const NAME: &'static str = "kubelet-serving-certificate-approver";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let request = self.known.requests.get(key);
        let own = request.and_then(|it| own_request(&it).map(|own| (it, own)));
        let Some((request, (node, parsed))) = own else {
            return Ok(Next::Change);
        };
        match plan(&node, &parsed, &self.known.observe(&node, &parsed)) {
            Plan::Wait(name) => {
                tracing::debug!(%key, node, name, "not known to be the node's own");
                Ok(Next::After(AGAIN))
            }
            Plan::Approve => {
                let mut approved = (*request).clone();
                let now = self.clock.now();
                add_condition(&mut approved, APPROVED, "AutoApproved", MESSAGE.to_owned(), now);
                Api::<CertificateSigningRequest>::all(&self.client)
                    .replace_approval(&approved)
                    .await
                    .during(|| format!("approve certificatesigningrequest {key}"))?;
                Ok(Next::Change)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, client_request};
    use super::*;
    use crate::machinery::testing::at;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::NodeAddress;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn request(user: &str, name: &str, hosts: &[&str]) -> CertificateSigningRequest {
        let pem = client_request(name, NODES, hosts);
        let mut request = asked(user, KUBELET_SERVING_SIGNER, &pem);
        request.spec.usages = Some(vec!["server auth".into(), "digital signature".into()]);
        request.spec.groups = Some(vec![NODES.to_owned()]);
        request
    }

    #[test]
    fn only_a_node_asks_for_itself() {
        let own = "system:node:a";
        assert_eq!(own_request(&request(own, own, &["a"])).unwrap().0, "a");
        assert_eq!(own_request(&request("system:node:b", own, &["a"])), None);
        let mut forged = request(own, own, &["a"]);
        forged.spec.groups = Some(vec!["people".to_owned()]);
        assert_eq!(own_request(&forged), None);
        assert_eq!(own_request(&request(own, own, &[])), None);
    }

    fn planned(node: &str, hosts: &[&str], observed: &Observed) -> Plan {
        let user = format!("system:node:{node}");
        let (node, parsed) = own_request(&request(&user, &user, hosts)).unwrap();
        plan(&node, &parsed, observed)
    }

    fn wait(name: &str) -> Plan {
        Plan::Wait(name.to_owned())
    }

    #[test]
    fn names_are_the_nodes_own() {
        let nothing = Observed::default();
        assert_eq!(planned("a", &["a"], &nothing), Plan::Approve);
        for name in ["b", "a.example.com", "A"] {
            assert_eq!(planned("a", &[name], &nothing), wait(name));
        }
        for name in
            ["kubernetes.default.svc", "kubernetes", "localhost", "web.default.svc.cluster.local"]
        {
            assert_eq!(planned(name, &[name], &nothing), wait(name));
        }
    }

    #[test]
    fn addresses_are_the_nodes_alone() {
        let address = "10.0.0.1";
        type Names<'a> = &'a [&'a str];
        let table: &[(Names<'_>, Names<'_>, Names<'_>, Names<'_>, bool)] = &[
            // What the node says, its last certificate, what others say, what is others'.
            (&[address], &[], &[], &[], true),
            (&[], &[], &[], &[], false),
            (&[], &[address], &[], &[], false),
            (&[address], &[], &[address], &[], false),
            (&[address], &[address], &[address], &[], true),
            (&[address], &[address], &[address], &[address], false),
            (&[address], &[], &[], &[address], false),
        ];
        for (own, proven, claimed, taken, approved) in table {
            let observed = Observed {
                own: set(own),
                proven: set(proven),
                claimed: set(claimed),
                taken: set(taken),
            };
            let expected = if *approved { Plan::Approve } else { wait(address) };
            assert_eq!(planned("a", &["a", address], &observed), expected, "{observed:?}");
        }
    }

    /// Neither what means another machine to everybody, nor another form of an address.
    #[test]
    fn special_and_mapped_addresses_are_of_no_node() {
        let all = ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1"];
        let mapped = ["::ffff:10.0.0.2", "::ffff:127.0.0.1", "::10.0.0.2"];
        for text in all.into_iter().chain(mapped) {
            let address: IpAddr = text.parse().unwrap();
            let own = BTreeSet::from([address, canonical(address)]);
            let observed = Observed { own, ..Observed::default() };
            assert_eq!(planned("a", &[text], &observed), wait(&address.to_string()));
        }
        let observed = Observed { own: set(&["fd00::1"]), ..Observed::default() };
        assert_eq!(planned("a", &["fd00::1"], &observed), Plan::Approve);
    }

    fn known() -> Known {
        let requests = Arc::new(Cache::new(|_, _| {}));
        let nodes = Arc::new(Cache::new(|_, _| {}));
        let services = Arc::new(Cache::new(|_, _| {}));
        Known { requests, nodes, services, slices: Arc::new(Cache::new(|_, _| {})) }
    }

    impl Known {
        fn node(&self, name: &str, address: &str) {
            let object = serde_json::json!({"metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]}});
            self.nodes.apply(serde_json::from_value(object).unwrap());
        }

        fn issued(&self, node: &str, address: &str, second: i64) {
            let user = format!("system:node:{node}");
            let mut request = request(&user, &user, &[address]);
            request.metadata.name = Some(format!("{node}-{second}"));
            request.metadata.creation_timestamp = Some(Time(at(second)));
            let certificate = ByteString(b"issued".to_vec());
            request.status.get_or_insert_default().certificate = Some(certificate);
            self.requests.apply(request);
        }

        fn asks(&self, node: &str, address: &str) -> Plan {
            let user = format!("system:node:{node}");
            let (node, parsed) = own_request(&request(&user, &user, &[address])).unwrap();
            plan(&node, &parsed, &self.observe(&node, &parsed))
        }
    }

    /// A kubelet that says that its node has the address of another one gains nothing, and does not
    /// keep the other from renewing its certificate.
    #[test]
    fn a_claim_takes_no_address_away() {
        let (known, address) = (known(), "10.0.0.1");
        known.node("a", address);
        assert_eq!(known.asks("a", address), Plan::Approve);
        for claim in [address, "::ffff:10.0.0.1"] {
            known.node("b", claim);
            assert_eq!(known.asks("a", address), wait(address), "nobody has it for sure");
            assert_eq!(known.asks("b", address), wait(address));
        }
        known.issued("a", address, 1);
        assert_eq!(known.asks("a", address), Plan::Approve);
        assert_eq!(known.asks("b", address), wait(address));
        // The address moves on.
        known.node("a", "10.0.0.3");
        assert_eq!(known.asks("b", address), Plan::Approve);
        known.issued("b", address, 2);
        known.node("a", address);
        assert_eq!(known.asks("a", address), wait(address), "both have had it");
        assert_eq!(known.asks("b", address), wait(address));
        known.issued("a", "10.0.0.3", 3);
        assert_eq!(known.asks("b", address), Plan::Approve, "only the last certificate counts");
    }

    #[test]
    fn the_addresses_of_services_are_of_no_node() {
        let known = known();
        let service = serde_json::json!({"metadata": {"name": "s", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "externalIPs": ["10.0.0.1"]}});
        known.services.apply(serde_json::from_value(service).unwrap());
        known.node("a", "10.96.0.1");
        known.issued("a", "10.96.0.1", 1);
        assert_eq!(known.asks("a", "10.96.0.1"), wait("10.96.0.1"));
        known.node("b", "10.0.0.1");
        assert_eq!(known.asks("b", "10.0.0.1"), wait("10.0.0.1"));
        known.issued("b", "10.0.0.1", 1);
        assert_eq!(known.asks("b", "10.0.0.1"), Plan::Approve);
    }

    #[test]
    fn every_form_of_an_address_is_one() {
        let mut node = Node::default();
        let address = |text: &str| NodeAddress { address: text.to_owned(), ..Default::default() };
        let all = ["a", "10.0.0.1", "::ffff:10.0.0.2", "FD00:0::1"].map(address).to_vec();
        node.status.get_or_insert_default().addresses = Some(all);
        assert_eq!(addresses_of(&node), set(&["10.0.0.1", "10.0.0.2", "fd00::1"]));
        let service: Service = serde_json::from_value(serde_json::json!({
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1", "None"],
                "externalIPs": ["::ffff:192.0.2.1"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "x"}]}}}))
        .unwrap();
        let found: BTreeSet<_> = cluster_ips(&service).collect();
        assert_eq!(found, set(&["10.96.0.1", "fd00:96::1"]));
        let found: BTreeSet<_> = external_ips(&service).collect();
        assert_eq!(found, set(&["192.0.2.1", "192.0.2.2"]));
    }
}
