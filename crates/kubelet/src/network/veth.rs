//! The veth pair of a pod: its two ends, their addresses, routes and neighbours.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope, RouteType};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use api::pod::link_name;

use super::netns::Connection;
use super::{NetworkError, ROUTE_PROTOCOL, sysctl};

/// The pod's end, by its customary name.
const POD_LINK: &str = "eth0";
/// `lo` is the first interface of every network namespace.
const LOOPBACK_INDEX: u32 = 1;
/// The gateway that pods see. It is on no interface: the permanent neighbour entry answers for it.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The hardware address of the node's end; the same for all, since no two are on one link.
const NODE_MAC: [u8; 6] = [0xee; 6];
/// Lower in priority than anyone else's route for the same range.
const UNREACHABLE_METRIC: u32 = 30_000;

/// The node's side: a netlink connection in the node's namespace, and the properties of its links.
pub(super) struct Node {
    netlink: Connection,
    ip: IpAddr,
    mtu: u32,
}

impl Node {
    pub(super) async fn open(ip: IpAddr) -> Result<Self, NetworkError> {
        let netlink = Connection::open()?;
        let mtu = uplink_mtu(&netlink, ip).await?;
        Ok(Self { netlink, ip, mtu })
    }

    /// Answers "host unreachable" for unallocated pod addresses, instead of routing packets out and
    /// back again.
    pub(super) async fn refuse_unallocated(&self, range: IpNet) -> Result<(), NetworkError> {
        let route = route(range).kind(RouteType::Unreachable).priority(UNREACHABLE_METRIC).build();
        let request = self.netlink.handle.route().add(route).replace();
        request.execute().await.map_err(|source| NetworkError::Node {
            action: "add the route for unallocated pod addresses",
            source,
        })
    }

    /// Creates the link if the namespace has none, and everything on it that is missing.
    pub(super) async fn connect(
        &self,
        uid: &str,
        ips: &[IpAddr],
        netns: &Path,
    ) -> Result<(), NetworkError> {
        let namespace = File::open(netns)
            .map_err(|source| NetworkError::Namespace { path: netns.to_owned(), source })?;
        let fd = namespace.try_clone().map_err(NetworkError::Socket)?;
        let pod = Connection::enter(namespace, netns).await?;
        let failed =
            |action| move |source| NetworkError::Link { action, uid: uid.to_owned(), source };
        let name = link_name(uid);
        let mac = pod_mac(ips[0]);
        let mut pod_index = find(&pod, POD_LINK, Some(mac)).await.map_err(failed("find eth0"))?;
        let old = find(&self.netlink, &name, None).await.map_err(failed("find the link"))?;
        if old.is_none() || pod_index.is_none() {
            if let Some(index) = old {
                self.delete(index).await.map_err(failed("remove the old link"))?;
            }
            let links = self.netlink.handle.link();
            let message = veth(&name, mac, self.mtu, &fd);
            links.add(message).execute().await.map_err(failed("create the link"))?;
            pod_index = find(&pod, POD_LINK, Some(mac)).await.map_err(failed("find eth0"))?;
        }
        let gone = failed("find the new link")(rtnetlink::Error::RequestFailed);
        let index = find(&self.netlink, &name, None).await.map_err(failed("find the link"))?;
        let (Some(index), Some(pod_index)) = (index, pod_index) else {
            return Err(gone);
        };
        sysctl::prepare_link(&name)?;
        configure_pod(&pod, pod_index, ips).await.map_err(failed("configure eth0"))?;
        self.configure_node(index, ips, mac).await.map_err(failed("add the routes"))
    }

    /// Removes the link, and with it the pod's end, its routes and neighbours.
    pub(super) async fn disconnect(&self, uid: &str) -> Result<(), NetworkError> {
        let failed =
            |source| NetworkError::Link { action: "remove the link", uid: uid.to_owned(), source };
        match find(&self.netlink, &link_name(uid), None).await.map_err(failed)? {
            Some(index) => self.delete(index).await.map_err(failed),
            None => Ok(()),
        }
    }

    async fn delete(&self, index: u32) -> Result<(), rtnetlink::Error> {
        match self.netlink.handle.link().del(index).execute().await {
            Err(error) if is_missing(&error) => Ok(()),
            result => result,
        }
    }

    async fn configure_node(
        &self,
        index: u32,
        ips: &[IpAddr],
        mac: [u8; 6],
    ) -> Result<(), rtnetlink::Error> {
        let handle = &self.netlink.handle;
        for ip in ips {
            let neighbour = handle.neighbours().add(index, *ip);
            neighbour.link_layer_address(&mac).replace().execute().await?;
            let mut to_pod = route(IpNet::from(*ip)).output_interface(index).scope(link_scope(*ip));
            if self.ip.is_ipv4() == ip.is_ipv4() {
                to_pod = to_pod.pref_source(self.ip).expect("of the route's own family");
            }
            handle.route().add(to_pod.build()).replace().execute().await?;
        }
        Ok(())
    }
}

