//! Detects changes to the proxy's tables and routes by others: `nft flush ruleset`, a firewall
//! service that restarts, an interface that goes down and takes its routes along. The kernel sends
//! notifications, so nothing is polled; the loop then inspects the state and repairs it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

use crate::nft::{self, Attributes};
use crate::routes::ROUTE_PROTOCOL;
use crate::table::TABLE;

/// `1 << (NFNLGRP_NFTABLES - 1)`.
const NFTABLES_GROUP: u32 = 1 << 6;
/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`.
const ROUTE_GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x400;
/// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_NEWADDR`, `RTM_DELADDR`, `RTM_DELROUTE`.
const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETED_ADDRESS: u16 = 21;
const DELETED_ROUTE: u16 = 25;
const LINK_NAME: u16 = 3;
const RECEIVE_BYTES: usize = 64 * 1024;

/// What has been changed by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Rules,
    Routes,
}

/// Receives notifications of changes in the network namespace of the thread that opened it.
pub struct Monitor {
    rules: AsyncFd<OwnedFd>,
    routes: AsyncFd<OwnedFd>,
}

impl Monitor {
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            rules: listen(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?,
            routes: listen(SockProtocol::NetlinkRoute, ROUTE_GROUPS)?,
        })
    }

    /// Waits for a change by others. `own_port` is the netlink port id of the proxy's own
    /// transactions.
    pub async fn changed(&self, own_port: Option<u32>) -> io::Result<Changed> {
        tokio::select! {
            received = receive(&self.rules, |message| is_foreign_rule(message, own_port)) => {
                received.map(|()| Changed::Rules)
            }
            received = receive(&self.routes, is_about_routes) => received.map(|()| Changed::Routes),
        }
    }
}

fn listen(protocol: SockProtocol, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // Deprecated because of types whose descriptor may change or be closed; an OwnedFd's does not.
    #[allow(deprecated)]
    AsyncFd::new(fd)
}

/// Returns when a relevant message arrives, or when messages were lost.
async fn receive(
    socket: &AsyncFd<OwnedFd>,
    relevant: impl Fn(&nft::Notification<'_>) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let mut ready = socket.readable().await?;
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                if nft::notifications(&buffer[..length]).any(|message| relevant(&message)) {
                    return Ok(());
                }
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            // The socket's buffer overflowed, mostly with our own messages: assume a change.
            Err(Errno::ENOBUFS) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_foreign_rule(message: &nft::Notification<'_>, own_port: Option<u32>) -> bool {
    const NFTABLES: u16 = 10;
    let attributes = Attributes(message.body.get(4..).unwrap_or_default());
    message.kind >> 8 == NFTABLES
        && Some(message.port) != own_port
        && attributes.get_str(1) == Some(TABLE)
}

/// Interfaces of pods come and go without affecting routes to other nodes.
fn is_about_routes(message: &nft::Notification<'_>) -> bool {
    match message.kind {
        // struct rtmsg: family, three lengths and types, table, protocol.
        DELETED_ROUTE => message.body.get(5) == Some(&ROUTE_PROTOCOL),
        NEW_ADDRESS | DELETED_ADDRESS => true,
        NEW_LINK | DELETED_LINK => {
            let attributes = Attributes(message.body.get(16..).unwrap_or_default());
            let name = attributes.get_str(LINK_NAME).unwrap_or_default();
            !name.starts_with("veth")
        }
        _ => false,
    }
}
