//! The links of this node's own pods: each has a route for its address alone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

/// Errors of reading routes and links.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("list the routes")]
    Routes(#[source] rtnetlink::Error),
    #[error("list the links")]
    Links(#[source] rtnetlink::Error),
}

/// The names of the links that lead to these addresses and to no others.
pub(super) async fn of(addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>, LinkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
    tokio::spawn(connection);
    let mut indexes: HashMap<u32, Vec<IpAddr>> = HashMap::new();
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for family in [v4, v6] {
        let mut routes = handle.route().get(family).execute();
        while let Some(route) = routes.try_next().await.map_err(LinkError::Routes)? {
            if let Some((ip, index)) = host(&route).filter(|(ip, _)| addresses.contains(ip)) {
                indexes.entry(index).or_default().push(ip);
            }
        }
    }
    let mut found = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await.map_err(LinkError::Links)? {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        let own = indexes.remove(&link.header.index).unwrap_or_default();
        if let Some(name) = name {
            found.extend(own.into_iter().map(|ip| (ip, name.clone())));
        }
    }
    Ok(found)
}

/// The address of a route for one address, and the index of its link.
fn host(route: &RouteMessage) -> Option<(IpAddr, u32)> {
    let ip = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let index = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let length = if ip.is_ipv4() { 32 } else { 128 };
    let is_host = route.header.destination_prefix_length == length;
    (is_host && route.header.kind == RouteType::Unicast).then_some((ip, index))
}
