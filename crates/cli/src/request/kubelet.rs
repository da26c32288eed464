//! Direct connections to kubelets, with the kubeconfig's own certificate: kubelets accept members
//! of `system:masters` only.

use anyhow::Context;
use client::Config;
use k8s_openapi::api::core::v1::Node;
use rpc::kubelet_v1::kubelet_client::KubeletClient;
use rpc::tls::Dial;
use tonic::transport::Channel;

/// Where kubelets listen when their Node does not say.
const PORT: i32 = 10250;

/// A client of the node's kubelet; it connects on first use.
pub fn connect(config: &Config, node: &Node) -> anyhow::Result<KubeletClient<Channel>> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let address = addresses
        .into_iter()
        .flatten()
        .find(|address| address.type_ == "InternalIP")
        .map(|address| address.address.as_str())
        .context("the node has no InternalIP")?;
    let port = status
        .and_then(|status| status.daemon_endpoints.as_ref())
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .map_or(PORT, |endpoint| endpoint.port);
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let dial = Dial {
        url: format!("https://{host}:{port}"),
        server_name: node.metadata.name.clone(),
        ..config.dial.clone()
    };
    Ok(KubeletClient::new(rpc::tls::channel(&dial)?)
        .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES))
}
