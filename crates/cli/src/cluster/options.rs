//! The options of `skiff up`, and the addresses that follow from them. Pure data: nothing here
//! reads or changes the machine, but for the files that flags name.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Longest cluster name: the machine's link is called `sk-<name>`, and a link's name has at
/// most 15 characters.
pub const NAME_MAX: usize = 12;
/// Maximum number of nodes.
pub const NODES_MAX: u8 = 64;
/// The port of the apiserver, on the gateway address of the node subnet.
pub const API_PORT: u16 = 6443;
/// The first node's address is the subnet's base plus this.
const FIRST_NODE_OFFSET: u32 = 11;

/// The number of addresses of the default pool for load balancers: a power of two.
const POOL_DEFAULT: u32 = 64;

/// What stores the cluster's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// The apiserver's own etcd v3 store, in its process.
    Embedded,
    /// A real etcd, started and supervised with the other processes.
    Etcd,
}

/// Whose addresses Services of type LoadBalancer get, unless an annotation says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BalancerAddresses {
    /// Addresses of a pool, which the nodes announce.
    #[default]
    Pool,
    /// The nodes' own.
    Nodes,
    /// None: another implementation is going to be installed.
    None,
}

/// Labels that a node is registered with.
pub type NodeLabels = BTreeMap<String, String>;

/// The contents of a file that a flag names.
fn contents(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Parses `NODE:KEY=VALUE,KEY=VALUE`.
fn labels_of_node(text: &str) -> Result<(String, NodeLabels), String> {
    let (node, list) = text.split_once(':').ok_or("expected NODE:KEY=VALUE")?;
    let label = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let mut problems = api::names::qualified_name(key);
        problems.extend(api::names::label_value(value));
        match problems.into_iter().next() {
            Some(problem) => Err(format!("{text:?}: {problem}")),
            None => Ok((key.to_owned(), value.to_owned())),
        }
    };
    let labels: Result<NodeLabels, String> = list.split(',').map(label).collect();
    Ok((node.to_owned(), labels?))
}

/// The components that take flags of `--extra-config`.
const CONFIGURABLE: [&str; 6] =
    ["apiserver", "scheduler", "controller-manager", "kubelet", "proxy", "dns"];

/// A flag of a component beside those that `skiff up` gives it, in the place of one of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFlag {
    pub component: String,
    /// Without dashes.
    pub flag: String,
    /// `None` for a flag that has none.
    pub value: Option<String>,
}

impl ExtraFlag {
    /// Parses `COMPONENT.FLAG=VALUE` or `COMPONENT.FLAG`.
    fn parse(text: &str) -> Result<Self, String> {
        let (component, rest) = text.split_once('.').ok_or("expected COMPONENT.FLAG=VALUE")?;
        if !CONFIGURABLE.contains(&component) {
            return Err(format!(
                "there is no component {component:?}, but {}",
                CONFIGURABLE.join(", ")
            ));
        }
        let (flag, value) = match rest.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (rest, None),
        };
        let is_flag = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if flag.is_empty() || flag.starts_with('-') || !flag.chars().all(is_flag) {
            return Err(format!("{flag:?} is not the name of a flag without its dashes"));
        }
        Ok(Self { component: component.to_owned(), flag: flag.to_owned(), value })
    }

    /// Whether it takes the place of an argument.
    pub fn replaces(&self, argument: &str) -> bool {
        let rest = argument.strip_prefix("--").and_then(|rest| rest.strip_prefix(&*self.flag));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    }

    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.flag),
            None => format!("--{}", self.flag),
        }
    }
}

/// Which cluster a command is about.
#[derive(Args, Clone, Debug)]
pub struct Selection {
    /// Name of the cluster, and of its context in the kubeconfig
    #[arg(long, default_value = "skiff", env = "SKIFF_CLUSTER")]
    pub name: String,
    /// Folder of all data, sockets, logs and certificates [default: /var/lib/skiff, or
    /// /var/lib/skiff-NAME for a cluster of another name]
    #[arg(long, env = "SKIFF_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Selection {
    /// The data folder, absolute.
    ///
    /// # Errors
    /// When the name is not usable, or the current folder cannot be read.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        check_name(&self.name)?;
        let path = match &self.data_dir {
            Some(path) => path.clone(),
            None if self.name == "skiff" => PathBuf::from("/var/lib/skiff"),
            None => PathBuf::from(format!("/var/lib/skiff-{}", self.name)),
        };
        std::path::absolute(&path).with_context(|| format!("data folder {}", path.display()))
    }

    /// The flags that select this cluster in another command, each after a space.
    pub fn flags(&self) -> String {
        let mut flags = String::new();
        if self.name != "skiff" {
            flags.push_str(&format!(" --name {}", self.name));
        }
        if let Some(folder) = &self.data_dir {
            flags.push_str(&format!(" --data-dir {}", folder.display()));
        }
        flags
    }
}

