//! ClusterTrustBundles: certificates that pods may trust.

use api::certificates::CERTIFICATE_LABEL;
use api::{names, pem};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::at::At;
use super::columns::text;
use super::table::{Rows, name};
use super::{check, columns};

/// Bytes of a bundle.
const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// What is shown instead of a bundle.
const OMITTED: &str = "<value omitted>";

pub static RULES: Rows<ClusterTrustBundle> = Rows {
    name: names::path_segment,
    judge: |bundle, at| {
        let signer = check::text(&bundle.spec.signer_name);
        let name = bundle.metadata.name.as_deref().unwrap_or_default();
        at.child("metadata.name").texts(problems_of_name(name, signer), name);
        if !signer.is_empty() {
            at.child("spec.signerName").signer_name(signer);
        }
    },
    create: |bundle, at| anchors(&bundle.spec.trust_bundle, &at.child("spec.trustBundle")),
    update: |new, old, at| {
        if new.spec.trust_bundle != old.spec.trust_bundle {
            anchors(&new.spec.trust_bundle, &at.child("spec.trustBundle"));
        }
        let signer = check::text(&new.spec.signer_name);
        if signer != check::text(&old.spec.signer_name) {
            at.child("spec.signerName").invalid(signer, check::IMMUTABLE);
        }
    },
    columns: &[
        name(),
        text("SignerName", "The signer whose certificates are trusted.")
            .or("spec.signerName", columns::NONE),
    ],
    ..Rows::NEW
};

/// Bundles of a signer have its name as a prefix, and no others have a prefix.
fn problems_of_name(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            let problem = "ClusterTrustBundle without signer name must not have \":\" in its name";
            return vec![problem.to_owned()];
        }
        return names::dns_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns_subdomain(rest),
        None => vec![format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )],
    }
}

/// A bundle has certificates of authorities only, each once.
fn anchors(text: &str, at: &At<'_>) {
    if text.len() > BUNDLE_BYTES_MAX {
        return at.too_long(BUNDLE_BYTES_MAX);
    }
    let blocks: Vec<_> = pem::blocks(text.as_bytes()).collect();
    let before = at.count();
    for (index, block) in blocks.iter().enumerate() {
        if let Some(problem) = problem_of_anchor(block) {
            at.invalid(OMITTED, format!("entry {index} {problem}"));
        }
    }
    if at.count() > before {
        return;
    }
    if blocks.is_empty() {
        return at.invalid(OMITTED, "at least one trust anchor must be provided");
    }
    let mut indices = std::collections::BTreeMap::<&[u8], Vec<String>>::new();
    for (index, block) in blocks.iter().enumerate() {
        indices.entry(&block.der).or_default().push(index.to_string());
    }
    for all in indices.into_values().filter(|indices| indices.len() > 1) {
        at.invalid(OMITTED, format!("duplicate trust anchor (indices [{}])", all.join(" ")));
    }
}

fn problem_of_anchor(block: &pem::Block) -> Option<String> {
    if block.label != CERTIFICATE_LABEL {
        return Some(format!("has bad block type: {}", block.label));
    }
    if block.has_headers {
        return Some("has PEM block headers".to_owned());
    }
    let whole = X509Certificate::from_der(&block.der).ok().filter(|(rest, _)| rest.is_empty());
    let Some((_, certificate)) = whole else {
        return Some("does not parse as X.509".to_owned());
    };
    (!certificate.is_ca()).then(|| "does not have the CA bit set".to_owned())
}
