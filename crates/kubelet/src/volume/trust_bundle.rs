//! From ClusterTrustBundles to the file of a projected volume: pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::certificates::CERTIFICATE_LABEL;
use api::labels::Selector;
use api::pem;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;

use super::VolumeError;

/// The certificates of the bundles that are selected, each once, in an order that does not depend
/// on that of the bundles.
///
/// # Errors
/// When no bundle is selected, unless that is allowed.
pub fn anchors(
    source: &ClusterTrustBundleProjection,
    all: &[Arc<ClusterTrustBundle>],
) -> Result<String, VolumeError> {
    let selected = select(source, all);
    if selected.is_empty() && source.optional != Some(true) {
        return Err(match &source.name {
            Some(name) => VolumeError::NoTrustBundle(name.clone()),
            None => VolumeError::NoTrustBundles,
        });
    }
    let blocks = selected.iter().flat_map(|it| pem::blocks(it.spec.trust_bundle.as_bytes()));
    let certificates = blocks.filter(|block| block.label == CERTIFICATE_LABEL);
    let unique: BTreeSet<Vec<u8>> = certificates.map(|block| block.der).collect();
    Ok(unique.iter().map(|der| pem::encode(CERTIFICATE_LABEL, der)).collect())
}

fn select<'a>(
    source: &ClusterTrustBundleProjection,
    all: &'a [Arc<ClusterTrustBundle>],
) -> Vec<&'a ClusterTrustBundle> {
    if let Some(name) = &source.name {
        let named = all.iter().filter(|bundle| bundle.metadata.name.as_ref() == Some(name));
        return named.map(|bundle| &**bundle).collect();
    }
    // Without a selector nothing is selected, and with an empty one everything.
    let Ok(selector) = Selector::from_label_selector(source.label_selector.as_ref()) else {
        return Vec::new();
    };
    let of_signer = all.iter().filter(|bundle| {
        source.signer_name.is_some() && bundle.spec.signer_name == source.signer_name
    });
    let matching = of_signer.filter(|bundle| selector.matches(bundle.metadata.labels.as_ref()));
    matching.map(|bundle| &**bundle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    fn bundle(name: &str, signer: &str, label: &str, anchors: &[u8]) -> Arc<ClusterTrustBundle> {
        let mut bundle = ClusterTrustBundle::default();
        bundle.metadata.name = Some(name.to_owned());
        bundle.metadata.labels = Some([("of".to_owned(), label.to_owned())].into());
        bundle.spec.signer_name = Some(signer.to_owned()).filter(|signer| !signer.is_empty());
        let texts = anchors.iter().map(|anchor| pem::encode(CERTIFICATE_LABEL, &[*anchor]));
        bundle.spec.trust_bundle = texts.collect::<Vec<_>>().join("a comment\n");
        Arc::new(bundle)
    }

    fn found(source: ClusterTrustBundleProjection) -> Result<Vec<u8>, String> {
        let all = [
            bundle("plain", "", "x", &[9]),
            bundle("e.com:s:1", "e.com/s", "x", &[3, 1, 3]),
            bundle("e.com:s:2", "e.com/s", "y", &[1, 2]),
            bundle("e.com:t:1", "e.com/t", "x", &[7]),
        ];
        let text = anchors(&source, &all).map_err(|error| error.to_string())?;
        Ok(pem::blocks(text.as_bytes()).map(|block| block.der[0]).collect())
    }

    #[test]
    fn bundles_are_selected_by_name_or_by_signer_and_labels() {
        let named = |name: &str| ClusterTrustBundleProjection {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        let of = |selector: Option<LabelSelector>| ClusterTrustBundleProjection {
            signer_name: Some("e.com/s".to_owned()),
            label_selector: selector,
            ..Default::default()
        };
        let labelled = |label: &str| LabelSelector {
            match_labels: Some([("of".to_owned(), label.to_owned())].into()),
            match_expressions: None,
        };
        assert_eq!(found(named("plain")).unwrap(), [9]);
        assert_eq!(found(named("e.com:s:1")).unwrap(), [1, 3]);
        assert_eq!(found(named("gone")).unwrap_err(), "clustertrustbundle \"gone\" not found");
        let optional = ClusterTrustBundleProjection { optional: Some(true), ..named("gone") };
        assert!(found(optional).unwrap().is_empty());
        assert_eq!(found(of(Some(LabelSelector::default()))).unwrap(), [1, 2, 3]);
        assert_eq!(found(of(Some(labelled("y")))).unwrap(), [1, 2]);
        let nothing =
            "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        for selector in [None, Some(labelled("z"))] {
            assert_eq!(found(of(selector)).unwrap_err(), nothing);
        }
    }
}
