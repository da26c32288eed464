//! ClusterTrustBundles: certificates that pods may trust.

use api::certificates::CERTIFICATE_LABEL;
use api::status::FieldError;
use api::{names, pem};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Strategy, columns, signer_name};

/// Bytes of a bundle.
const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// What is shown instead of a bundle.
const OMITTED: &str = "<value omitted>";

/// The strategy of ClusterTrustBundles.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::text("SignerName", "The signer whose certificates are trusted.")];

impl Strategy for Rules {
    type Object = ClusterTrustBundle;

    fn validate(&self, bundle: &ClusterTrustBundle) -> Vec<FieldError> {
        let signer = check::text(&bundle.spec.signer_name);
        let name = bundle.metadata.name.as_deref().unwrap_or_default();
        let mut errors = Errors::new();
        let path = Path::new("metadata").child("name");
        check::invalid(problems_of_name(name, signer), name, &path, &mut errors);
        if !signer.is_empty() {
            signer_name::check(signer, &Path::new("spec").child("signerName"), &mut errors);
        }
        errors
    }

    fn validate_create(&self, bundle: &ClusterTrustBundle) -> Vec<FieldError> {
        anchors(&bundle.spec.trust_bundle)
    }

    fn validate_update(
        &self,
        new: &ClusterTrustBundle,
        old: &ClusterTrustBundle,
    ) -> Vec<FieldError> {
        let changed = new.spec.trust_bundle != old.spec.trust_bundle;
        let mut errors = if changed { anchors(&new.spec.trust_bundle) } else { Errors::new() };
        let signer = check::text(&new.spec.signer_name);
        if signer != check::text(&old.spec.signer_name) {
            errors.push(FieldError::invalid("spec.signerName", signer, check::IMMUTABLE));
        }
        errors
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, bundle: &ClusterTrustBundle, _: Timestamp) -> Vec<Value> {
        let signer = bundle.spec.signer_name.as_deref();
        vec![columns::name(&bundle.metadata), columns::or_none(signer)]
    }
}

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
fn anchors(text: &str) -> Errors {
    let path = Path::new("spec").child("trustBundle");
    if text.len() > BUNDLE_BYTES_MAX {
        return vec![FieldError::too_long(path, BUNDLE_BYTES_MAX)];
    }
    let blocks: Vec<_> = pem::blocks(text.as_bytes()).collect();
    let invalid = |problem: String| FieldError::invalid(&path, OMITTED, problem);
    let malformed: Errors = blocks
        .iter()
        .enumerate()
        .filter_map(|(index, block)| problem_of_anchor(block).map(|it| (index, it)))
        .map(|(index, problem)| invalid(format!("entry {index} {problem}")))
        .collect();
    if !malformed.is_empty() {
        return malformed;
    }
    if blocks.is_empty() {
        return vec![invalid("at least one trust anchor must be provided".to_owned())];
    }
    let mut indices = std::collections::BTreeMap::<&[u8], Vec<String>>::new();
    for (index, block) in blocks.iter().enumerate() {
        indices.entry(&block.der).or_default().push(index.to_string());
    }
    let repeated = indices.into_values().filter(|indices| indices.len() > 1);
    repeated
        .map(|all| invalid(format!("duplicate trust anchor (indices [{}])", all.join(" "))))
        .collect()
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
