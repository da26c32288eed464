//! Checks that the cluster's addresses and ports are free.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cluster::layout::Layout;
use crate::cluster::options::{API_PORT, Options, Store, overlap};
use crate::cluster::preflight::Problem;

/// Ports of the control plane on the cluster's loopback address: health, and the scheduler's own.
const CONTROL_PORTS: [u16; 4] = [10255, 10257, 10259, 10260];
const ETCD_PORTS: [u16; 2] = [2379, 2380];

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    address: Ipv4Addr,
    port: u16,
}

/// One route of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    range: Ipv4Net,
    link: String,
}

/// Adds every conflict to the problems.
pub fn check(layout: &Layout, options: &Options, problems: &mut Vec<Problem>) {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let sockets_v6 = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let mut listeners = parse_listeners(&sockets);
    listeners.extend(parse_listeners_v6(&sockets_v6));
    problems.extend(port_conflicts(&listeners, options));

    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    problems.extend(route_conflicts(&parse_routes(&routes), options, &layout.machine_link()));
}

fn port_conflicts(listeners: &[Listener], options: &Options) -> Vec<Problem> {
    let mut wanted = vec![(options.gateway(), API_PORT, "apiserver")];
    wanted.extend(CONTROL_PORTS.map(|port| (options.loopback(), port, "the control plane")));
    if options.store == Store::Etcd {
        wanted.extend(ETCD_PORTS.map(|port| (options.loopback(), port, "etcd")));
    }
    let taken = |address: Ipv4Addr, port: u16| {
        listeners.iter().any(|listener| {
            listener.port == port
                && (listener.address == address || listener.address.is_unspecified())
        })
    };
    wanted
        .into_iter()
        .filter(|(address, port, _)| taken(*address, *port))
        .map(|(address, port, purpose)| {
            Problem::new(
                format!("{address}:{port} ({purpose}) is in use by another program"),
                format!(
                    "end that program (ss -ltnp 'sport = :{port}' shows it), or choose another --node-cidr"
                ),
            )
        })
        .collect()
}

fn route_conflicts(routes: &[Route], options: &Options, own_link: &str) -> Vec<Problem> {
    let ranges = [
        ("--node-cidr", options.node_cidr),
        ("--pod-cidr", options.pod_cidr),
        ("--service-cidr", options.service_cidr),
    ];
    let mut problems = Vec::new();
    for (flag, range) in ranges {
        let conflict = |route: &&Route| {
            route.link != own_link && route.range.prefix_len() > 0 && overlap(route.range, range)
        };
        if let Some(route) = routes.iter().find(conflict) {
            problems.push(Problem::new(
                format!("{flag} {range} overlaps the route to {} by {}", route.range, route.link),
                format!(
                    "choose another {flag}; if {} is another Skiff cluster's, give this one its own ranges",
                    route.link
                ),
            ));
        }
    }
    problems
}

/// Listening sockets of `/proc/net/tcp`: addresses are hexadecimal in the machine's byte order.
fn parse_listeners(text: &str) -> Vec<Listener> {
    listening(text)
        .filter_map(|(address, port)| {
            let address = u32::from_str_radix(address, 16).ok()?;
            Some(Listener { address: Ipv4Addr::from(address.to_ne_bytes()), port })
        })
        .collect()
}

/// Sockets of `/proc/net/tcp6` that listen on every address, IPv4's included.
fn parse_listeners_v6(text: &str) -> Vec<Listener> {
    listening(text)
        .filter(|(address, _)| address.bytes().all(|byte| byte == b'0'))
        .map(|(_, port)| Listener { address: Ipv4Addr::UNSPECIFIED, port })
        .collect()
}

fn listening(text: &str) -> impl Iterator<Item = (&str, u16)> {
    const LISTEN: &str = "0A";
    text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let (address, port) = local.split_once(':')?;
        (state == LISTEN).then_some((address, u16::from_str_radix(port, 16).ok()?))
    })
}

fn parse_routes(text: &str) -> Vec<Route> {
    let address =
        |hex: &str| Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes()));
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let range = Ipv4Net::with_netmask(address(fields.get(1)?)?, address(fields.get(7)?)?);
            Some(Route { range: range.ok()?, link: (*fields.first()?).to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        crate::cluster::options::example(1)
    }

    #[test]
    fn listeners_are_parsed() {
        let text = "  sl  local_address rem_address   st\n   0: 0100007F:192B 00000000:0000 0A 0\n   \
                    1: 0200C0C0:0016 0100C0C0:1234 01 0\n";
        let expected = Listener { address: Ipv4Addr::LOCALHOST, port: 6443 };
        assert_eq!(parse_listeners(text), [expected]);
    }

    #[test]
    fn a_port_taken_on_all_addresses_is_a_problem() {
        let any = Listener { address: Ipv4Addr::UNSPECIFIED, port: 6443 };
        let problems = port_conflicts(&[any], &options());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].what.contains("172.30.0.1:6443"), "{}", problems[0]);
        let elsewhere = Listener { address: Ipv4Addr::LOCALHOST, port: 6443 };
        assert!(port_conflicts(&[elsewhere], &options()).is_empty());
    }

    #[test]
    fn overlapping_routes_are_problems_unless_our_own() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
                    docker0\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\n";
        let routes = parse_routes(text);
        assert_eq!(routes[1].range.to_string(), "172.30.0.0/16");
        let problems = route_conflicts(&routes, &options(), "sk-skiff");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].what.contains("--node-cidr 172.30.0.0/24"), "{}", problems[0]);
        assert!(route_conflicts(&routes, &options(), "docker0").is_empty());
    }
}
