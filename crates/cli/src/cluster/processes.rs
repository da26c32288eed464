//! The processes of a cluster: their flags, and what each waits for.
//! [`processes`] is a pure function; the supervisor runs what it lists.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::layout::Layout;
use crate::cluster::options::{
    API_PORT, BalancerAddresses, ExtraFlag, Node, Options, Store, join_labels,
};
use crate::cluster::pki::FRONT_PROXY;

/// Where a kubelet reports its health, in its node's namespace.
const KUBELET_HEALTH: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10248);

/// Where the control plane does, on the cluster's own loopback address.
const SCHEDULER_HEALTH: u16 = 10259;
const CONTROLLER_MANAGER_HEALTH: u16 = 10257;

/// A process that the supervisor keeps running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Unique; also the name of its log.
    pub name: String,
    /// The node it belongs to; `None` for the control plane.
    pub node: Option<String>,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// The pinned network namespace it runs in; `None` for the machine's own.
    pub namespace: Option<PathBuf>,
    /// Processes to wait for before this one is started for the first time.
    pub after: Vec<String>,
    pub log: PathBuf,
    /// Where `/healthz` is served, without TLS, in its namespace; `None` if it is not.
    pub health: Option<String>,
}

/// Where programs are.
pub struct Programs {
    /// The folder of Skiff's own.
    pub own: PathBuf,
    pub containerd: PathBuf,
    pub etcd: Option<PathBuf>,
    /// `$PATH` of the processes: containerd looks for its shim and runc there.
    pub search_path: String,
}

/// Every process of the cluster, in the order in which they are started.
pub fn processes(layout: &Layout, options: &Options, programs: &Programs) -> Vec<Process> {
    let builder = Builder { layout, options, programs };
    let mut all = Vec::new();
    if options.store == Store::Etcd
        && let Some(program) = &programs.etcd
    {
        all.push(builder.etcd(program));
    }
    all.push(builder.apiserver());
    all.push(builder.scheduler());
    all.push(builder.controller_manager());
    for node in options.nodes() {
        all.push(builder.containerd(&node));
        all.push(builder.kubelet(&node));
        all.push(builder.proxy(&node));
        all.push(builder.dns(&node));
    }
    for process in &mut all {
        process.configure(options);
    }
    all
}

/// The processes of one node alone, for a supervisor inside a container that is that node: they
/// run in its namespace and write to its output.
pub fn node_processes(
    layout: &Layout,
    options: &Options,
    programs: &Programs,
    node: &str,
) -> Vec<Process> {
    let own = |process: &Process| process.node.as_deref() == Some(node);
    let mut all: Vec<Process> =
        processes(layout, options, programs).into_iter().filter(own).collect();
    for process in &mut all {
        process.namespace = None;
        process.log = PathBuf::from("/dev/stdout");
        process.after.retain(|name| name.ends_with(node));
    }
    all
}

/// Names of etcd's URLs, all on the cluster's own loopback address.
struct EtcdUrls {
    client: String,
    peer: String,
}

struct Builder<'a> {
    layout: &'a Layout,
    options: &'a Options,
    programs: &'a Programs,
}

