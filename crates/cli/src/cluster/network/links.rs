//! Links, addresses and routes by netlink, in the network namespace of the thread that
//! connects. Every operation is idempotent: what exists is kept.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::Context;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// A netlink connection of one namespace.
pub struct Links(Handle);

/// Connects. To be called on a thread in the namespace, inside a runtime of its own.
///
/// # Errors
/// When the socket cannot be opened.
pub fn connect() -> anyhow::Result<Links> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open netlink")?;
    tokio::spawn(connection);
    Ok(Links(handle))
}

impl Links {
    async fn index(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let mut found = self.0.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look up the link {name}")),
        }
    }

    async fn existing(&self, name: &str) -> anyhow::Result<u32> {
        self.index(name).await?.with_context(|| format!("there is no link {name}"))
    }

    pub async fn exists(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.index(name).await?.is_some())
    }

    pub async fn up(&self, name: &str) -> anyhow::Result<()> {
        let index = self.existing(name).await?;
        let message = LinkUnspec::new_with_index(index).up().build();
        let set = self.0.link().set(message).execute().await;
        set.with_context(|| format!("cannot bring {name} up"))
    }

    pub async fn down(&self, name: &str) -> anyhow::Result<()> {
        let index = self.existing(name).await?;
        let message = LinkUnspec::new_with_index(index).down().build();
        let set = self.0.link().set(message).execute().await;
        set.with_context(|| format!("cannot take {name} down"))
    }

    /// Creates a bridge and brings it up.
    pub async fn bridge(&self, name: &str, mtu: u32) -> anyhow::Result<()> {
        let message = LinkBridge::new(name).mtu(mtu).up().build();
        let added = self.0.link().add(message).execute().await;
        unless(added, Errno::EEXIST).with_context(|| format!("cannot add the bridge {name}"))?;
        self.up(name).await
    }

    /// Creates a pair of links: one here, its peer in the namespace pinned at the path.
    pub async fn veth(
        &self,
        name: &str,
        peer: &str,
        mtu: u32,
        peer_namespace: &Path,
    ) -> anyhow::Result<()> {
        // The peer is created with a temporary name, and gets its own when it is moved.
        let temporary = format!("p{name}").chars().take(15).collect::<String>();
        let message = LinkVeth::new(name, &temporary).mtu(mtu).build();
        let added = self.0.link().add(message).execute().await;
        added.with_context(|| format!("cannot add the link {name}"))?;
        let namespace = File::open(peer_namespace)?;
        let index = self.existing(&temporary).await?;
        let message = LinkUnspec::new_with_index(index)
            .setns_by_fd(namespace.as_raw_fd())
            .name(peer)
            .mtu(mtu)
            .build();
        let moved = self.0.link().set(message).execute().await;
        moved.with_context(|| format!("cannot move the link {peer} into its namespace"))
    }

    pub async fn join_bridge(&self, port: &str, bridge: &str) -> anyhow::Result<()> {
        let (port_index, bridge_index) = (self.existing(port).await?, self.existing(bridge).await?);
        let message = LinkUnspec::new_with_index(port_index).controller(bridge_index).build();
        let joined = self.0.link().set(message).execute().await;
        joined.with_context(|| format!("cannot make {port} a port of {bridge}"))
    }

    pub async fn address(&self, link: &str, address: Ipv4Addr, prefix: u8) -> anyhow::Result<()> {
        let index = self.existing(link).await?;
        let added = self.0.address().add(index, IpAddr::V4(address), prefix).execute().await;
        unless(added, Errno::EEXIST)
            .with_context(|| format!("cannot give {link} the address {address}/{prefix}"))
    }

    /// Adds or replaces the route to a range (`0.0.0.0/0` is the default route).
    pub async fn route(&self, range: Ipv4Net, gateway: Ipv4Addr) -> anyhow::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .gateway(gateway)
            .build();
        let added = self.0.route().add(route).replace().execute().await;
        added.with_context(|| format!("cannot add the route to {range} via {gateway}"))
    }

    /// Removes a link if it exists.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        let deleted = self.0.link().del(index).execute().await;
        unless(deleted, Errno::ENODEV).with_context(|| format!("cannot remove the link {name}"))
    }
}

fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if message.raw_code() == -(errno as i32))
}

fn unless(result: Result<(), rtnetlink::Error>, expected: Errno) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is(&error, expected) => Ok(()),
        other => other,
    }
}