/// Flags of `skiff up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Number of nodes; each is a network namespace with its own containerd
    #[arg(long, default_value_t = 1)]
    pub nodes: u8,
    /// What stores the objects
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    pub store: Store,
    /// Subnet of the nodes; the machine takes its first address
    #[arg(long, default_value = "172.30.0.0/24")]
    pub node_cidr: Ipv4Net,
    /// Range of the pods' addresses; each node gets a /24 of it
    #[arg(long, default_value = "10.244.0.0/16")]
    pub pod_cidr: Ipv4Net,
    /// Range of the services' addresses
    #[arg(long, default_value = "10.96.0.0/12")]
    pub service_cidr: Ipv4Net,
    /// Pool of addresses for services of type LoadBalancer, a part of the node subnet [default: its
    /// last 64 addresses]
    #[arg(long)]
    pub load_balancer_cidr: Option<Ipv4Net>,
    /// Whose addresses services of type LoadBalancer get
    #[arg(long, value_enum, default_value_t = BalancerAddresses::Pool)]
    pub load_balancer_addresses: BalancerAddresses,
    /// Registry to access without TLS, as HOST:PORT; repeatable
    #[arg(long = "insecure-registry", value_name = "HOST:PORT")]
    pub insecure_registries: Vec<String>,
    /// KubeSchedulerConfiguration of the scheduler; a copy is kept with the cluster
    #[arg(long, value_name = "FILE", value_parser = contents)]
    pub scheduler_config: Option<String>,
    /// Labels of a node; repeatable
    #[arg(long, value_name = "NODE:KEY=VALUE,...", value_parser = labels_of_node)]
    pub node_labels: Vec<(String, NodeLabels)>,
    /// A flag for a component (apiserver, scheduler, controller-manager, kubelet, proxy, dns), which
    /// replaces the cluster's own of that name; repeatable. Paths have to be absolute
    #[arg(long, value_name = "COMPONENT.FLAG=VALUE", value_parser = ExtraFlag::parse)]
    pub extra_config: Vec<ExtraFlag>,
    /// Log level of every process
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Seconds to wait for every node to be Ready
    #[arg(long, default_value_t = 60)]
    pub wait: u64,
    /// Leave the kubeconfig as it is
    #[arg(long)]
    pub no_kubeconfig: bool,
}

impl UpArgs {
    /// The validated options that are stored with the cluster.
    ///
    /// # Errors
    /// Names the flag that is wrong, and why.
    pub fn into_options(self) -> anyhow::Result<Options> {
        let mut options = Options {
            name: self.selection.name.clone(),
            nodes: self.nodes,
            store: self.store,
            node_cidr: self.node_cidr.trunc(),
            pod_cidr: self.pod_cidr.trunc(),
            service_cidr: self.service_cidr.trunc(),
            load_balancer_cidr: self.load_balancer_cidr.map(|range| range.trunc()),
            load_balancer_addresses: self.load_balancer_addresses,
            insecure_registries: self.insecure_registries,
            scheduler_config: self.scheduler_config,
            node_labels: BTreeMap::new(),
            extra_config: self.extra_config,
            log_level: self.log_level,
        };
        for (node, labels) in self.node_labels {
            options.node_labels.entry(node).or_default().extend(labels);
        }
        options.check()?;
        Ok(options)
    }
}

/// What a cluster was created with; stored as `cluster.json` in its data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    pub name: String,
    pub nodes: u8,
    pub store: Store,
    pub node_cidr: Ipv4Net,
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// `None` for the default.
    #[serde(default)]
    pub load_balancer_cidr: Option<Ipv4Net>,
    #[serde(default)]
    pub load_balancer_addresses: BalancerAddresses,
    pub insecure_registries: Vec<String>,
    /// The text of the scheduler's configuration; `None` for the default.
    #[serde(default)]
    pub scheduler_config: Option<String>,
    /// By node.
    #[serde(default)]
    pub node_labels: BTreeMap<String, NodeLabels>,
    /// In the order in which they were given.
    #[serde(default)]
    pub extra_config: Vec<ExtraFlag>,
    pub log_level: String,
}

