//! The address that the server listens on, assigned to `lo` of every node, so that queries never
//! leave the node.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressScope};
use tokio::task::JoinHandle;

/// `lo` is the first interface of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// An address could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    #[error("add {0} to lo")]
    Add(IpAddr, #[source] rtnetlink::Error),
    #[error("remove {0} from lo")]
    Remove(IpAddr, #[source] rtnetlink::Error),
}

/// Addresses assigned to `lo` until they are removed.
pub struct Addresses {
    handle: Handle,
    task: JoinHandle<()>,
    ips: Vec<IpAddr>,
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Addresses {
    /// Adds the addresses, except loopback addresses, which every node has, and the unspecified
    /// address. An address that is already present, left behind by a server that was killed, is
    /// reused.
    pub async fn add(ips: &[IpAddr]) -> Result<Self, AddressError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(AddressError::Socket)?;
        let task = tokio::spawn(connection);
        let ours = ips.iter().copied().filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        let addresses = Self { handle, task, ips: ours.collect() };
        for ip in &addresses.ips {
            let prefix_len = IpNet::from(*ip).prefix_len();
            let mut request =
                addresses.handle.address().add(LOOPBACK_INDEX, *ip, prefix_len).replace();
            let message = request.message_mut();
            // Host scope: the address must not become the source of the node's own connections.
            message.header.scope = AddressScope::Host;
            if ip.is_ipv6() {
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await.map_err(|error| AddressError::Add(*ip, error))?;
        }
        Ok(addresses)
    }

    /// The netlink socket that they were added with.
    pub fn netlink(&self) -> &Handle {
        &self.handle
    }

    /// Removes the addresses.
    pub async fn remove(self) -> Result<(), AddressError> {
        for ip in &self.ips {
            let failed = |error| AddressError::Remove(*ip, error);
            let handle = self.handle.address();
            let present =
                handle.get().set_link_index_filter(LOOPBACK_INDEX).set_address_filter(*ip);
            let mut present = present.execute();
            if let Some(message) = present.try_next().await.map_err(failed)? {
                handle.del(message).execute().await.map_err(failed)?;
            }
        }
        Ok(())
    }
}
