//! Host names, and the contents of `/etc/hosts` and `/etc/resolv.conf`: pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::pod_ext::PodExt;

/// Maximum length of a host name in bytes.
const HOSTNAME_MAX: usize = 63;
/// Maximum length of a fully qualified name as host name (kernel limit), in bytes.
const FQDN_MAX: usize = 64;
/// glibc's limit.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;

/// The pod's host name and domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The output of `hostname` in the pod.
    pub hostname: String,
    /// `hostname.subdomain.namespace.svc.domain`, if the pod has a subdomain.
    pub fqdn: Option<String>,
}

/// Why a pod's host name is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {length} characters requested)"
)]
pub struct HostNameError {
    fqdn: String,
    length: usize,
}

/// The host name of `pod` on `node`, in the cluster's `domain`. With the node's network it is the
/// node's, also where that is not the machine's: several nodes may share one.
pub fn host_name(pod: &Pod, node: &str, domain: &str) -> Result<HostName, HostNameError> {
    let spec = pod.spec_ref();
    if pod.host_network() {
        return Ok(HostName { hostname: shortened(node.to_owned()), fqdn: None });
    }
    if let Some(hostname) = spec.hostname_override.clone().filter(|name| !name.is_empty()) {
        return Ok(HostName { hostname, fqdn: None });
    }
    let mut hostname = match spec.hostname.as_deref() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => pod.pod_name().to_owned(),
    };
    hostname = shortened(hostname);
    let fqdn =
        spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()).map(|subdomain| {
            format!("{hostname}.{subdomain}.{}.svc.{domain}", pod.pod_namespace())
        });
    if spec.set_hostname_as_fqdn == Some(true)
        && let Some(fqdn) = &fqdn
    {
        if fqdn.len() > FQDN_MAX {
            return Err(HostNameError { fqdn: fqdn.clone(), length: fqdn.len() });
        }
        hostname.clone_from(fqdn);
    }
    Ok(HostName { hostname, fqdn })
}

fn shortened(mut hostname: String) -> String {
    if hostname.len() > HOSTNAME_MAX {
        hostname.truncate(HOSTNAME_MAX);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    hostname
}

/// `/etc/hosts` of a pod with its own network, or the node's own with the pod's aliases.
pub fn hosts_file(pod: &Pod, ips: &[IpAddr], name: &HostName, node_hosts: Option<&str>) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file");
    match node_hosts {
        Some(hosts) => {
            text.push_str(" (host network).\n");
            text.push_str(hosts);
        }
        None => {
            text.push_str(".\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
            text.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
            let short = name.hostname.split('.').next().unwrap_or_default();
            for ip in ips {
                match &name.fqdn {
                    Some(fqdn) => text.push_str(&format!("{ip}\t{fqdn}\t{short}\n")),
                    None => text.push_str(&format!("{ip}\t{}\n", name.hostname)),
                }
            }
        }
    }
    let aliases = pod.spec_ref().host_aliases.iter().flatten();
    let lines: Vec<String> = aliases
        .map(|alias| {
            format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"))
        })
        .collect();
    if !lines.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.push_str(&lines.concat());
    }
    text
}

/// The cluster's DNS servers and domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolv {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolv {
    fn parse(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolv.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => resolv.searches = words.map(str::to_owned).collect(),
                Some("options") => resolv.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolv
    }
}

