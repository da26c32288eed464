//! Tells the user of a claim that has been made larger who has to expand its volume
//! (`k8s.io/kubernetes/pkg/controller/volume/expand`). No volume plugin of the controllers' own can
//! expand: that is done by an external resizer, or by the local-path provisioner.

use std::sync::Arc;

use api::quantity::Quantity;
use client::events::EventRecorder;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

struct Expander {
    recorder: EventRecorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
}

/// Adds the controller; its keys are claims that ask for more than before.
pub fn start(wiring: &mut Wiring) {
    let expander = Expander {
        recorder: wiring.recorder.named("volume_expand"),
        claims: wiring.cache(),
        volumes: wiring.cache(),
    };
    wiring.controller(expander).of_some(grew).start();
}

fn asked(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(Quantity::of)
}

fn grew(change: &Change<PersistentVolumeClaim>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => asked(new) > asked(old),
        _ => false,
    }
}

/// Whether the claim asks for more than its volume has.
fn waits(claim: &PersistentVolumeClaim) -> bool {
    let status = claim.status.as_ref();
    let bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let has = capacity.and_then(|capacity| capacity.get("storage")).map(Quantity::of);
    bound && asked(claim) > has
}

impl Controller for Expander {
    const NAME: &'static str = "persistentvolume-expander";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key).filter(|claim| waits(claim)) else {
            return Ok(Next::Change);
        };
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        if name.and_then(|name| self.volumes.get(&Key::cluster(name))).is_some() {
            let message = "waiting for an external controller to expand this PVC";
            self.recorder.normal(&*claim, "ExternalExpanding", message);
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;

    fn claim(asked: &str, has: &str, phase: &str) -> PersistentVolumeClaim {
        let json = format!(
            r#"{{"metadata": {{"name": "c", "namespace": "ns"}},
                "spec": {{"resources": {{"requests": {{"storage": "{asked}"}}}}}},
                "status": {{"phase": "{phase}", "capacity": {{"storage": "{has}"}}}}}}"#
        );
        PersistentVolumeClaim::decode(json.as_bytes()).unwrap()
    }

    #[test]
    fn only_a_bound_claim_that_grows_waits_for_its_volume() {
        assert!(waits(&claim("2Gi", "1Gi", "Bound")));
        assert!(!waits(&claim("1Gi", "1Gi", "Bound")));
        assert!(!waits(&claim("2Gi", "1Gi", "Pending")));
        let change = |old: &str, new: &str| Change {
            old: Some(Arc::new(claim(old, "1Gi", "Bound"))),
            new: Some(Arc::new(claim(new, "1Gi", "Bound"))),
        };
        assert!(grew(&change("1Gi", "1025Mi")));
        assert!(!grew(&change("1Gi", "1024Mi")));
    }
}
