//! Routes to the pods of other nodes: via the node's address if it is on one of our links, else
//! through a tunnel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::model::Node;
use crate::tunnel::{self, Peers, TunnelEndpoint};

/// The protocol number of the proxy's routes (`ip route show proto 173`); it leaves all others
/// alone.
pub const ROUTE_PROTOCOL: u8 = 173;

/// Maps pod ranges to gateways: the node's address, or for a tunnel the first address of the range.
type Routes = BTreeMap<IpNet, IpAddr>;

/// How this node reaches the pods of the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    routes: Routes,
    tunnels: Peers,
}

/// An address of this node with its network, and the index of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnAddress {
    network: IpNet,
    interface: u32,
}

/// Errors of the routes and the tunnel.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    #[error("list the routes")]
    List(#[source] rtnetlink::Error),
    #[error("list the addresses")]
    Addresses(#[source] rtnetlink::Error),
    #[error("set up the tunnel to nodes on other links")]
    Tunnel(#[source] rtnetlink::Error),
    #[error("add the route to {0} via {1}")]
    Add(IpNet, IpAddr, #[source] rtnetlink::Error),
    #[error("remove the route to {0}")]
    Remove(IpNet, #[source] rtnetlink::Error),
}

/// Plans how the node `own_name`, with these addresses, reaches the pods of the others. Tunnels are
/// IPv4 only.
fn plan(own_name: &str, nodes: &BTreeMap<&str, &Node>, own: &[OwnAddress]) -> Plan {
    let mut plan = Plan::default();
    for (_, node) in nodes.iter().filter(|(name, _)| **name != own_name) {
        for range in &node.pod_cidrs {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == range.addr().is_ipv4();
            let Some(node_ip) = node.internal_ips.iter().find(same_family) else {
                continue;
            };
            let on_link = own.iter().any(|address| address.network.contains(node_ip));
            let via = match (on_link, range, node_ip) {
                (false, IpNet::V4(range), IpAddr::V4(node_ip)) => {
                    plan.tunnels.insert(range.trunc(), *node_ip);
                    range.network().into()
                }
                _ => *node_ip,
            };
            plan.routes.insert(range.trunc(), via);
        }
    }
    plan
}

/// The difference between two sets of routes: the ranges to remove, and the routes to add or
/// replace.
fn difference(actual: &Routes, wanted: &Routes) -> (Vec<IpNet>, Routes) {
    let remove = actual.keys().filter(|range| !wanted.contains_key(range));
    let add = wanted.iter().filter(|(range, via)| actual.get(range) != Some(via));
    (remove.copied().collect(), add.map(|(range, via)| (*range, *via)).collect())
}

/// Updates routes and tunnel for the nodes. A route that fails does not prevent the others; the
/// first error is returned.
pub async fn sync(own_name: &str, nodes: &BTreeMap<&str, &Node>) -> Result<(), RouteError> {
    with_netlink(async |handle| {
        let own = own_addresses(handle).await?;
        let plan = plan(own_name, nodes, &own);
        let local = nodes.get(own_name).and_then(|node| tunnel_endpoint(node, &own));
        let tunnel = match local {
            Some(local) => tunnel::converge(handle, local, &plan.tunnels).await,
            None => tunnel::remove(handle).await.map(|()| None),
        };
        let (tunnel, result) = match tunnel {
            Ok(index) => (index.zip(local), Ok(())),
            Err(error) => (None, Err(RouteError::Tunnel(error))),
        };
        converge(handle, &plan, tunnel).await.and(result)
    })
    .await
}

/// Removes our routes and the tunnel.
pub async fn remove() -> Result<(), RouteError> {
    with_netlink(async |handle| {
        converge(handle, &Plan::default(), None).await?;
        tunnel::remove(handle).await.map_err(RouteError::Tunnel)
    })
    .await
}

async fn with_netlink(
    work: impl AsyncFnOnce(&Handle) -> Result<(), RouteError>,
) -> Result<(), RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
    let task = tokio::spawn(connection);
    let result = work(&handle).await;
    task.abort();
    result
}

/// This node's end of the tunnel; `None` while the node has no IPv4 pod range or address.
fn tunnel_endpoint(node: &Node, own: &[OwnAddress]) -> Option<TunnelEndpoint> {
    let range = node.pod_cidrs.iter().find_map(|range| match range {
        IpNet::V4(range) => Some(range.trunc()),
        IpNet::V6(_) => None,
    })?;
    let mut ips = node.internal_ips.iter();
    let node_ip: Ipv4Addr = ips.find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    })?;
    let mut own = own.iter();
    let uplink = own.find(|address| address.network.addr() == IpAddr::V4(node_ip))?;
    Some(TunnelEndpoint { node_ip, range, uplink: uplink.interface })
}

/// The addresses of this node on shared networks: not host addresses, such as the tunnel's.
async fn own_addresses(handle: &Handle) -> Result<Vec<OwnAddress>, RouteError> {
    let mut found = Vec::new();
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(RouteError::Addresses)? {
        let header = &message.header;
        let ip = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
        let network = ip.and_then(|ip| IpNet::new(ip, header.prefix_len).ok());
        let shared = |network: &IpNet| network.prefix_len() < network.max_prefix_len();
        if header.scope == AddressScope::Universe
            && let Some(network) = network.filter(shared)
        {
            found.push(OwnAddress { network, interface: header.index });
        }
    }
    Ok(found)
}

/// `tunnel` is its interface and this node's end.
async fn converge(
    handle: &Handle,
    plan: &Plan,
    tunnel: Option<(u32, TunnelEndpoint)>,
) -> Result<(), RouteError> {
    let present = list(handle).await?;
    let actual = present.iter().map(|(range, (via, _))| (*range, *via)).collect();
    let (remove, add) = difference(&actual, &plan.routes);
    let mut result = Ok(());
    for range in remove {
        let message = present[&range].1.clone();
        let removed = handle.route().del(message).execute().await;
        result = result.and(removed.map_err(|error| RouteError::Remove(range, error)));
    }
    for (range, via) in add {
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(range.addr(), range.prefix_len())
            .and_then(|route| route.gateway(via))
            .expect("range and gateway are of one family")
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
        if via == range.network()
            && let Some((interface, local)) = tunnel
        {
            let source = IpAddr::V4(local.range.network());
            route = route.output_interface(interface).onlink();
            route = route.pref_source(source).expect("tunnels are of one family");
        }
        let route = route.build();
        let added = handle.route().add(route).replace().execute().await;
        match added {
            Ok(()) => tracing::info!(%range, %via, "added a route to another node's pods"),
            Err(error) => result = result.and(Err(RouteError::Add(range, via, error))),
        }
    }
    result
}

/// Our routes, with the messages for deleting them.
async fn list(handle: &Handle) -> Result<BTreeMap<IpNet, (IpAddr, RouteMessage)>, RouteError> {
    let mut found = BTreeMap::new();
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    for family in [v4, v6] {
        let mut routes = handle.route().get(family).execute();
        while let Some(route) = routes.try_next().await.map_err(RouteError::List)? {
            let header = &route.header;
            let ours = header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
                && header.kind == RouteType::Unicast;
            let prefix_len = header.destination_prefix_length;
            if let (true, Some((to, via))) = (ours, ends(&route))
                && let Ok(range) = IpNet::new(to, prefix_len)
            {
                found.insert(range, (via, route));
            }
        }
    }
    Ok(found)
}

/// Destination and gateway of a route.
fn ends(route: &RouteMessage) -> Option<(IpAddr, IpAddr)> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let via = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    });
    Some((to?, via?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cidr: &str, ip: &str) -> Node {
        Node {
            pod_cidrs: vec![cidr.parse().unwrap()],
            internal_ips: vec!["fd00::1".parse().unwrap(), ip.parse().unwrap()],
            ..Node::default()
        }
    }

    fn routes(routes: &[(&str, &str)]) -> Routes {
        let parse = |(range, via): &(&str, &str)| (range.parse().unwrap(), via.parse().unwrap());
        routes.iter().map(parse).collect()
    }

    #[test]
    fn routes_lead_to_all_other_nodes() {
        let (a, b) = (node("10.244.0.0/24", "192.168.7.11"), node("10.244.1.0/24", "192.168.7.12"));
        let pending = Node::default();
        let nodes = BTreeMap::from([("a", &a), ("b", &b), ("c", &pending)]);
        let own = [OwnAddress { network: "192.168.7.11/24".parse().unwrap(), interface: 2 }];
        let direct = plan("a", &nodes, &own);
        assert_eq!(direct.routes, routes(&[("10.244.1.0/24", "192.168.7.12")]));
        assert!(direct.tunnels.is_empty());
        let elsewhere = [OwnAddress { network: "192.168.8.11/24".parse().unwrap(), interface: 2 }];
        let far = plan("a", &nodes, &elsewhere);
        assert_eq!(far.routes, routes(&[("10.244.1.0/24", "10.244.1.0")]));
        let peer = ("10.244.1.0/24".parse().unwrap(), "192.168.7.12".parse().unwrap());
        assert_eq!(far.tunnels, Peers::from([peer]));
    }

    #[test]
    fn the_difference_turns_one_set_into_the_other() {
        let actual = routes(&[
            ("10.0.0.0/24", "1.1.1.1"),
            ("10.0.1.0/24", "1.1.1.1"),
            ("10.0.2.0/24", "1.1.1.1"),
        ]);
        let wanted = routes(&[
            ("10.0.0.0/24", "1.1.1.1"),
            ("10.0.1.0/24", "2.2.2.2"),
            ("10.0.3.0/24", "1.1.1.1"),
        ]);
        let (remove, add) = difference(&actual, &wanted);
        assert_eq!(remove, ["10.0.2.0/24".parse().unwrap()]);
        assert_eq!(add, routes(&[("10.0.1.0/24", "2.2.2.2"), ("10.0.3.0/24", "1.1.1.1")]));
        assert_eq!(difference(&wanted, &wanted), (Vec::new(), Routes::new()));
    }
}
