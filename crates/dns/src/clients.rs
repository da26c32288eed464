//! Who may query: processes and pods of this node. Anyone else who reaches the address could
//! otherwise use the server as an open resolver, to amplify an attack or to look around in the
//! cluster.

use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteFlags, RouteProtocol, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

/// The protocol number of the kubelet's routes to the pods of its node (`ip route show proto 172`).
const POD_ROUTE_PROTOCOL: u8 = 172;
/// How long the kernel's answer is kept.
const TTL: Duration = Duration::from_secs(5);
/// The number of answers kept.
const KNOWN_MAX: u64 = 4096;

/// Decides by the kernel's routes: an address is that of this node or of one of its pods. Clones share
/// what is known.
#[derive(Clone)]
pub struct Clients {
    netlink: Handle,
    known: moka::sync::Cache<IpAddr, bool>,
}

impl Clients {
    pub fn new(netlink: Handle) -> Self {
        let known = moka::sync::Cache::builder().max_capacity(KNOWN_MAX).time_to_live(TTL).build();
        Self { netlink, known }
    }

    /// Whether the client may query.
    pub async fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        if let Some(known) = self.known.get(&client) {
            return known;
        }
        let admitted = self.is_of_this_node(client).await;
        self.known.insert(client, admitted);
        admitted
    }

    async fn is_of_this_node(&self, client: IpAddr) -> bool {
        let to_client = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(client, ipnet::IpNet::from(client).prefix_len());
        let mut request = self.netlink.route().get(to_client.expect("a whole address").build());
        // The route as it was added, instead of one made up for this destination.
        request.message_mut().header.flags |= RouteFlags::FibMatch;
        let route = match std::pin::pin!(request.execute()).try_next().await {
            Ok(Some(route)) => route,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(%client, %error, "there is no route to the client");
                return false;
            }
        };
        route.header.kind == RouteType::Local
            || route.header.protocol == RouteProtocol::Other(POD_ROUTE_PROTOCOL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_clients_are_known_than_the_bound() {
        let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let clients = Clients::new(netlink);
        for number in 0..2 * u32::try_from(KNOWN_MAX).unwrap() {
            clients.known.insert(IpAddr::V4(std::net::Ipv4Addr::from_bits(number)), true);
        }
        clients.known.run_pending_tasks();
        let known = clients.known.entry_count();
        assert!(known > 0 && known <= KNOWN_MAX, "{known}");
    }
}
