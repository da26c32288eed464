//! What NetworkPolicies mean, read directly from the objects as the API documents it: slow, and
//! without a line of the proxy's own evaluation. Also generates worlds to compare with.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

pub type Labels = BTreeMap<String, String>;

/// A cluster as the API shows it.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub namespaces: BTreeMap<String, Labels>,
    /// By `namespace/name`.
    pub pods: BTreeMap<String, Pod>,
    pub policies: BTreeMap<String, NetworkPolicy>,
}

/// A connection to judge.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// `TCP`, `UDP`, `SCTP`, or another protocol, which no port matches.
    pub protocol: &'a str,
    pub port: u16,
}

pub fn ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    ips.map(|ip| ip.ip.parse().unwrap()).collect()
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut equal = equal.map(|(key, value)| labels.get(key) == Some(value));
    let mut expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let found = labels.get(&expression.key);
        let listed =
            found.is_some_and(|value| expression.values.iter().flatten().any(|one| one == value));
        match expression.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            other => panic!("{other}"),
        }
    });
    equal.all(|holds| holds) && expressions.all(|holds| holds)
}

impl World {
    fn at(&self, ip: IpAddr) -> Option<(&str, &Pod)> {
        let mut pods = self.pods.iter();
        let (name, pod) = pods.find(|(_, pod)| ips(pod).contains(&ip) && !host_network(pod))?;
        Some((name.split('/').next().unwrap(), pod))
    }

    /// Whether all policies together allow the connection.
    pub fn allows(&self, attempt: &Attempt<'_>) -> bool {
        let (from, to) = (self.at(attempt.source), self.at(attempt.destination));
        if attempt.source == attempt.destination {
            return true;
        }
        let egress = from.is_none_or(|own| self.direction("Egress", own, to, attempt));
        let ingress = to.is_none_or(|own| self.direction("Ingress", own, from, attempt));
        egress && ingress
    }

    fn direction(
        &self,
        direction: &str,
        (namespace, pod): (&str, &Pod),
        other: Option<(&str, &Pod)>,
        attempt: &Attempt<'_>,
    ) -> bool {
        let none = Labels::new();
        let mut isolated = false;
        for policy in self.policies.values() {
            let spec = policy.spec.as_ref().unwrap();
            let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
            let types = spec.policy_types.as_ref().unwrap();
            if policy.metadata.namespace.as_deref() != Some(namespace)
                || !types.iter().any(|one| one == direction)
                || !selects(spec.pod_selector.as_ref().unwrap(), labels)
            {
                continue;
            }
            isolated = true;
            let (ingress, egress) = (spec.ingress.iter().flatten(), spec.egress.iter().flatten());
            let rules: Vec<_> = match direction {
                "Ingress" => ingress.map(|rule| (&rule.from, &rule.ports)).collect(),
                _ => egress.map(|rule| (&rule.to, &rule.ports)).collect(),
            };
            let (ip, target) = match direction {
                "Ingress" => (attempt.source, Some(pod)),
                _ => (attempt.destination, other.map(|(_, pod)| pod)),
            };
            for (peers, ports) in rules {
                let peers = peers.as_deref().unwrap_or_default();
                let ports = ports.as_deref().unwrap_or_default();
                let peer = |peer: &NetworkPolicyPeer| self.is_peer(peer, namespace, other, ip);
                let port = |port: &NetworkPolicyPort| is_port(port, target, attempt);
                if (peers.is_empty() || peers.iter().any(peer))
                    && (ports.is_empty() || ports.iter().any(port))
                {
                    return true;
                }
            }
        }
        !isolated
    }

