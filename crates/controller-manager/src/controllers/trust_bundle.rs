//! Publishes the authorities that sign the apiserver's serving certificate, as the ClusterTrustBundle
//! of the signer `kubernetes.io/kube-apiserver-serving`
//! (`k8s.io/kubernetes/pkg/controller/certificates/clustertrustbundlepublisher`).

use std::sync::Arc;

use api::certificates::APISERVER_SERVING_SIGNER;
use client::{Api, Client, DeleteOptions};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

/// Bytes of the hash in a bundle's name.
const HASH_BYTES: usize = 12;

struct Publisher {
    client: Client,
    pem: watch::Receiver<Arc<String>>,
    bundles: Arc<Cache<ClusterTrustBundle>>,
}

/// Adds the controller; its only key is the signer. `pem`: the authorities.
pub fn start(wiring: &mut Wiring, pem: watch::Receiver<Arc<String>>) {
    let key = || Key::cluster(APISERVER_SERVING_SIGNER);
    let client = wiring.client.clone();
    let controller = Publisher { client, pem: pem.clone(), bundles: wiring.cache() };
    let of_bundle = move |_: &Change<ClusterTrustBundle>| Some(key());
    wiring.controller(controller).maps(of_bundle).follows(pem, move || vec![key()]).start();
}

#[derive(Debug, Default, PartialEq)]
struct Plan {
    create: Option<ClusterTrustBundle>,
    replace: Option<ClusterTrustBundle>,
    /// Those of former authorities.
    delete: Vec<Arc<ClusterTrustBundle>>,
}

/// A bundle is named after its content, so that a new one is there before an old one goes.
fn plan(pem: &str, all: &[Arc<ClusterTrustBundle>]) -> Plan {
    let name = name_of(pem);
    let is_current = |bundle: &ClusterTrustBundle| bundle.metadata.name.as_ref() == Some(&name);
    let mut plan = Plan::default();
    match all.iter().find(|bundle| is_current(bundle)) {
        Some(current) if current.spec.trust_bundle == pem => {}
        Some(current) => {
            let mut wanted = ClusterTrustBundle::clone(current);
            pem.clone_into(&mut wanted.spec.trust_bundle);
            plan.replace = Some(wanted);
        }
        None => {
            let mut wanted = ClusterTrustBundle::default();
            wanted.metadata.name = Some(name.clone());
            wanted.spec.signer_name = Some(APISERVER_SERVING_SIGNER.to_owned());
            pem.clone_into(&mut wanted.spec.trust_bundle);
            plan.create = Some(wanted);
        }
    }
    plan.delete = all.iter().filter(|bundle| !is_current(bundle)).cloned().collect();
    plan
}

fn name_of(pem: &str) -> String {
    let hash = Sha256::digest(pem);
    let hash: String = hash[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}:{hash}", APISERVER_SERVING_SIGNER.replace('/', ":"))
}

impl Controller for Publisher {
    const NAME: &'static str = "kube-apiserver-serving-clustertrustbundle-publisher";

    async fn reconcile(&self, _: &Key) -> Result<Next, Error> {
        let bundles = Api::<ClusterTrustBundle>::all(&self.client);
        let pem = self.pem.borrow().clone();
        let plan = plan(&pem, &self.bundles.list());
        if let Some(bundle) = &plan.create {
            match bundles.create(bundle).await {
                Err(error) if error.is_already_exists() => {}
                outcome => {
                    outcome.during(|| "create a clustertrustbundle".into())?;
                }
            }
        }
        if let Some(bundle) = &plan.replace {
            bundles.replace(bundle).await.during(|| "replace a clustertrustbundle".into())?;
        }
        for bundle in &plan.delete {
            match bundles.delete_exactly(bundle, &DeleteOptions::default()).await {
                Err(error) if error.is_not_found() => {}
                outcome => outcome.during(|| "delete a former clustertrustbundle".into())?,
            }
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_that_of_the_authorities_and_no_other() {
        let created = plan("A", &[]).create.unwrap();
        let name = created.metadata.name.as_deref().unwrap();
        assert_eq!(name, "kubernetes.io:kube-apiserver-serving:559aead08264d5795d390971");
        assert_eq!(
            created.spec.signer_name.as_deref(),
            Some("kubernetes.io/kube-apiserver-serving")
        );
        let current = Arc::new(created);
        assert_eq!(plan("A", std::slice::from_ref(&current)), Plan::default());
        // Another authority: first the new bundle, then the old one goes.
        let next = plan("B", std::slice::from_ref(&current));
        assert!(next.create.is_some() && next.replace.is_none());
        assert_eq!(next.delete, std::slice::from_ref(&current));
        let mut changed = ClusterTrustBundle::clone(&current);
        changed.spec.trust_bundle = "C".into();
        let restored = plan("A", &[Arc::new(changed)]);
        assert_eq!(restored.replace.unwrap().spec.trust_bundle, "A");
        assert!(restored.create.is_none() && restored.delete.is_empty());
    }
}
