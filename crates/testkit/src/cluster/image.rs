//! Loads an image archive onto a node, the way the apiserver does.

use anyhow::Context;
use futures::StreamExt;
use rpc::kubelet_v1::LoadImageRequest;
use rpc::kubelet_v1::kubelet_client::KubeletClient;
use rpc::tls::{Dial, KeyPair};
use std::path::Path;
use tokio::io::AsyncReadExt;

/// Size of one message.
const CHUNK_BYTES: usize = 1 << 20;

/// Sends the archive to the node's kubelet.
///
/// # Errors
/// When the archive cannot be read or the kubelet rejects it.
pub async fn load(folder: &Path, node: &str, address: &str, archive: &Path) -> anyhow::Result<()> {
    let read = |name: &str| std::fs::read(folder.join("pki").join(name)).context(name.to_owned());
    let dial = Dial {
        url: format!("https://{address}:10250"),
        ca_pem: Some(read("ca.crt")?),
        key_pair: Some(KeyPair {
            certificate_pem: read("apiserver-kubelet-client.crt")?,
            key_pem: read("apiserver-kubelet-client.key")?,
        }),
        server_name: Some(node.to_owned()),
    };
    let mut file =
        tokio::fs::File::open(archive).await.context("cargo run -p xtask -- images builds it")?;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let reading = async move {
        loop {
            let mut data = vec![0; CHUNK_BYTES];
            let length = file.read(&mut data).await?;
            data.truncate(length);
            if length == 0 || sender.send(LoadImageRequest { data: data.into() }).await.is_err() {
                return anyhow::Ok(());
            }
        }
    };
    let chunks = tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
    let mut kubelet = KubeletClient::new(rpc::tls::channel(&dial)?);
    let (read, loaded) = tokio::join!(reading, kubelet.load_image(chunks));
    read?;
    loaded?;
    Ok(())
}
