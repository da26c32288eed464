//! Creates the claims of pods' ephemeral volumes, which are deleted with their pods
//! (`k8s.io/kubernetes/pkg/controller/volume/ephemeral`).

use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::index::By;
use crate::machinery::owner::{self, controller_of, is_deleting, uid};
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

struct EphemeralVolumes {
    client: Client,
    recorder: EventRecorder,
    pods: Arc<Cache<Pod>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
}

/// Adds the controller; its keys are pods.
pub fn start(wiring: &mut Wiring) {
    let controller = EphemeralVolumes {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("ephemeral_volume"),
        pods: wiring.cache(),
        claims: wiring.cache(),
    };
    let pods = wiring.cache::<Pod>();
    // A claim that a pod uses was deleted, or one of the same name that did not belong to the pod.
    let waiting = move |change: &Change<PersistentVolumeClaim>| match change.new {
        Some(_) => Vec::new(),
        None => pods.keys_of(&By::Claim(change.key())),
    };
    wiring
        .controller(controller)
        .of_some(|change: &Change<Pod>| change.new.as_deref().is_some_and(has_claims))
        .maps(waiting)
        .start();
}

fn has_claims(pod: &Pod) -> bool {
    claims_of(pod).next().is_some()
}

/// The claims of the pod's ephemeral volumes.
fn claims_of(pod: &Pod) -> impl Iterator<Item = PersistentVolumeClaim> + '_ {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let mut claim = PersistentVolumeClaim {
            metadata: template.metadata.clone().unwrap_or_default(),
            spec: Some(template.spec.clone()),
            status: None,
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        claim.metadata.name = Some(format!("{name}-{}", volume.name));
        claim.metadata.namespace.clone_from(&pod.metadata.namespace);
        claim.metadata.owner_references = Some(vec![owner::reference(pod)]);
        Some(claim)
    })
}

impl Controller for EphemeralVolumes {
    const NAME: &'static str = "ephemeral-volume";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Next::Change);
        };
        if is_deleting(&pod.metadata) || api::pod::is_terminal(&pod) {
            return Ok(Next::Change);
        }
        for claim in claims_of(&pod) {
            self.create(&pod, &claim).await?;
        }
        Ok(Next::Change)
    }
}

impl EphemeralVolumes {
    async fn create(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let key = Key::of(claim);
        if let Some(present) = self.claims.get(&key) {
            let owner = controller_of(&present.metadata).map(|owner| owner.uid.as_str());
            if owner == Some(uid(&pod.metadata)) {
                return Ok(());
            }
            let message = format!("PVC {key} was not created for pod {}", Key::of(pod));
            self.recorder.warning(pod, "FailedBinding", format!("ephemeral volume: {message}"));
            return Err(Error::Invalid(message));
        }
        let claims = Api::<PersistentVolumeClaim>::namespaced(&self.client, &key.namespace);
        match claims.create(claim).await {
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let message = format!("ephemeral volume: create PVC {}: {error}", key.name);
                self.recorder.warning(pod, "FailedBinding", message);
                Err(error).during(|| format!("create persistentvolumeclaim {key}"))
            }
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;

    #[test]
    fn a_claim_is_named_after_its_pod_and_owned_by_it() {
        let pod = Pod::decode(
            br#"{"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [], "volumes": [
                {"name": "plain", "emptyDir": {}},
                {"name": "data", "ephemeral": {"volumeClaimTemplate": {
                    "metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "fast"}}}}]}}"#,
        )
        .unwrap();
        let claims: Vec<_> = claims_of(&pod).collect();
        assert_eq!(claims.len(), 1);
        let metadata = &claims[0].metadata;
        assert_eq!(metadata.name.as_deref(), Some("p-data"));
        assert_eq!(metadata.namespace.as_deref(), Some("ns"));
        assert_eq!(metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(controller_of(metadata).unwrap().uid, "u");
        let class = claims[0].spec.as_ref().unwrap().storage_class_name.as_deref();
        assert_eq!(class, Some("fast"));
    }
}