    fn is_peer(
        &self,
        peer: &NetworkPolicyPeer,
        own_namespace: &str,
        other: Option<(&str, &Pod)>,
        ip: IpAddr,
    ) -> bool {
        if let Some(block) = &peer.ip_block {
            let inside = |text: &String| text.parse::<IpNet>().unwrap().contains(&ip);
            return inside(&block.cidr) && !block.except.iter().flatten().any(inside);
        }
        let Some((namespace, pod)) = other else {
            return false;
        };
        let none = Labels::new();
        let in_namespace = match &peer.namespace_selector {
            None => namespace == own_namespace,
            Some(selector) => {
                self.namespaces.get(namespace).is_some_and(|labels| selects(selector, labels))
            }
        };
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        in_namespace && peer.pod_selector.as_ref().is_none_or(|pods| selects(pods, labels))
    }
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

fn is_port(port: &NetworkPolicyPort, target: Option<&Pod>, attempt: &Attempt<'_>) -> bool {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    if protocol != attempt.protocol {
        return false;
    }
    let attempted = i32::from(attempt.port);
    match &port.port {
        None => true,
        Some(IntOrString::Int(first)) => {
            (*first..=port.end_port.unwrap_or(*first)).contains(&attempted)
        }
        Some(IntOrString::String(name)) => {
            let containers =
                target.into_iter().flat_map(|pod| &pod.spec.as_ref().unwrap().containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.any(|one| {
                one.name.as_deref() == Some(name.as_str())
                    && one.protocol.as_deref().unwrap_or("TCP") == protocol
                    && one.container_port == attempted
            })
        }
    }
}

/// A small generator of pseudorandom numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Up to `most` values.
    fn some<T>(&mut self, most: usize, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    pub fn labels(&mut self) -> Value {
        json!({
            "pod": self.pick(&["a", "b", "c"]),
            "tier": self.pick(&["front", "back"]),
        })
    }

    fn selector(&mut self, keys: &[(&str, &[&str])]) -> Value {
        let (key, values) = *self.pick(keys);
        match self.below(6) {
            0 => json!({}),
            1 | 2 => json!({"matchLabels": {key: self.pick(values)}}),
            3 => {
                json!({"matchExpressions": [{"key": key, "operator": "In", "values": values[..2]}]})
            }
            4 => json!({"matchExpressions": [
                {"key": key, "operator": "NotIn", "values": [self.pick(values)]}
            ]}),
            _ => json!({"matchExpressions": [
                {"key": key, "operator": self.pick(&["Exists", "DoesNotExist"])}
            ]}),
        }
    }

    fn pod_selector(&mut self) -> Value {
        self.selector(&[("pod", &["a", "b", "c"]), ("tier", &["front", "back"])])
    }

    /// Blocks overlap, begin and end inside each other, and cover pods of both nodes and others.
    fn block(&mut self) -> Value {
        let (cidr, except) = *self.pick(&[
            ("0.0.0.0/0", &["10.244.0.0/16", "10.244.1.0/30", "192.168.7.1/32"][..]),
            ("10.244.0.0/16", &["10.244.0.0/24", "10.244.1.1/32", "10.244.0.2/31"][..]),
            ("10.244.0.0/24", &["10.244.0.0/30", "10.244.0.3/32", "10.244.0.4/32"][..]),
            ("10.244.1.2/31", &["10.244.1.3/32"][..]),
            ("192.168.7.0/24", &["192.168.7.1/32"][..]),
            ("::/0", &["fd00:244::1:0/112", "fd00:244::1/128"][..]),
            ("fd00:244::/112", &["fd00:244::2/127"][..]),
        ]);
        let except: Vec<&str> = except.iter().copied().filter(|_| self.below(2) == 0).collect();
        json!({"ipBlock": {"cidr": cidr, "except": except}})
    }

    fn peer(&mut self) -> Value {
        let namespaces: [(&str, &[&str]); 2] =
            [("kubernetes.io/metadata.name", &["x", "y", "z"]), ("team", &["red", "blue"])];
        match self.below(4) {
            0 => json!({"podSelector": self.pod_selector()}),
            1 => json!({"namespaceSelector": self.selector(&namespaces)}),
            2 => json!({
                "namespaceSelector": self.selector(&namespaces),
                "podSelector": self.pod_selector()
            }),
            _ => self.block(),
        }
    }

    fn port(&mut self) -> Value {
        let protocol = *self.pick(&["TCP", "UDP", "SCTP"]);
        match self.below(6) {
            0 => json!({"protocol": protocol}),
            1 => json!({"protocol": protocol, "port": self.pick(&["http", "other"])}),
            2 => json!({"protocol": protocol, "port": 8000, "endPort": self.pick(&[8080, 9000])}),
            3 => json!({"port": self.pick(&[8080, 8081])}),
            _ => json!({"protocol": protocol, "port": self.pick(&[8080, 8081])}),
        }
    }

    fn rule(&mut self, peers: &str) -> Value {
        json!({peers: self.some(3, Self::peer), "ports": self.some(3, Self::port)})
    }

    pub fn policy(&mut self, name: &str) -> NetworkPolicy {
        let (namespace, name) = name.split_once('/').unwrap();
        let types = *self.pick(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
        decode(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "podSelector": self.pod_selector(),
                "policyTypes": types,
                "ingress": self.some(3, |random| random.rule("from")),
                "egress": self.some(3, |random| random.rule("to")),
            }
        }))
    }

    pub fn namespace(&mut self, name: &str) -> Labels {
        let mut labels: Labels =
            [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into();
        if self.below(3) > 0 {
            labels.insert("team".into(), (*self.pick(&["red", "blue"])).into());
        }
        labels
    }

    /// A pod with the `number`th address of its node.
    pub fn pod(&mut self, name: &str, node: usize, number: usize) -> Pod {
        let (namespace, name) = name.split_once('/').unwrap();
        // Names resolve to another port on every other pod.
        let http = 8080 + number % 2;
        decode(json!({
            "metadata": {
                "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}-{node}"),
                "labels": self.labels(),
            },
            "spec": {"nodeName": format!("node-{node}"), "containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": http},
                {"name": "http-udp", "containerPort": 8080, "protocol": "UDP"},
                {"name": "other", "containerPort": 8081, "protocol": "UDP"},
            ]}]},
            "status": {"phase": "Running", "podIPs": [
                {"ip": format!("10.244.{node}.{number}")},
                {"ip": format!("fd00:244::{node}:{number}")},
            ]}
        }))
    }
}

/// Decodes an object without instantiating a decoder here.
pub fn decode<K: api::Kind>(object: Value) -> K {
    K::decode(object.to_string().as_bytes()).unwrap()
}
