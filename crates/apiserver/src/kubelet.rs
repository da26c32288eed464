//! Channels to the nodes' kubelets.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use k8s_openapi::api::core::v1::Node;
use rpc::kubelet_v1::kubelet_client::KubeletClient;
use rpc::tls::{Dial, KeyPair};
use tokio::sync::watch;
use tonic::transport::Channel;

/// How long an unused channel is kept.
const IDLE: Duration = Duration::from_secs(300);
/// Channels that are kept: as many as Kubernetes' largest clusters have nodes. A call whose channel is
/// no longer kept goes on.
const CHANNELS_MAX: u64 = 5_000;
/// Default port of a kubelet that has not published one.
const DEFAULT_PORT: i32 = 10_250;

/// How the apiserver authenticates to kubelets, and they to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeletTls {
    pub ca_pem: Option<Vec<u8>>,
    pub key_pair: Option<KeyPair>,
}

/// What there is of it now.
pub type CurrentTls = watch::Receiver<Arc<KubeletTls>>;

/// Connects to kubelets; channels are kept while they are in use, and their certificate is current.
pub struct Kubelets {
    tls: CurrentTls,
    channels: moka::sync::Cache<(String, String), (Arc<KubeletTls>, Channel)>,
}

impl Kubelets {
    pub fn new(tls: CurrentTls) -> Self {
        let channels = moka::sync::Cache::builder().max_capacity(CHANNELS_MAX).time_to_idle(IDLE);
        Self { tls, channels: channels.build() }
    }

    /// A client of the node's kubelet.
    ///
    /// # Errors
    /// See [`Self::channel`].
    pub fn client(&self, node: &Node) -> Result<KubeletClient<Channel>, ApiError> {
        Ok(KubeletClient::new(self.channel(node)?)
            .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(rpc::MAX_MESSAGE_BYTES))
    }

    /// An HTTP/2 connection to the node's kubelet.
    ///
    /// # Errors
    /// 503 for a node without an address, or when the apiserver has no certificate for kubelets.
    pub fn channel(&self, node: &Node) -> Result<Channel, ApiError> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let tls = self.tls.borrow().clone();
        if tls.key_pair.is_none() {
            return Err(ApiError::service_unavailable(
                "the apiserver has no certificate for kubelets (--kubelet-client-certificate)",
            ));
        }
        let (ip, port) = address(node).ok_or_else(|| {
            ApiError::service_unavailable(format!("no preferred addresses found for node {name:?}"))
        })?;
        let address =
            if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        let key = (address.clone(), name.clone());
        match self.channels.get(&key) {
            Some((made_with, channel)) if Arc::ptr_eq(&made_with, &tls) => Ok(channel),
            _ => {
                let channel = rpc::tls::channel(&Dial {
                    url: format!("https://{address}"),
                    ca_pem: tls.ca_pem.clone(),
                    key_pair: tls.key_pair.clone(),
                    server_name: Some(name),
                })
                .map_err(ApiError::internal)?;
                self.channels.insert(key, (tls, channel.clone()));
                Ok(channel)
            }
        }
    }
}

/// Address and port of the node's kubelet: the internal address, or else any.
pub fn address(node: &Node) -> Option<(String, u16)> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let by_type = |kind: &str| addresses.iter().find(|address| address.type_ == kind);
    let ip = by_type("InternalIP").or_else(|| by_type("ExternalIP"))?.address.as_str();
    let port = status
        .daemon_endpoints
        .as_ref()
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .map_or(DEFAULT_PORT, |endpoint| endpoint.port);
    Some((ip.to_owned(), u16::try_from(port).ok()?))
}
