//! Options in request bodies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

/// Decodes `DeleteOptions` from JSON; `apiVersion` and `kind` may be absent or of any group.
pub fn decode_delete_options(json: &[u8]) -> Result<DeleteOptions, serde_json::Error> {
    serde_json::from_slice(json)
}

/// Encodes `DeleteOptions` as JSON.
pub fn encode_delete_options(options: &DeleteOptions) -> Vec<u8> {
    serde_json::to_vec(options).expect("Kubernetes types always serialize to JSON")
}
