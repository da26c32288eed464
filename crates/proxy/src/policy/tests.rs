use std::collections::HashMap;

use super::*;
use crate::policy::model::{Peer, Port, Rule};
use crate::policy::ports::PortRange;
use crate::table::Protocol;

const FAMILIES: [Family; 1] = [Family::V4];

fn pod(number: u8, labels: &[(&str, &str)]) -> Pod {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Pod {
        link: Some(LinkName::new(&format!("veth{number}"))),
        ips: vec![[10, 244, 0, number].into()],
        labels: Arc::new(labels.collect()),
        ..Pod::default()
    }
}

fn app(name: &str) -> api::labels::Selector {
    api::labels::Selector::parse(&format!("app={name}")).unwrap()
}

/// Allows TCP port 80 of `app=web` from `app=client`.
fn policy() -> Policy {
    let port = PortRange { protocol: Protocol::Tcp, first: 80, last: 80 };
    let peer = Peer::Pods { namespaces: None, pods: app("client") };
    let rule = Rule { peers: Some(vec![peer]), ports: Some(vec![Port::Range(port)]) };
    Policy { pods: app("web"), ingress: Some(vec![rule]), egress: None }
}

#[derive(Default)]
struct Tables {
    policies: Policies,
    desired: Desired,
}

impl Tables {
    /// The number of changes per map.
    fn replan(&mut self) -> HashMap<&'static str, usize> {
        let mut changes = Changes::new();
        self.policies.replan(&FAMILIES, &mut self.desired, &mut changes);
        let mut counts = HashMap::new();
        for id in changes.keys() {
            *counts.entry(id.map.name()).or_default() += 1;
        }
        counts
    }
}

#[test]
fn a_change_of_a_pod_changes_one_element_per_group() {
    let mut tables = Tables::default();
    let name = |name: &str| Name::from(format!("ns/{name}"));
    let (web, client) = ([("app", "web")], [("app", "client")]);
    for (number, pod_name) in [(1, "web-1"), (2, "web-2")] {
        tables.policies.set_local(&name(pod_name), Some(&pod(number, &web)));
        tables.policies.set_pod(&name(pod_name), Some(&pod(number, &web)));
    }
    assert!(tables.replan().is_empty(), "nothing without policies");
    tables.policies.set_policy(&name("web"), Some(policy()));
    let first = tables.replan();
    let expected = [
        ("guard", 1),
        ("egress-links", 2),
        ("ingress-links", 2),
        ("isolated-links", 2),
        ("policy-ports", 1),
    ];
    assert_eq!(first, expected.into(), "no peers yet");
    for number in 10..20 {
        tables.policies.set_pod(&name(&format!("c-{number}")), Some(&pod(number, &client)));
    }
    assert_eq!(tables.replan(), [("peers", 10)].into(), "one group for both");
    tables.policies.set_pod(&name("c-20"), Some(&pod(20, &client)));
    assert_eq!(tables.replan(), [("peers", 1)].into());
    tables.policies.set_pod(&name("c-20"), Some(&pod(20, &[("app", "other")])));
    assert_eq!(tables.replan(), [("peers", 1)].into());
    tables.policies.set_pod(&name("c-20"), Some(&pod(20, &[("app", "another")])));
    assert!(tables.replan().is_empty(), "selected neither before nor after");
    let elsewhere = Name::from("other/c-10");
    tables.policies.set_pod(&elsewhere, Some(&pod(30, &client)));
    assert!(tables.replan().is_empty(), "another namespace");
    tables.policies.set_policy(&name("web"), Some(policy()));
    assert!(tables.replan().is_empty(), "the same policy");
    tables.policies.set_local(&name("web-1"), None);
    let gone = [("egress-links", 1), ("ingress-links", 1), ("isolated-links", 1)];
    assert_eq!(tables.replan(), gone.into());
    assert_eq!((tables.policies.count(), tables.policies.isolated_count()), (1, 1));
}

#[test]
fn peers_are_forgotten_with_the_last_policy() {
    let mut tables = Tables::default();
    let name = |name: &str| Name::from(format!("ns/{name}"));
    tables.policies.set_local(&name("web"), Some(&pod(1, &[("app", "web")])));
    tables.policies.set_pod(&name("client"), Some(&pod(2, &[("app", "client")])));
    tables.policies.set_policy(&name("web"), Some(policy()));
    tables.replan();
    let connection = |port| Connection {
        source: [10, 244, 0, 2].into(),
        destination: [10, 244, 0, 1].into(),
        protocol: 6,
        port,
    };
    assert!(tables.policies.allows(&connection(80)) && !tables.policies.allows(&connection(81)));
    tables.policies.set_policy(&name("web"), None);
    tables.policies.clear_peers();
    tables.replan();
    assert_eq!(tables.desired.element_count(), 0);
    assert!(tables.policies.allows(&connection(81)));
}
