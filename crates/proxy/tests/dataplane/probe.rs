//! Attempts of connections over all protocols, many at once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// What is not allowed must not arrive within this time.
const PATIENCE: Duration = Duration::from_millis(200);
/// What is allowed must arrive, even on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// The number of SCTP among the protocols of IP.
const SCTP: i32 = 132;

/// A connection, and whether it should come about.
pub struct Probe {
    pub to: SocketAddr,
    pub protocol: &'static str,
    pub allowed: bool,
}

/// The source ports of SCTP packets that have arrived somewhere: the kernel may have no SCTP, so
/// nobody answers them.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<Mutex<BTreeSet<u16>>>);

impl Arrivals {
    /// Takes note of what arrives in the namespace from now on.
    pub fn listen(&self, netns: &Netns) {
        for (domain, has_header) in [(Domain::IPV4, true), (Domain::IPV6, false)] {
            let socket = netns.run(move || raw(domain));
            let arrived = self.0.clone();
            std::thread::spawn(move || {
                let mut packet = [0; 256];
                while let Ok(length) = socket.recv(&mut packet) {
                    let header = if has_header { usize::from(packet[0] & 15) * 4 } else { 0 };
                    if let Some([high, low]) = packet[..length].get(header..header + 2) {
                        arrived.lock().unwrap().insert(u16::from_be_bytes([*high, *low]));
                    }
                }
            });
        }
    }
}

/// A raw socket for SCTP; the type stands for any that can send and receive.
fn raw(domain: Domain) -> UdpSocket {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP))).unwrap();
    UdpSocket::from(OwnedFd::from(socket))
}

/// The packet that begins an association.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    // Verification tag, checksum (not checked on the way), INIT with its tag, window and streams.
    packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20]);
    packet.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    packet
}

enum Open {
    Tcp(TcpStream),
    Udp(UdpSocket),
    /// The port that it came from.
    Sctp(u16),
}

impl Open {
    fn new(probe: &Probe) -> Self {
        let any: IpAddr = match probe.to {
            SocketAddr::V4(_) => "0.0.0.0".parse().unwrap(),
            SocketAddr::V6(_) => "::".parse().unwrap(),
        };
        match probe.protocol {
            "TCP" => {
                let family = if any.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
                let started = connect(fd.as_raw_fd(), &SockaddrStorage::from(probe.to));
                assert_eq!(started, Err(Errno::EINPROGRESS));
                Self::Tcp(fd.into())
            }
            "UDP" => {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.connect(probe.to).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket.send(b"?").unwrap();
                Self::Udp(socket)
            }
            _ => {
                // Never used again: no entry of an earlier attempt lets it pass.
                static NEXT: AtomicU16 = AtomicU16::new(20_000);
                let from = NEXT.fetch_add(1, Ordering::Relaxed);
                let socket = raw(Domain::for_address(probe.to));
                let packet = sctp_init(from, probe.to.port());
                // A packet that a rule of the own namespace drops is an error here.
                socket.send_to(&packet, (probe.to.ip(), 0)).ok();
                Self::Sctp(from)
            }
        }
    }

    /// Whether there was an answer, or at least the packet has arrived.
    fn is_answered(&self, arrivals: &Arrivals) -> bool {
        match self {
            Self::Tcp(stream) => stream.peer_addr().is_ok(),
            Self::Udp(socket) => socket.recv(&mut [0; 64]).is_ok(),
            Self::Sctp(from) => arrivals.0.lock().unwrap().contains(from),
        }
    }
}

/// Runs the probes in the current namespace; returns what should have been otherwise.
#[allow(clippy::disallowed_methods)]
pub fn run(probes: &[Probe], arrivals: &Arrivals) -> Vec<String> {
    let start = Instant::now();
    let open: Vec<Open> = probes.iter().map(Open::new).collect();
    let mut answered: BTreeSet<usize> = BTreeSet::new();
    loop {
        answered.extend((0..open.len()).filter(|index| open[*index].is_answered(arrivals)));
        let missing = |(index, probe): (usize, &Probe)| probe.allowed && !answered.contains(&index);
        let complete = !probes.iter().enumerate().any(missing);
        if (complete && start.elapsed() > PATIENCE) || start.elapsed() > TIMEOUT {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let wrong =
        probes.iter().enumerate().filter(|(at, probe)| probe.allowed != answered.contains(at));
    let line = |(_, probe): (usize, &Probe)| {
        format!("{} {} should be allowed: {}", probe.protocol, probe.to, probe.allowed)
    };
    wrong.map(line).collect()
}