impl Builder<'_> {
    /// A process with Skiff's common flags.
    fn own(&self, component: &str, node: Option<&Node>, health: (Ipv4Addr, u16)) -> Process {
        let program = self.programs.own.join(format!("skiff-{component}"));
        let mut process = self.any(component, node, program);
        let address = format!("{}:{}", health.0, health.1);
        process.push("--log-level", &self.options.log_level);
        process.push("--health-bind-address", &address);
        process.health = Some(address);
        process
    }

    fn any(&self, component: &str, node: Option<&Node>, program: PathBuf) -> Process {
        let name = match node {
            Some(node) => format!("{component}-{}", node.name),
            None => component.to_owned(),
        };
        let path = ("PATH".to_owned(), self.programs.search_path.clone());
        Process {
            log: self.layout.log(&name),
            name,
            node: node.map(|node| node.name.clone()),
            program,
            arguments: Vec::new(),
            environment: BTreeMap::from([path]),
            namespace: node.map(|node| self.layout.node_namespace(&node.name)),
            after: Vec::new(),
            health: None,
        }
    }

    fn pki(&self, name: &str) -> String {
        text(&self.layout.pki_file(name))
    }

    fn etcd_urls(&self) -> EtcdUrls {
        let address = self.options.loopback();
        EtcdUrls {
            client: format!("https://{address}:2379"),
            peer: format!("http://{address}:2380"),
        }
    }

    fn etcd(&self, program: &Path) -> Process {
        let mut process = self.any("etcd", None, program.to_owned());
        let urls = self.etcd_urls();
        process.push("--name", "skiff");
        process.push("--data-dir", &text(&self.layout.etcd()));
        process.push("--listen-client-urls", &urls.client);
        process.push("--advertise-client-urls", &urls.client);
        process.push("--listen-peer-urls", &urls.peer);
        process.push("--initial-advertise-peer-urls", &urls.peer);
        process.push("--initial-cluster", &format!("skiff={}", urls.peer));
        process.push("--client-cert-auth", "true");
        process.push("--trusted-ca-file", &self.pki("etcd/ca.crt"));
        process.push("--cert-file", &self.pki("etcd/server.crt"));
        process.push("--key-file", &self.pki("etcd/server.key"));
        process
    }

    fn apiserver(&self) -> Process {
        let mut process = self.own("apiserver", None, (self.options.loopback(), 10255));
        let gateway = self.options.gateway().to_string();
        process.push("--bind-address", &gateway);
        process.push("--secure-port", &API_PORT.to_string());
        process.push("--advertise-address", &gateway);
        let loopback = self.options.loopback();
        process.push("--scheduler-health-address", &format!("{loopback}:{SCHEDULER_HEALTH}"));
        let manager = format!("{loopback}:{CONTROLLER_MANAGER_HEALTH}");
        process.push("--controller-manager-health-address", &manager);
        match self.options.store {
            Store::Embedded => process.push("--embedded-store", &text(&self.layout.store())),
            Store::Etcd => {
                process.push("--etcd-servers", &self.etcd_urls().client);
                process.push("--etcd-cafile", &self.pki("etcd/ca.crt"));
                process.push("--etcd-certfile", &self.pki("etcd/apiserver-client.crt"));
                process.push("--etcd-keyfile", &self.pki("etcd/apiserver-client.key"));
                process.after.push("etcd".to_owned());
            }
        }
        process.push("--tls-cert-file", &self.pki("apiserver.crt"));
        process.push("--tls-private-key-file", &self.pki("apiserver.key"));
        process.push("--client-ca-file", &self.pki("ca.crt"));
        process.push("--enable-bootstrap-token-auth", "true");
        process.push("--service-account-signing-key-file", &self.pki("sa.key"));
        process.push("--service-account-key-file", &self.pki("sa.pub"));
        process.push("--service-account-issuer", "https://kubernetes.default.svc.cluster.local");
        process.push("--service-cluster-ip-range", &self.options.service_cidr.to_string());
        process.push("--service-node-port-range", "30000-32767");
        process.push("--kubelet-certificate-authority", &self.pki("ca.crt"));
        process.push("--kubelet-client-certificate", &self.pki("apiserver-kubelet-client.crt"));
        process.push("--kubelet-client-key", &self.pki("apiserver-kubelet-client.key"));
        self.front_proxy(&mut process);
        process
    }

    /// How extension servers know the apiserver, and which front proxies it knows itself.
    fn front_proxy(&self, process: &mut Process) {
        process.push("--proxy-client-cert-file", &self.pki("front-proxy-client.crt"));
        process.push("--proxy-client-key-file", &self.pki("front-proxy-client.key"));
        process.push("--requestheader-client-ca-file", &self.pki("front-proxy-ca.crt"));
        process.push("--requestheader-allowed-names", FRONT_PROXY);
        process.push("--requestheader-username-headers", "X-Remote-User");
        process.push("--requestheader-uid-headers", "X-Remote-Uid");
        process.push("--requestheader-group-headers", "X-Remote-Group");
        process.push("--requestheader-extra-headers-prefix", "X-Remote-Extra-");
    }

    fn scheduler(&self) -> Process {
        let mut process = self.own("scheduler", None, (self.options.loopback(), SCHEDULER_HEALTH));
        self.connect(&mut process, "scheduler");
        process.push("--bind-address", &self.options.loopback().to_string());
        process.push("--secure-port", "10260");
        process.push("--tls-cert-file", &self.pki("scheduler-server.crt"));
        process.push("--tls-private-key-file", &self.pki("scheduler-server.key"));
        process.push("--client-ca-file", &self.pki("ca.crt"));
        // The supervisor runs a single one, which after a crash should not wait for its own lease
        // to expire.
        process.push("--leader-elect", "false");
        if self.options.scheduler_config.is_some() {
            process.push("--config", &text(&self.layout.scheduler_config()));
        }
        process
    }

    fn controller_manager(&self) -> Process {
        let mut process = self.own(
            "controller-manager",
            None,
            (self.options.loopback(), CONTROLLER_MANAGER_HEALTH),
        );
        self.connect(&mut process, "controller-manager");
        process.push("--cluster-cidr", &self.options.pod_cidr.to_string());
        process.push("--node-cidr-mask-size", "24");
        process.push("--root-ca-file", &self.pki("ca.crt"));
        process.push("--cluster-signing-cert-file", &self.pki("ca.crt"));
        process.push("--cluster-signing-key-file", &self.pki("ca.key"));
        process.push("--approve-kubelet-serving-certificates", "true");
        process.push("--leader-elect", "false");
        process.push("--service-cluster-ip-range", &self.options.service_cidr.to_string());
        let source = match self.options.load_balancer_addresses {
            BalancerAddresses::Pool => "pool",
            BalancerAddresses::Nodes => "nodes",
            BalancerAddresses::None => return process,
        };
        process.push("--load-balancer-addresses", source);
        process.push("--load-balancer-cidr", &self.options.load_balancer_pool().to_string());
        process
    }

    fn containerd(&self, node: &Node) -> Process {
        let mut process = self.any("containerd", Some(node), self.programs.containerd.clone());
        process.push("--config", &text(&self.layout.containerd_config(&node.name)));
        process
    }

    fn kubelet(&self, node: &Node) -> Process {
        let mut process = self.own("kubelet", Some(node), KUBELET_HEALTH);
        let identity = format!("kubelet-{}", node.name);
        self.connect(&mut process, &identity);
        process.after.push(format!("containerd-{}", node.name));
        let address = node.address.to_string();
        let socket = text(&self.layout.containerd_socket(&node.name));
        let pki = |name: &str| self.pki(&format!("nodes/{}/{name}", node.name));
        process.push("--node-name", &node.name);
        process.push("--node-ip", &address);
        process.push("--root-dir", &text(&self.layout.kubelet(&node.name)));
        process.push("--pod-manifest-path", &text(&self.layout.manifests(&node.name)));
        process.push("--container-runtime-endpoint", &format!("unix://{socket}"));
        process.push("--bind-address", &address);
        process.push("--port", "10250");
        process.push("--tls-cert-file", &pki("kubelet-server.crt"));
        process.push("--tls-private-key-file", &pki("kubelet-server.key"));
        process.push("--rotate-certificates", "true");
        process.push("--rotate-server-certificates", "true");
        process.push("--client-ca-file", &self.pki("ca.crt"));
        process.push("--cluster-dns", &self.options.cluster_dns().to_string());
        process.push("--cluster-domain", "cluster.local");
        process.push("--proxy-socket", &text(&self.layout.proxy_socket(&node.name)));
        process.push("--cgroup-root", &self.layout.node_cgroup(&node.name));
        process.push("--max-pods", "110");
        // The disk is shared with everything else on the machine: how full it is must not evict
        // pods or remove loaded images as long as there is some space.
        process.push("--eviction-nodefs-available-percent", "1");
        process.push("--eviction-nodefs-inodes-free-percent", "1");
        process.push("--image-gc-high-threshold", "99");
        process.push("--image-gc-low-threshold", "98");
        for registry in &self.options.insecure_registries {
            process.push("--insecure-registry", registry);
        }
        if let Some(labels) = self.options.node_labels.get(&node.name) {
            process.push("--node-labels", &join_labels(labels));
        }
        process
    }

    fn proxy(&self, node: &Node) -> Process {
        let mut process = self.own("proxy", Some(node), (Ipv4Addr::LOCALHOST, 10256));
        self.connect(&mut process, "proxy");
        process.push("--node-name", &node.name);
        process.push("--cluster-cidr", &self.options.pod_cidr.to_string());
        process.push("--cluster-dns", &self.options.cluster_dns().to_string());
        let (address, port) = KUBELET_HEALTH;
        process.push("--kubelet-health-address", &format!("{address}:{port}"));
        if self.options.load_balancer_addresses != BalancerAddresses::None {
            process.push("--load-balancer-cidr", &self.options.load_balancer_pool().to_string());
        }
        process.push("--inspect-socket", &text(&self.layout.proxy_socket(&node.name)));
        process
    }

    fn dns(&self, node: &Node) -> Process {
        let mut process = self.own("dns", Some(node), (Ipv4Addr::LOCALHOST, 10258));
        self.connect(&mut process, "dns");
        process.push("--listen", &self.options.cluster_dns().to_string());
        process.push("--cluster-domain", "cluster.local");
        process.push("--upstream", "/etc/resolv.conf");
        process
    }

    fn connect(&self, process: &mut Process, identity: &str) {
        process.push("--kubeconfig", &text(&self.layout.kubeconfig(identity)));
        process.after.push("apiserver".to_owned());
    }
}

