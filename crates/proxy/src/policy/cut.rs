//! Ends connections that policies no longer allow.
//!
//! Packets of established connections are not judged again, so a connection ends by removing its
//! conntrack entry: its next packet counts as the first of a connection that is not allowed. Which
//! connections these are is found by inspecting all of them, not by recording changes, so that the
//! next run makes up for a missed one.

use std::collections::HashSet;
use std::net::IpAddr;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;

use super::{Connection, Policies};
use crate::conntrack;
use crate::nft::{Family, NftError, Socket};
use crate::plan::Changes;
use crate::table::Data;

/// Whether the changes may forbid a connection that exists.
pub fn may_forbid(changes: &Changes) -> bool {
    changes.iter().any(|(id, change)| {
        let closes = matches!(change.after, Some(Data::Goto(_)));
        id.map.is_policy() && (change.before.is_some() || closes)
    })
}

/// The addresses of this node, whose connections with its own pods are always allowed: those in the
/// network namespace of the calling thread.
///
/// # Errors
/// If the kernel does not list them.
pub fn own_addresses() -> Result<HashSet<IpAddr>, Errno> {
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let address = address.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(getifaddrs()?.filter_map(ip).collect())
}

/// Removes the entries of connections that are not allowed; returns their number.
pub(crate) fn cut(
    socket: &mut Socket,
    family: Family,
    policies: &Policies,
    own: &HashSet<IpAddr>,
) -> Result<usize, NftError> {
    let is_forbidden = |flow: &conntrack::Flow| {
        let connection = flow.connection();
        let ends = [connection.source, connection.destination];
        !ends.iter().any(|ip| own.contains(ip)) && !policies.allows(&connection)
    };
    let forbidden = conntrack::list(socket, family, is_forbidden)?;
    for flow in &forbidden {
        conntrack::delete(socket, family, flow)?;
    }
    Ok(forbidden.len())
}

impl conntrack::Flow {
    fn connection(&self) -> Connection {
        Connection {
            source: self.original.source,
            destination: self.reply.source,
            protocol: self.original.protocol,
            port: self.reply.source_port,
        }
    }
}