/// One node: its name and its address in the node subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub address: Ipv4Addr,
}

impl Options {
    fn check(&self) -> anyhow::Result<()> {
        check_name(&self.name)?;
        ensure!(self.nodes >= 1, "--nodes must be at least 1");
        ensure!(self.nodes <= NODES_MAX, "--nodes must be at most {NODES_MAX}");
        ensure!(
            (8..=24).contains(&self.node_cidr.prefix_len()),
            "--node-cidr {} must be a /24 or larger",
            self.node_cidr
        );
        ensure!(
            self.pod_cidr.prefix_len() <= 24,
            "--pod-cidr {} is too small: each node takes a /24 of it",
            self.pod_cidr
        );
        let pod_blocks = 1u32 << (24 - u32::from(self.pod_cidr.prefix_len())).min(16);
        ensure!(
            u32::from(self.nodes) <= pod_blocks,
            "--pod-cidr {} has room for {pod_blocks} nodes of a /24 each, not {}",
            self.pod_cidr,
            self.nodes
        );
        ensure!(
            (8..=28).contains(&self.service_cidr.prefix_len()),
            "--service-cidr {} must be between a /8 and a /28",
            self.service_cidr
        );
        let ranges = [
            ("--node-cidr", self.node_cidr),
            ("--pod-cidr", self.pod_cidr),
            ("--service-cidr", self.service_cidr),
        ];
        for (index, (flag, range)) in ranges.iter().enumerate() {
            for (other_flag, other) in &ranges[index + 1..] {
                ensure!(!overlap(*range, *other), "{flag} {range} overlaps {other_flag} {other}");
            }
        }
        self.check_load_balancer()?;
        for registry in &self.insecure_registries {
            ensure!(
                !registry.is_empty() && !registry.contains('/'),
                "--insecure-registry {registry:?} must be HOST:PORT, without a scheme or path"
            );
        }
        for node in self.node_labels.keys() {
            ensure!(
                self.nodes().iter().any(|known| known.name == *node),
                "--node-labels: there is no node {node:?}"
            );
        }
        Ok(())
    }

    fn check_load_balancer(&self) -> anyhow::Result<()> {
        let pool = self.load_balancer_pool();
        for (flag, range) in [("--pod-cidr", self.pod_cidr), ("--service-cidr", self.service_cidr)]
        {
            ensure!(!overlap(pool, range), "--load-balancer-cidr {pool} overlaps {flag} {range}");
        }
        ensure!(
            self.node_cidr.contains(&pool),
            "--load-balancer-cidr {pool} is not in --node-cidr {}: nobody would look for its \
             addresses on the nodes' link",
            self.node_cidr
        );
        let gateway = ("this machine".to_owned(), self.gateway());
        let nodes = self.nodes().into_iter().map(|node| (node.name, node.address));
        for (name, address) in nodes.chain([gateway]) {
            ensure!(
                !pool.contains(&address),
                "--load-balancer-cidr {pool} contains {address}, the address of {name}"
            );
        }
        Ok(())
    }

    /// The pool of addresses for Services of type LoadBalancer.
    pub fn load_balancer_pool(&self) -> Ipv4Net {
        self.load_balancer_cidr.unwrap_or_else(|| {
            let first = u32::from(self.node_cidr.broadcast()) - (POOL_DEFAULT - 1);
            Ipv4Net::new(first.into(), 32 - POOL_DEFAULT.ilog2() as u8).expect("a short prefix")
        })
    }

    /// The machine's address in the node subnet; the apiserver listens here.
    pub fn gateway(&self) -> Ipv4Addr {
        nth(self.node_cidr, 1)
    }

    /// A loopback address of this cluster's own, so that several clusters on one machine can use
    /// the same health ports.
    pub fn loopback(&self) -> Ipv4Addr {
        let [_, b, c, d] = self.gateway().octets();
        Ipv4Addr::new(127, b, c, d)
    }

    /// The address of the `kubernetes` Service: the first of the service range.
    pub fn kubernetes_service(&self) -> Ipv4Addr {
        nth(self.service_cidr, 1)
    }