impl Process {
    /// The name without the node.
    pub fn component(&self) -> &str {
        let node = self.node.as_ref().and_then(|node| self.name.strip_suffix(&**node));
        node.map_or(&self.name, |rest| rest.trim_end_matches('-'))
    }

    /// Adds the flags that the user gave.
    fn configure(&mut self, options: &Options) {
        let component = self.component().to_owned();
        let extra: Vec<&ExtraFlag> = options.extra_flags(&component).collect();
        self.arguments.retain(|argument| !extra.iter().any(|extra| extra.replaces(argument)));
        self.arguments.extend(extra.into_iter().map(ExtraFlag::argument));
    }

    fn push(&mut self, flag: &str, value: &str) {
        self.arguments.push(format!("{flag}={value}"));
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(store: Store, nodes: u8) -> Options {
        Options {
            store,
            insecure_registries: vec!["127.0.0.1:5000".into()],
            ..crate::cluster::options::example(nodes)
        }
    }

    fn programs() -> Programs {
        Programs {
            own: "/bin".into(),
            containerd: "/usr/bin/containerd".into(),
            etcd: Some("/usr/bin/etcd".into()),
            search_path: "/usr/bin".into(),
        }
    }

    fn list(store: Store, nodes: u8) -> Vec<Process> {
        let layout = Layout::new("skiff", "/data".into());
        processes(&layout, &options(store, nodes), &programs())
    }

    #[test]
    fn every_node_has_its_own() {
        let names: Vec<_> = list(Store::Embedded, 2).into_iter().map(|p| p.name).collect();
        assert_eq!(
            names,
            [
                "apiserver",
                "scheduler",
                "controller-manager",
                "containerd-node-1",
                "kubelet-node-1",
                "proxy-node-1",
                "dns-node-1",
                "containerd-node-2",
                "kubelet-node-2",
                "proxy-node-2",
                "dns-node-2",
            ]
        );
    }

    #[test]
    fn dependencies_are_listed_first() {
        let all = list(Store::Etcd, 1);
        for (index, process) in all.iter().enumerate() {
            for name in &process.after {
                assert!(all[..index].iter().any(|earlier| &earlier.name == name), "{name}");
            }
        }
        assert_eq!(all[1].after, ["etcd"]);
    }

    #[test]
    fn one_node_alone_waits_only_for_its_own() {
        let layout = Layout::new("skiff", "/data".into());
        let all = list(Store::Embedded, 2);
        assert!(all.iter().any(|process| process.after.contains(&"apiserver".to_owned())));
        let options = options(Store::Embedded, 2);
        let alone = node_processes(&layout, &options, &programs(), "node-2");
        assert_eq!(alone.len(), 4);
        assert!(alone.iter().all(|process| process.namespace.is_none()));
        assert_eq!(alone[1].after, ["containerd-node-2"]);
    }

    #[test]
    fn the_pool_is_known_to_those_who_assign_and_announce_it() {
        let pool = "--load-balancer-cidr=172.30.0.192/26";
        let with_pool = |addresses: BalancerAddresses| -> Vec<String> {
            let mut options = options(Store::Embedded, 1);
            options.load_balancer_addresses = addresses;
            let layout = Layout::new("skiff", "/data".into());
            let all = processes(&layout, &options, &programs()).into_iter();
            let known = all.filter(|p| p.arguments.iter().any(|argument| argument == pool));
            known.map(|process| process.name).collect()
        };
        assert_eq!(with_pool(BalancerAddresses::Pool), ["controller-manager", "proxy-node-1"]);
        assert_eq!(with_pool(BalancerAddresses::Nodes), ["controller-manager", "proxy-node-1"]);
        assert!(with_pool(BalancerAddresses::None).is_empty());
    }

    #[test]
    fn flags_of_users_replace_those_of_the_cluster() {
        let flag = |component: &str, flag: &str, value: &str| ExtraFlag {
            component: component.to_owned(),
            flag: flag.to_owned(),
            value: Some(value.to_owned()),
        };
        let extra_config = vec![
            flag("kubelet", "max-pods", "7"),
            flag("kubelet", "insecure-registry", "a:1"),
            flag("kubelet", "insecure-registry", "b:2"),
        ];
        let options = Options { extra_config, ..options(Store::Embedded, 2) };
        let layout = Layout::new("skiff", "/data".into());
        for process in processes(&layout, &options, &programs()) {
            let (all, is_kubelet) = (&process.arguments, process.component() == "kubelet");
            let count = |flag: &str| all.iter().filter(|one| one.starts_with(flag)).count();
            assert_eq!(count("--max-pods=7"), usize::from(is_kubelet), "{}", process.name);
            assert_eq!(count("--max-pods"), usize::from(is_kubelet), "{}", process.name);
            assert_eq!(count("--insecure-registry="), 2 * usize::from(is_kubelet));
        }
    }

    #[test]
    fn a_kubelets_flags() {
        let all = list(Store::Embedded, 1);
        let kubelet = all.iter().find(|p| p.name == "kubelet-node-1").unwrap();
        for flag in [
            "--node-ip=172.30.0.11",
            "--insecure-registry=127.0.0.1:5000",
            "--cgroup-root=/skiff/skiff/node-1",
            "--container-runtime-endpoint=unix:///data/nodes/node-1/containerd/containerd.sock",
        ] {
            assert!(kubelet.arguments.iter().any(|a| a == flag), "{flag}");
        }
        assert_eq!(kubelet.namespace.as_deref(), Some(Path::new("/run/netns/skiff.skiff.node-1")));
    }
}