/// `/etc/resolv.conf` by `dnsPolicy` and `dnsConfig`. `node`: the node's own file.
pub fn resolv_conf(pod: &Pod, cluster: &ClusterDns, node: &str) -> String {
    let spec = pod.spec_ref();
    let node = Resolv::parse(node);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.host_network(),
        _ => false,
    };
    let mut resolv = if policy == "None" {
        Resolv::default()
    } else if cluster_first && !cluster.servers.is_empty() {
        let namespace = pod.pod_namespace();
        let domain = &cluster.domain;
        let mut searches =
            vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        searches.extend(node.searches);
        Resolv {
            servers: cluster.servers.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    } else {
        node
    };
    if let Some(config) = &spec.dns_config {
        resolv.servers.extend(config.nameservers.clone().unwrap_or_default());
        resolv.searches.extend(config.searches.clone().unwrap_or_default());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolv.options.retain(|known| known.split(':').next() != Some(name.as_str()));
            resolv.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    print(resolv)
}

fn print(mut resolv: Resolv) -> String {
    let mut seen = std::collections::BTreeSet::new();
    resolv.servers.retain(|server| seen.insert(server.clone()));
    resolv.servers.truncate(NAMESERVERS_MAX);
    seen.clear();
    resolv.searches.retain(|search| seen.insert(search.clone()));
    resolv.searches.truncate(SEARCHES_MAX);
    while resolv.searches.join(" ").len() > SEARCH_BYTES_MAX {
        resolv.searches.pop();
    }
    let mut text = String::new();
    for server in &resolv.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolv.searches.is_empty() {
        text.push_str(&format!("search {}\n", resolv.searches.join(" ")));
    }
    if !resolv.options.is_empty() {
        text.push_str(&format!("options {}\n", resolv.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodDNSConfigOption, PodSpec};

    fn pod(spec: PodSpec) -> Pod {
        let mut pod = Pod { spec: Some(spec), ..Default::default() };
        pod.metadata.name = Some("web-0".into());
        pod.metadata.namespace = Some("shop".into());
        pod
    }

    #[test]
    fn host_names() {
        let plain = host_name(&pod(PodSpec::default()), "n1", "cluster.local").unwrap();
        assert_eq!((plain.hostname.as_str(), plain.fqdn), ("web-0", None));
        let spec = PodSpec {
            hostname: Some("db".into()),
            subdomain: Some("dbs".into()),
            set_hostname_as_fqdn: Some(true),
            ..Default::default()
        };
        let full = host_name(&pod(spec.clone()), "n1", "cluster.local").unwrap();
        assert_eq!(full.hostname, "db.dbs.shop.svc.cluster.local");
        assert!(host_name(&pod(spec), "n1", &"x".repeat(60)).is_err());
        let spec = PodSpec { host_network: Some(true), ..Default::default() };
        for (node, expected) in [("node-1", "node-1"), (&"n".repeat(80), &"n".repeat(63))] {
            let name = host_name(&pod(spec.clone()), node, "cluster.local").unwrap();
            assert_eq!((name.hostname.as_str(), name.fqdn), (expected, None));
        }
    }

    #[test]
    fn hosts() {
        let spec = PodSpec {
            subdomain: Some("dbs".into()),
            host_aliases: Some(vec![HostAlias {
                ip: "1.2.3.4".into(),
                hostnames: Some(vec!["a".into(), "b".into()]),
            }]),
            ..Default::default()
        };
        let pod = pod(spec);
        let name = host_name(&pod, "n1", "cluster.local").unwrap();
        let text = hosts_file(&pod, &["10.0.0.7".parse().unwrap()], &name, None);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n"));
        assert!(text.contains("10.0.0.7\tweb-0.dbs.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }

    #[test]
    fn resolv_confs() {
        let cluster = ClusterDns {
            servers: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".into(),
        };
        let node = "nameserver 9.9.9.9\nsearch example.com\noptions timeout:1\n";
        let config = PodDNSConfig {
            nameservers: Some(vec!["8.8.8.8".into()]),
            options: Some(vec![PodDNSConfigOption {
                name: Some("ndots".into()),
                value: Some("2".into()),
            }]),
            ..Default::default()
        };
        for (policy, host_network, config, expected) in [
            (
                None,
                false,
                None,
                "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.com\noptions ndots:5\n",
            ),
            (None, true, None, node),
            (Some("Default"), false, None, node),
            (Some("None"), false, Some(config.clone()), "nameserver 8.8.8.8\noptions ndots:2\n"),
            (
                Some("ClusterFirstWithHostNet"),
                true,
                Some(config),
                "nameserver 10.96.0.10\nnameserver 8.8.8.8\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.com\noptions ndots:2\n",
            ),
        ] {
            let spec = PodSpec {
                dns_policy: policy.map(str::to_owned),
                host_network: Some(host_network),
                dns_config: config,
                ..Default::default()
            };
            assert_eq!(resolv_conf(&pod(spec), &cluster, node), expected, "{policy:?}");
        }
    }
}
