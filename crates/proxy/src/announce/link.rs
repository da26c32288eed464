//! The interfaces on whose links addresses are announced, and raw sockets on them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrStorage, bind, recvfrom, send};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::frame::{self, Arp, Claim, Mac};
use super::neighbour::{self, Solicitation};

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// The largest frame that is read; a longer one is not ours.
const FRAME_MAX: usize = 2048;

/// An Ethernet interface that is up and has a carrier.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub mac: Mac,
    /// Its address for binding.
    link: LinkAddr,
    /// The networks that it is in.
    networks: Vec<IpNet>,
}

impl Interface {
    /// Whether machines on the link expect the address there.
    pub fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether both are the same interface; its networks may differ.
    pub fn is(&self, other: &Self) -> bool {
        (&self.name, self.mac, self.index()) == (&other.name, other.mac, other.index())
    }

    pub fn index(&self) -> u32 {
        u32::try_from(self.link.ifindex()).unwrap_or_default()
    }
}

/// The interfaces in the thread's network namespace that addresses can be announced on.
///
/// # Errors
/// If they cannot be listed.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut links: BTreeMap<String, (LinkAddr, Mac)> = BTreeMap::new();
    let mut networks: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    let usable =
        InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_BROADCAST;
    for found in getifaddrs()?.filter(|found| found.flags.contains(usable)) {
        let Some(address) = found.address else {
            continue;
        };
        if let Some(link) = address.as_link_addr() {
            if let Some(mac) = link.addr().filter(|_| link.hatype() == ETHERNET) {
                links.insert(found.interface_name, (*link, mac));
            }
        } else if let Some(network) = network(&address, found.netmask.as_ref()) {
            networks.entry(found.interface_name).or_default().push(network);
        }
    }
    let interface = |(name, (link, mac))| {
        let networks = networks.remove(&name).unwrap_or_default();
        Interface { name, mac, link, networks }
    };
    Ok(links.into_iter().map(interface).collect())
}

/// The network of an address; `None` for a host's, and for IPv6 ones that every link has.
fn network(address: &SockaddrStorage, mask: Option<&SockaddrStorage>) -> Option<IpNet> {
    let ip = |address: &SockaddrStorage| -> Option<IpAddr> {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    let network = IpNet::with_netmask(ip(address)?, ip(mask?)?).ok()?;
    let link_local = match network.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (!link_local && network.prefix_len() < network.max_prefix_len()).then_some(network)
}

/// What arrived on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Arp(Arp),
    Solicitation(Solicitation),
    Claims(Mac, Vec<Claim>),
}

/// Sockets on one interface.
pub struct Link {
    pub interface: Interface,
    arp: AsyncFd<OwnedFd>,
    claims: AsyncFd<OwnedFd>,
    /// Opened when there are IPv6 addresses.
    neighbours: Option<neighbour::Listener>,
}

impl Link {
    /// # Errors
    /// If the sockets cannot be opened: the interface may be gone, or the rights missing.
    pub fn open(interface: Interface) -> io::Result<Self> {
        let arp = open(&interface.link, frame::ARP)?;
        let claims = open(&interface.link, frame::CLAIMS)?;
        Ok(Self { arp, claims, interface, neighbours: None })
    }

    /// Sets the IPv6 addresses whose resolution has to be answered.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_neighbours(&mut self, addresses: &[Ipv6Addr]) -> io::Result<()> {
        if addresses.is_empty() {
            self.neighbours = None;
            return Ok(());
        }
        if self.neighbours.is_none() {
            let fd = open(&self.interface.link, neighbour::IPV6)?;
            self.neighbours = Some(neighbour::Listener::new(fd)?);
        }
        match &mut self.neighbours {
            Some(listener) => listener.join(addresses, self.interface.index()),
            None => Ok(()),
        }
    }

    /// Waits for a frame that concerns announcements.
    ///
    /// # Errors
    /// If the interface is down or gone.
    pub async fn receive(&self) -> io::Result<Received> {
        let index = self.interface.link.ifindex();
        let neighbours = async {
            match &self.neighbours {
                Some(listener) => receive(listener.socket(), index, Solicitation::decode).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            arp = receive(&self.arp, index, Arp::decode) => arp.map(Received::Arp),
            claims = receive(&self.claims, index, frame::decode_claims) => {
                claims.map(|(from, claims)| Received::Claims(from, claims))
            }
            asked = neighbours => asked.map(Received::Solicitation),
        }
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// If the interface is down or gone, or its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.claims.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// A packet socket for the frames of one kind on an interface.
fn open(interface: &LinkAddr, kind: u16) -> io::Result<AsyncFd<OwnedFd>> {
    // The kernel expects network byte order.
    let protocol = Protocol::from(i32::from(kind.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // An address without a protocol leaves the socket's as it is.
    bind(socket.as_raw_fd(), interface)?;
    // Deprecated because of types whose descriptor may change or be closed; an OwnedFd's does not.
    #[allow(deprecated)]
    AsyncFd::new(OwnedFd::from(socket))
}

async fn receive<T>(
    socket: &AsyncFd<OwnedFd>,
    index: usize,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut buffer = [0; FRAME_MAX];
    loop {
        let mut ready = socket.readable().await?;
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                // Before it was bound, the socket received from all interfaces.
                let here = from.is_some_and(|from| from.ifindex() == index);
                if let Some(decoded) = decode(&buffer[..length]).filter(|_| here) {
                    return Ok(decoded);
                }
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
