//! Registration of the node.

use std::collections::BTreeMap;

use client::{Api, Client, PatchKind};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::node::machine_info::architecture;

/// The Node object that a kubelet registers.
pub fn described(name: &str, extra: &BTreeMap<String, String>) -> Node {
    let mut labels = extra.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.metadata.labels = Some(labels);
    node
}

/// Creates the Node object, or sets the required labels of an existing one.
pub async fn register(
    client: &Client,
    name: &str,
    extra: &BTreeMap<String, String>,
) -> Result<Node, client::Error> {
    let nodes: Api<Node> = Api::all(client);
    let own = described(name, extra);
    if let Some(node) = nodes.get_opt(name).await? {
        let labels = own.metadata.labels.unwrap_or_default();
        let has = node.metadata.labels.clone().unwrap_or_default();
        if labels.iter().all(|(key, value)| has.get(key) == Some(value)) {
            return Ok(node);
        }
        let patch = json!({"metadata": {"labels": labels}});
        return nodes.patch(name, PatchKind::Merge, &patch).await;
    }
    match nodes.create(&own).await {
        Err(error) if error.is_already_exists() => nodes.get(name).await,
        result => result,
    }
}
