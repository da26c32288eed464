//! Approves kubelets' serving certificates for the addresses that are the node's and nobody else's.
//! Upstream leaves this to administrators, and managed clusters have it.
//!
//! A kubelet says itself which addresses its node has. So they count only as long as nobody else
//! has them: another node, or the apiserver, whose certificates the same authority signs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::certificates::{self, APPROVED, KUBELET_SERVING_SIGNER, Request, kubelet};
use client::{Api, Client};
use clock::SharedClock;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::approve::is_pending;
use super::{add_condition, usages};
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
    requests: Arc<Cache<CertificateSigningRequest>>,
    nodes: Arc<Cache<Node>>,
    slices: Arc<Cache<EndpointSlice>>,
}

/// Adds the controller; its keys are requests.
pub fn start(wiring: &mut Wiring) {
    let controller = Approval {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        requests: wiring.cache(),
        nodes: wiring.cache(),
        slices: wiring.cache(),
    };
    wiring.controller(controller).of_present::<CertificateSigningRequest>().start();
}

/// What a request may be for.
#[derive(Debug, Default, PartialEq)]
struct Observed {
    /// The node's own name and addresses.
    own: BTreeSet<String>,
    /// Those of other nodes and of the apiserver.
    others: BTreeSet<String>,
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

fn plan(node: &str, request: &Request, observed: &Observed) -> Plan {
    let names =
        request.dns_names.iter().map(|name| (name.to_lowercase(), name == node && is_plain(name)));
    let addresses = request.ip_addresses.iter().map(|address| {
        let text = address.to_string();
        let known = observed.own.contains(&text) && is_of_a_machine(*address);
        (text, known)
    });
    for (text, known) in names.chain(addresses) {
        if !known || observed.others.contains(&text) {
            return Plan::Wait(text);
        }
    }
    Plan::Approve
}

/// Not a name of the apiserver, of a Service, or of every machine.
fn is_plain(name: &str) -> bool {
    let mut labels = name.split('.');
    !matches!(labels.next(), Some("kubernetes" | "localhost")) && labels.all(|label| label != "svc")
}

fn is_of_a_machine(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

fn names_of(node: &Node) -> impl Iterator<Item = String> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let addresses = addresses.into_iter().flatten().map(|address| {
        // One spelling of each address.
        let parsed = address.address.parse::<IpAddr>();
        parsed.map_or_else(|_| address.address.to_lowercase(), |parsed| parsed.to_string())
    });
    node.metadata.name.clone().into_iter().chain(addresses)
}

impl Approval {
    fn observe(&self, own: &str) -> Observed {
        let mut observed = Observed::default();
        for node in self.nodes.list() {
            let is_own = node.metadata.name.as_deref() == Some(own);
            let all = if is_own { &mut observed.own } else { &mut observed.others };
            all.extend(names_of(&node));
        }
        for slice in self.slices.indexed(&of_service("default", "kubernetes")) {
            let addresses =
                slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            observed.others.extend(addresses.cloned());
        }
        observed
    }
}

impl Controller for Approval {
    const NAME: &'static str = "kubelet-serving-certificate-approver";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let request = self.requests.get(key);
        let own = request.and_then(|it| own_request(&it).map(|own| (it, own)));
        let Some((request, (node, parsed))) = own else {
            return Ok(Next::Change);
        };
        match plan(&node, &parsed, &self.observe(&node)) {
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

    fn observed(own: &[&str], others: &[&str]) -> Observed {
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Observed { own: set(own), others: set(others) }
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

    #[test]
    fn names_and_addresses_must_be_the_nodes_alone() {
        let check = |node: &str, hosts: &[&str], observed: &Observed| {
            let user = format!("system:node:{node}");
            let (node, parsed) = own_request(&request(&user, &user, hosts)).unwrap();
            plan(&node, &parsed, observed)
        };
        let wait = |name: &str| Plan::Wait(name.to_owned());
        let nodes = observed(&["a", "10.0.0.1", "fd00::1"], &["b", "10.0.0.2"]);
        assert_eq!(check("a", &["a", "10.0.0.1", "fd00::1"], &nodes), Plan::Approve);
        assert_eq!(check("a", &["a", "10.0.0.3"], &nodes), wait("10.0.0.3"));
        assert_eq!(check("a", &["b"], &nodes), wait("b"));
        assert_eq!(check("a", &["a.example.com"], &nodes), wait("a.example.com"));
        // What a kubelet only claims.
        let claimed = observed(&["a", "10.0.0.2", "127.0.0.1"], &["b", "10.0.0.2"]);
        assert_eq!(check("a", &["10.0.0.2"], &claimed), wait("10.0.0.2"));
        assert_eq!(check("a", &["127.0.0.1"], &claimed), wait("127.0.0.1"));
        for name in
            ["kubernetes.default.svc", "kubernetes", "localhost", "web.default.svc.cluster.local"]
        {
            assert_eq!(check(name, &[name], &observed(&[name], &[])), wait(name));
        }
    }
}