    /// The address of the cluster's DNS: the tenth of the service range, as kubeadm's.
    pub fn cluster_dns(&self) -> Ipv4Addr {
        nth(self.service_cidr, 10)
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> Vec<Node> {
        (0..u32::from(self.nodes))
            .map(|index| Node {
                name: format!("node-{}", index + 1),
                address: nth(self.node_cidr, FIRST_NODE_OFFSET + index),
            })
            .collect()
    }

    /// The labels of all nodes, as in the flag.
    fn node_labels(&self) -> String {
        let nodes = self.node_labels.iter();
        let nodes = nodes.map(|(node, labels)| format!("{node}:{}", join_labels(labels)));
        nodes.collect::<Vec<_>>().join(" ")
    }

    /// The flags that a component gets besides its own.
    pub fn extra_flags(&self, component: &str) -> impl Iterator<Item = &ExtraFlag> {
        self.extra_config.iter().filter(move |extra| extra.component == component)
    }

    /// All of these, as in the flag.
    fn extra_config(&self) -> String {
        let all = self.extra_config.iter();
        let all = all.map(|extra| format!("{}.{}", extra.component, &extra.argument()[2..]));
        all.collect::<Vec<_>>().join(" ")
    }

    /// Base URL of the apiserver.
    pub fn server(&self) -> String {
        format!("https://{}:{API_PORT}", self.gateway())
    }

    /// How these options differ from others, one line each; empty when they are the same.
    pub fn differences(&self, wanted: &Options) -> Vec<String> {
        let describe = |options: &Options| {
            [
                ("--name", options.name.clone()),
                ("--nodes", options.nodes.to_string()),
                ("--store", format!("{:?}", options.store).to_lowercase()),
                ("--node-cidr", options.node_cidr.to_string()),
                ("--pod-cidr", options.pod_cidr.to_string()),
                ("--service-cidr", options.service_cidr.to_string()),
                ("--load-balancer-cidr", options.load_balancer_pool().to_string()),
                (
                    "--load-balancer-addresses",
                    format!("{:?}", options.load_balancer_addresses).to_lowercase(),
                ),
                ("--insecure-registry", options.insecure_registries.join(",")),
                ("--scheduler-config", options.scheduler_config.clone().unwrap_or_default()),
                ("--node-labels", options.node_labels()),
                ("--extra-config", options.extra_config()),
                ("--log-level", options.log_level.clone()),
            ]
        };
        describe(self)
            .into_iter()
            .zip(describe(wanted))
            .filter(|(have, want)| have.1 != want.1)
            .map(|((flag, have), (_, want))| format!("{flag}: {have:?} now, {want:?} asked for"))
            .collect()
    }
}

/// Labels as in flags.
pub fn join_labels(labels: &NodeLabels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Whether two ranges share an address.
pub fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The nth address of a range, counted from its network address.
fn nth(range: Ipv4Net, index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()).wrapping_add(index))
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > NAME_MAX
        || !name.chars().all(inner)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        bail!(
            "--name {name:?} must be 1 to {NAME_MAX} lower-case letters, digits or '-', and \
             start and end with a letter or digit"
        );
    }
    Ok(())
}

