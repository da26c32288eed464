//! Routes to the pods of other nodes: each node's pod range by way of its address. Nodes share a
//! link; a node that is not reachable directly is an error that is logged and tried again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::model::Node;
use crate::plan::family_of;

/// The route protocol number that marks the proxy's routes (`ip route show proto 173`); it touches
/// no others.
pub const ROUTE_PROTOCOL: u8 = 173;

/// Pod range to the address of its node.
pub type Routes = BTreeMap<IpNet, IpAddr>;

/// A route that could not be listed, added or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    #[error("list the routes")]
    List(#[source] rtnetlink::Error),
    #[error("add the route to {0} via {1}")]
    Add(IpNet, IpAddr, #[source] rtnetlink::Error),
    #[error("remove the route to {0}")]
    Remove(IpNet, #[source] rtnetlink::Error),
}

/// The routes that the node of `own_name` needs.
pub fn plan(own_name: &str, nodes: &BTreeMap<&str, &Node>) -> Routes {
    let others = nodes.iter().filter(|(name, _)| **name != own_name);
    let routes = others.flat_map(|(_, node)| {
        node.pod_cidrs.iter().filter_map(|range| {
            let family = family_of(range.addr());
            let via = node
                .internal_ips
                .iter()
                .find(|ip| family_of(**ip) == family)?;
            Some((range.trunc(), *via))
        })
    });
    routes.collect()
}

/// What turns the one set of routes into the other: what to remove, what to add or replace.
pub fn difference(actual: &Routes, wanted: &Routes) -> (Vec<IpNet>, Routes) {
    let remove = actual.keys().filter(|range| !wanted.contains_key(range));
    let add = wanted
        .iter()
        .filter(|(range, via)| actual.get(range) != Some(via));
    (
        remove.copied().collect(),
        add.map(|(range, via)| (*range, *via)).collect(),
    )
}

/// Makes the kernel's routes of ours the wanted ones. One that fails does not keep the others from
/// being made; the first error is returned.
pub async fn apply(wanted: &Routes) -> Result<(), RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
    let task = tokio::spawn(connection);
    let result = converge(&handle, wanted).await;
    task.abort();
    result
}

async fn converge(handle: &Handle, wanted: &Routes) -> Result<(), RouteError> {
    let present = list(handle).await?;
    let actual = present
        .iter()
        .map(|(range, (via, _))| (*range, *via))
        .collect();
    let (remove, add) = difference(&actual, wanted);
    let mut result = Ok(());
    for range in remove {
        let message = present[&range].1.clone();
        let removed = handle.route().del(message).execute().await;
        result = result.and(removed.map_err(|error| RouteError::Remove(range, error)));
    }
    for (range, via) in add {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(range.addr(), range.prefix_len())
            .and_then(|route| route.gateway(via))
            .expect("range and gateway are of one family")
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        let added = handle.route().add(route).replace().execute().await;
        match added {
            Ok(()) => tracing::info!(%range, %via, "routed to another node's pods"),
            Err(error) => result = result.and(Err(RouteError::Add(range, via, error))),
        }
    }
    result
}

/// Our routes, with the messages to delete them by.
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
    let to = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        });
    let via = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
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
            zone: None,
        }
    }

    fn routes(routes: &[(&str, &str)]) -> Routes {
        let parse = |(range, via): &(&str, &str)| (range.parse().unwrap(), via.parse().unwrap());
        routes.iter().map(parse).collect()
    }

    #[test]
    fn routes_lead_to_all_other_nodes() {
        let (a, b) = (
            node("10.244.0.0/24", "192.168.7.11"),
            node("10.244.1.0/24", "192.168.7.12"),
        );
        let pending = Node::default();
        let nodes = BTreeMap::from([("a", &a), ("b", &b), ("c", &pending)]);
        assert_eq!(
            plan("a", &nodes),
            routes(&[("10.244.1.0/24", "192.168.7.12")])
        );
    }

    #[test]
    fn the_difference_is_what_must_be_done() {
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
        assert_eq!(
            add,
            routes(&[("10.0.1.0/24", "2.2.2.2"), ("10.0.3.0/24", "1.1.1.1")])
        );
        assert_eq!(difference(&wanted, &wanted), (Vec::new(), Routes::new()));
    }
}
