//! VXLAN tunnels to the pods of nodes on other links.
//!
//! There is no learning or flooding. The MAC address of each end is derived from its node's
//! address, so a Node object provides everything about a peer: pod range and node address, and from
//! them the entries of the neighbour table (the first address of the range, which no pod has, to
//! MAC address) and of the forwarding database (MAC address to node address).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::{Handle, LinkVxlan};

/// The name of the interface.
pub const LINK: &str = "skiff-vxlan";
/// The VXLAN network identifier (VNI).
pub const NETWORK_ID: u32 = 1;
/// IANA's port for VXLAN.
pub const PORT: u16 = 4789;

/// The peers: pod range to node address.
pub type Peers = BTreeMap<Ipv4Net, Ipv4Addr>;

/// This node's end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEndpoint {
    pub node_ip: Ipv4Addr,
    pub range: Ipv4Net,
    /// The index of the interface with the node's address.
    pub uplink: u32,
}

/// The MAC address of a node's end.
fn mac(node_ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node_ip.octets();
    [0x0e, 0x58, a, b, c, d]
}

/// Configures the interface for the peers, and returns its index; without peers the interface is
/// removed.
pub async fn converge(
    handle: &Handle,
    local: TunnelEndpoint,
    peers: &Peers,
) -> Result<Option<u32>, rtnetlink::Error> {
    let mut found = find(handle).await?;
    if let Some((index, address)) = &found
        && (peers.is_empty() || *address != mac(local.node_ip))
    {
        handle.link().del(*index).execute().await?;
        found = None;
    }
    if peers.is_empty() {
        return Ok(None);
    }
    if found.is_none() {
        let link = LinkVxlan::new(LINK, NETWORK_ID)
            .local(local.node_ip)
            .dev(local.uplink)
            .port(PORT)
            .learning(false)
            .append_extra_attribute(LinkAttribute::Address(mac(local.node_ip).to_vec()))
            .up();
        handle.link().add(link.build()).execute().await?;
        found = find(handle).await?;
    }
    let Some((index, _)) = found else {
        return Err(rtnetlink::Error::RequestFailed);
    };
    // The source of this node's own connections through the tunnel, so that replies return through
    // it. Adding an address that exists would cause a notification, and thus an endless loop.
    let own = IpAddr::V4(local.range.network());
    let present = handle.address().get().set_link_index_filter(index).set_address_filter(own);
    if present.execute().try_next().await?.is_none() {
        handle.address().add(index, own, 32).execute().await?;
    }
    remove_stale_entries(handle, index, peers).await?;
    for (range, node_ip) in peers {
        let gateway = IpAddr::V4(range.network());
        let neighbour = handle.neighbours().add(index, gateway);
        neighbour.link_layer_address(&mac(*node_ip)).replace().execute().await?;
        let forward = handle.neighbours().add_bridge(index, &mac(*node_ip));
        let forward = forward.destination(IpAddr::V4(*node_ip)).flags(NeighbourFlags::Own);
        forward.replace().execute().await?;
    }
    Ok(Some(index))
}

/// Removes the interface, if it exists.
pub async fn remove(handle: &Handle) -> Result<(), rtnetlink::Error> {
    match find(handle).await? {
        Some((index, _)) => handle.link().del(index).execute().await,
        None => Ok(()),
    }
}

/// The index and MAC address of the interface.
async fn find(handle: &Handle) -> Result<Option<(u32, [u8; 6])>, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(LINK).execute();
    let link = match links.try_next().await {
        Ok(link) => link,
        Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -(nix::errno::Errno::ENODEV as i32) =>
        {
            None
        }
        Err(error) => return Err(error),
    };
    let described = link.map(|link| {
        let address = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => <[u8; 6]>::try_from(address.as_slice()).ok(),
            _ => None,
        });
        (link.header.index, address.unwrap_or_default())
    });
    Ok(described)
}

/// Removes the entries of nodes that are no longer peers.
async fn remove_stale_entries(
    handle: &Handle,
    index: u32,
    peers: &Peers,
) -> Result<(), rtnetlink::Error> {
    for family in [AddressFamily::Inet, AddressFamily::Bridge] {
        let mut stale = Vec::new();
        let request = handle.neighbours().get().set_address_family(family);
        let mut entries = request.execute();
        while let Some(entry) = entries.try_next().await? {
            if entry.header.ifindex == index && !is_wanted(&entry, peers) {
                stale.push(entry);
            }
        }
        drop(entries);
        for entry in stale {
            handle.neighbours().del(entry).execute().await?;
        }
    }
    Ok(())
}

fn is_wanted(entry: &NeighbourMessage, peers: &Peers) -> bool {
    let destination = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        _ => None,
    });
    match (entry.header.family, destination) {
        (AddressFamily::Inet, Some(ip)) => peers.keys().any(|range| range.network() == ip),
        (_, Some(ip)) => peers.values().any(|node_ip| *node_ip == ip),
        // Not one of our entries.
        (_, None) => true,
    }
}