async fn configure_pod(
    pod: &Connection,
    index: u32,
    ips: &[IpAddr],
) -> Result<(), rtnetlink::Error> {
    let handle = &pod.handle;
    for link in [LOOPBACK_INDEX, index] {
        let up = LinkUnspec::new_with_index(link).up().build();
        handle.link().set(up).execute().await?;
    }
    for ip in ips {
        let mut address = handle.address().add(index, *ip, IpNet::from(*ip).prefix_len());
        if ip.is_ipv6() {
            // The address is unique: it is usable at once, without duplicate address detection.
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            address.message_mut().attributes.push(flags);
        }
        address.replace().execute().await?;
        let gateway = gateway(*ip);
        let neighbour = handle.neighbours().add(index, gateway);
        neighbour.link_layer_address(&NODE_MAC).replace().execute().await?;
        if ip.is_ipv4() {
            let to_gateway =
                route(IpNet::from(gateway)).output_interface(index).scope(RouteScope::Link);
            handle.route().add(to_gateway.build()).replace().execute().await?;
        }
        let default = route(default_range(*ip))
            .gateway(gateway)
            .expect("of the route's own family")
            .output_interface(index);
        handle.route().add(default.build()).replace().execute().await?;
    }
    Ok(())
}

/// Both ends at once with their hardware addresses, the pod's end created in its namespace. That
/// end cannot be created up: the kernel creates it first, when it has no peer yet.
fn veth(name: &str, pod_mac: [u8; 6], mtu: u32, netns: &File) -> LinkMessage {
    let peer = LinkUnspec::new_with_name(POD_LINK)
        .append_extra_attribute(LinkAttribute::Address(pod_mac.to_vec()))
        .append_extra_attribute(LinkAttribute::Mtu(mtu))
        .append_extra_attribute(LinkAttribute::NetNsFd(netns.as_raw_fd()))
        .build();
    LinkVeth::new(name, POD_LINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .append_extra_attribute(LinkAttribute::Address(NODE_MAC.to_vec()))
        .append_extra_attribute(LinkAttribute::Mtu(mtu))
        .up()
        .build()
}

/// A route of ours, in the main table.
fn route(to: IpNet) -> RouteMessageBuilder<IpAddr> {
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .expect("a network has a valid prefix length")
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
}

fn gateway(pod_ip: IpAddr) -> IpAddr {
    match pod_ip {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

fn default_range(pod_ip: IpAddr) -> IpNet {
    match pod_ip {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// IPv6 routes know only the universe scope.
fn link_scope(ip: IpAddr) -> RouteScope {
    match ip {
        IpAddr::V4(_) => RouteScope::Link,
        IpAddr::V6(_) => RouteScope::Universe,
    }
}

/// Derived from the address, so that both ends know it.
fn pod_mac(ip: IpAddr) -> [u8; 6] {
    let tail = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    };
    [0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]]
}

/// The index of the link of that name (and hardware address), if there is one.
async fn find(
    netlink: &Connection,
    name: &str,
    mac: Option<[u8; 6]>,
) -> Result<Option<u32>, rtnetlink::Error> {
    let mut links = netlink.handle.link().get().match_name(name).execute();
    let link = match links.try_next().await {
        Ok(link) => link,
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(error),
    };
    let matches = |link: &LinkMessage| {
        let wanted = |attribute: &LinkAttribute| matches!((attribute, mac), (LinkAttribute::Address(found), Some(mac)) if *found == mac);
        mac.is_none() || link.attributes.iter().any(wanted)
    };
    Ok(link.filter(matches).map(|link| link.header.index))
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -libc::ENODEV)
}

/// The MTU of the interface that holds the node's address.
async fn uplink_mtu(netlink: &Connection, node_ip: IpAddr) -> Result<u32, NetworkError> {
    let failed = |action| move |source| NetworkError::Node { action, source };
    let mut addresses = netlink.handle.address().get().set_address_filter(node_ip).execute();
    let address = addresses.try_next().await.map_err(failed("list the addresses"))?;
    let index = address.ok_or(NetworkError::NoSuchAddress(node_ip))?.header.index;
    let mut links = netlink.handle.link().get().match_index(index).execute();
    let link = links.try_next().await.map_err(failed("find the uplink"))?;
    let mtu =
        link.into_iter().flat_map(|link| link.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        });
    mtu.ok_or(NetworkError::NoSuchAddress(node_ip))
}
