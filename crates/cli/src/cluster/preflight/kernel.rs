//! Checks the kernel's features. Network features are tried in a temporary namespace, since no list
//! shows whether they work.

use anyhow::Context;

use crate::cluster::network::namespace;
use crate::cluster::preflight::Problem;
use crate::cluster::{cgroup, command};

const REBUILD: &str = "load the module (modprobe) or use a kernel that has it";
/// Controllers that the limits of containers need.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];
/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` in the kernel's numbering (`capabilities(7)`).
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// What the kernel reports about itself.
struct KernelFacts {
    /// `/proc/self/status`.
    status: String,
    overlay: bool,
    /// Controllers of control groups.
    controllers: Vec<String>,
}

/// Adds what the kernel lacks to the problems.
pub fn check(problems: &mut Vec<Problem>) {
    let facts = KernelFacts {
        status: std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
        overlay: has_filesystem("overlay"),
        controllers: cgroup::controllers(),
    };
    let missing = missing_capabilities(&facts.status);
    if !missing.is_empty() {
        // Without them the trials below would fail for the wrong reason.
        problems.push(Problem::new(
            format!("root lacks {}", missing.join(" and ")),
            "run it on the machine itself, or give the container these capabilities",
        ));
        return;
    }
    problems.extend(missing_features(&facts));
    if let Err(error) = namespace::within_new(|| try_network(problems)) {
        problems.push(Problem::new(format!("no network namespaces: {error:#}"), REBUILD));
    }
}

fn missing_features(facts: &KernelFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !facts.overlay {
        problems.push(Problem::new("the kernel has no overlay file system", REBUILD));
    }
    let missing: Vec<_> = CONTROLLERS
        .iter()
        .filter(|name| !facts.controllers.iter().any(|a| a == *name))
        .copied()
        .collect();
    if !missing.is_empty() {
        problems.push(Problem::new(
            format!("no cgroup controllers: {}", missing.join(", ")),
            "mount /sys/fs/cgroup with them (systemd does; on some machines memory needs \
             cgroup_enable=memory on the kernel's command line)",
        ));
    }
    problems
}

fn try_network(problems: &mut Vec<Problem>) -> anyhow::Result<()> {
    for (feature, link) in [
        ("veth", &["link", "add", "check-v", "type", "veth", "peer", "name", "check-w"][..]),
        ("bridge", &["link", "add", "check-b", "type", "bridge"][..]),
    ] {
        if !command::exists("ip") {
            let remedy = "apt-get install --no-install-recommends iproute2";
            problems.push(Problem::new("not installed: ip", remedy));
            break;
        }
        if let Err(error) = command::run("ip", link) {
            problems.push(Problem::new(
                format!("the kernel has no {feature} links: {error:#}"),
                REBUILD,
            ));
        }
    }
    if !command::exists("nft") {
        return Ok(());
    }
    // One of each construct that the cluster's rules use.
    let rules = "table ip check {\n\
                 map ep { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }\n\
                 map svc { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
                 chain pre { type nat hook prerouting priority dstnat; ip daddr . ip protocol . th dport vmap @svc; }\n\
                 chain one { meta mark set numgen random mod 2; }\n\
                 chain post { type nat hook postrouting priority srcnat; masquerade; }\n}\n";
    if let Err(error) = command::feed("nft", &["-f", "-"], rules).context("nft") {
        let what = format!("the kernel's nf_tables cannot do what services need: {error:#}");
        problems.push(Problem::new(
            what,
            "use a kernel with nf_tables, nft_nat, nft_masq and nft_numgen",
        ));
    }
    Ok(())
}

fn has_filesystem(name: &str) -> bool {
    let listed = || {
        let text = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        text.lines().any(|line| line.split_whitespace().last() == Some(name))
    };
    listed() || (command::run("modprobe", &[name]).is_ok() && listed())
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let lacks = |bit: u32| effective & (1 << bit) == 0;
    CAPABILITIES.iter().filter(|(_, bit)| lacks(*bit)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_mask() {
        assert!(missing_capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000000000001000\n"), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn a_file_system_or_controller_that_is_missing_is_a_problem() {
        let facts = |overlay: bool, controllers: &[&str]| KernelFacts {
            status: String::new(),
            overlay,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(missing_features(&facts(true, &CONTROLLERS)).is_empty());
        let problems = missing_features(&facts(false, &["cpu", "cpuset", "io"]));
        assert_eq!(problems[0].what, "the kernel has no overlay file system");
        assert_eq!(problems[1].what, "no cgroup controllers: memory, pids");
        assert!(problems[1].remedy.contains("cgroup_enable=memory"));
    }
}
