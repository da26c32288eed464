//! The short hashes of contents that Kubernetes puts into names: `web-5d4f8c7b9c`.

use std::collections::BTreeMap;

use api::Kind;
use k8s_openapi::api::core::v1::{PodTemplate, PodTemplateSpec};

/// Letters and digits that do not form words (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Label that carries a Deployment's template hash.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// A template's hash; it differs for every `collision_count`.
pub fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let whole = PodTemplate { template: Some(template.clone()), ..Default::default() };
    short_hash(&whole.encode(), collision_count)
}

/// The hash of bytes.
pub fn short_hash(bytes: &[u8], collision_count: Option<i32>) -> String {
    let mut hash = fnv(bytes, 0x811c_9dc5);
    if let Some(count) = collision_count {
        hash = fnv(&count.to_le_bytes(), hash);
    }
    safe(&hash.to_string())
}

fn fnv(bytes: &[u8], start: u32) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn safe(text: &str) -> String {
    text.bytes().map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()])).collect()
}

/// Whether two templates are equal except for the hash label.
pub fn equal_but_hash(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    without_hash(one) == without_hash(other)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata.annotations.take().filter(|all| !all.is_empty());
        metadata.creation_timestamp = None;
    }
    template.metadata = template.metadata.filter(|metadata| *metadata != Default::default());
    template
}

/// The labels with one more.
pub fn with_label(
    labels: Option<&BTreeMap<String, String>>,
    key: &str,
    value: &str,
) -> BTreeMap<String, String> {
    let mut labels = labels.cloned().unwrap_or_default();
    labels.insert(key.to_owned(), value.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::labels;

    #[test]
    fn hashes_distinguish_templates_and_ignore_the_hash_label() {
        let mut one = PodTemplateSpec::default();
        one.metadata.get_or_insert_default().labels = Some(labels(&[("app", "web")]));
        let mut labelled = one.clone();
        labelled.metadata.get_or_insert_default().labels =
            Some(labels(&[("app", "web"), (POD_TEMPLATE_HASH, "x")]));
        assert!(equal_but_hash(&one, &labelled));
        assert!(equal_but_hash(
            &PodTemplateSpec::default(),
            &PodTemplateSpec { metadata: Some(Default::default()), spec: None }
        ));
        let other = PodTemplateSpec::default();
        assert!(!equal_but_hash(&one, &other));
        assert_ne!(template_hash(&one, None), template_hash(&other, None));
        assert_ne!(template_hash(&one, None), template_hash(&one, Some(1)));
        assert!(template_hash(&one, None).bytes().all(|b| SAFE.contains(&b)));
    }
}