/// The default options, for tests.
#[cfg(test)]
pub fn example(nodes: u8) -> Options {
    Options {
        name: "skiff".into(),
        nodes,
        store: Store::Embedded,
        node_cidr: "172.30.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        load_balancer_cidr: None,
        load_balancer_addresses: BalancerAddresses::Pool,
        insecure_registries: vec![],
        scheduler_config: None,
        node_labels: BTreeMap::new(),
        extra_config: vec![],
        log_level: "info".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        example(3)
    }

    #[test]
    fn addresses_follow_from_the_ranges() {
        let options = options();
        assert_eq!(options.gateway().to_string(), "172.30.0.1");
        assert_eq!(options.loopback().to_string(), "127.30.0.1");
        assert_eq!(options.kubernetes_service().to_string(), "10.96.0.1");
        assert_eq!(options.cluster_dns().to_string(), "10.96.0.10");
        let nodes = options.nodes();
        assert_eq!(nodes[2].name, "node-3");
        assert_eq!(nodes[2].address.to_string(), "172.30.0.13");
        assert_eq!(options.server(), "https://172.30.0.1:6443");
    }

    #[test]
    fn the_flags_of_a_cluster_select_it_again() {
        let selection = |name: &str, folder: Option<&str>| Selection {
            name: name.to_owned(),
            data_dir: folder.map(PathBuf::from),
        };
        assert_eq!(selection("skiff", None).flags(), "");
        assert_eq!(selection("a", None).flags(), " --name a");
        assert_eq!(selection("a", Some("/d")).flags(), " --name a --data-dir /d");
    }

    #[test]
    fn bad_options_say_which_flag() {
        type Change = fn(&mut Options);
        let cases: [(&str, Change); 8] = [
            ("--name", |o| o.name = "Bad_Name".into()),
            ("--name", |o| o.name = "thirteen-char".into()),
            ("--nodes", |o| o.nodes = 0),
            ("--nodes", |o| o.nodes = 65),
            ("--pod-cidr", |o| o.pod_cidr = "10.244.0.0/23".parse().unwrap()),
            ("--service-cidr", |o| o.service_cidr = "10.244.128.0/20".parse().unwrap()),
            ("--insecure-registry", |o| o.insecure_registries = vec!["http://x".into()]),
            ("\"node-4\"", |o| drop(o.node_labels.insert("node-4".into(), BTreeMap::new()))),
        ];
        for (flag, change) in cases {
            let mut options = options();
            change(&mut options);
            let message = options.check().unwrap_err().to_string();
            assert!(message.contains(flag), "{message}");
        }
        options().check().unwrap();
    }

    #[test]
    fn labels_of_nodes() {
        let (node, labels) = labels_of_node("node-2:disk=ssd,example.com/gpu=").unwrap();
        assert_eq!((&*node, &*join_labels(&labels)), ("node-2", "disk=ssd,example.com/gpu="));
        let mut options = options();
        options.node_labels.insert(node, labels);
        options.check().unwrap();
        let differences = example(3).differences(&options);
        let expected = "--node-labels: \"\" now, \"node-2:disk=ssd,example.com/gpu=\" asked for";
        assert_eq!(differences, [expected]);
        for (text, problem) in [
            ("disk=ssd", "NODE:KEY=VALUE"),
            ("node-1:", "\"\": "),
            ("node-1:disk=a b", "\"disk=a b\": a valid label"),
        ] {
            let found = labels_of_node(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn flags_of_components() {
        for (text, argument) in [
            ("apiserver.audit-policy-file=/etc/a=b.yaml", "--audit-policy-file=/etc/a=b.yaml"),
            ("kubelet.fail-swap-on=", "--fail-swap-on="),
            ("controller-manager.profiling", "--profiling"),
        ] {
            let extra = ExtraFlag::parse(text).unwrap();
            assert_eq!(extra.argument(), argument);
            let options = Options { extra_config: vec![extra], ..options() };
            let differences = super::example(3).differences(&options);
            let expected = format!("--extra-config: \"\" now, {text:?} asked for");
            assert_eq!(differences, [expected]);
        }
        let extra = ExtraFlag::parse("kubelet.port=1").unwrap();
        for (argument, replaced) in [("--port=10250", true), ("--port", true), ("--ports=1", false)]
        {
            assert_eq!(extra.replaces(argument), replaced, "{argument}");
        }
        for (text, problem) in [
            ("audit-policy-file=/a", "COMPONENT.FLAG=VALUE"),
            ("etcd.name=a", "there is no component \"etcd\", but apiserver, "),
            ("apiserver.=a", "\"\" is not the name of a flag"),
            ("apiserver.--v=1", "\"--v\" is not the name of a flag"),
            ("apiserver.a b=1", "\"a b\" is not the name of a flag"),
        ] {
            let found = ExtraFlag::parse(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn the_pool_is_a_free_part_of_the_node_subnet() {
        assert_eq!(options().load_balancer_pool().to_string(), "172.30.0.192/26");
        for (pool, problem) in [
            ("10.100.0.0/24", "overlaps --service-cidr 10.96.0.0/12"),
            ("10.0.0.0/8", "overlaps --pod-cidr 10.244.0.0/16"),
            ("192.0.2.0/24", "is not in --node-cidr 172.30.0.0/24"),
            ("172.30.0.8/29", "contains 172.30.0.11, the address of node-1"),
            ("172.30.0.0/30", "contains 172.30.0.1, the address of this machine"),
        ] {
            let range = Some(pool.parse().unwrap());
            let error = Options { load_balancer_cidr: range, ..options() }.check().unwrap_err();
            let expected = format!("--load-balancer-cidr {pool} {problem}");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        // Clusters that were created before there was a pool have the default one.
        let mut stored = serde_json::to_value(options()).unwrap();
        stored.as_object_mut().unwrap().retain(|key, _| !key.starts_with("loadBalancer"));
        assert_eq!(serde_json::from_value::<Options>(stored).unwrap(), options());
    }

    #[test]
    fn differences_name_the_flags() {
        let mut wanted = options();
        wanted.nodes = 1;
        let differences = options().differences(&wanted);
        assert_eq!(differences, ["--nodes: \"3\" now, \"1\" asked for"]);
        assert!(wanted.differences(&wanted).is_empty());
    }
}
