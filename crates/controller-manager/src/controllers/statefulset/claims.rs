//! The claims of a StatefulSet's pods: created before the pod, and owned by the set or the pod that
//! they are deleted with (`spec.persistentVolumeClaimRetentionPolicy`).

use std::sync::Arc;

use client::Api;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::plan::Observed;
use super::{StatefulSets, identity};
use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::During;
use crate::machinery::owner::{self, is_deleting, uid};

/// Whether claims are deleted with the set, and with a pod that is scaled down.
fn deletes(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let is_delete = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
    (
        is_delete(policy.and_then(|policy| policy.when_deleted.as_ref())),
        is_delete(policy.and_then(|policy| policy.when_scaled.as_ref())),
    )
}

/// The owners of a new claim of the set.
pub fn set_reference(set: &StatefulSet) -> Option<Vec<OwnerReference>> {
    deletes(set).0.then(|| vec![owner::reference(set)])
}

/// The owners that a claim of `pod` should have: unrelated ones, and the set or the pod if the
/// claim is deleted with it.
fn owners(
    set: &StatefulSet,
    pod: &Pod,
    ordinal: i32,
    present: &[OwnerReference],
) -> Vec<OwnerReference> {
    let (with_set, with_pod) = deletes(set);
    let scaled_down = !identity::range(set).contains(&ordinal);
    let wanted = if with_pod && scaled_down {
        Some(OwnerReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: uid(&pod.metadata).into(),
            ..Default::default()
        })
    } else {
        with_set.then(|| owner::reference(set))
    };
    let ours = [uid(&set.metadata), uid(&pod.metadata)];
    let keeps = |owner: &&OwnerReference| {
        let wanted = wanted.as_ref().is_some_and(|wanted| wanted.uid == owner.uid);
        wanted || !ours.contains(&owner.uid.as_str())
    };
    let mut owners: Vec<OwnerReference> = present.iter().filter(keeps).cloned().collect();
    owners.extend(wanted.filter(|wanted| owners.iter().all(|owner| owner.uid != wanted.uid)));
    owners
}

/// Whether the claim for a new pod is about to go: being deleted, or owned by a former pod of that
/// name.
fn is_outgoing(claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    is_deleting(&claim.metadata)
        || owners.any(|owner| owner.kind == "Pod" && owner.name == pod_name)
}

impl StatefulSets {
    /// Creates the claims of a pod that is about to be created.
    pub(super) async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        for claim in identity::claims(set, ordinal) {
            let key = Key::of(&claim);
            if let Some(present) = self.claims.get(&key) {
                if is_outgoing(&present, &identity::pod_name(set, ordinal)) {
                    return Err(Error::Invalid(format!(
                        "persistentvolumeclaim {key} is being deleted"
                    )));
                }
                continue;
            }
            let claims = Api::<PersistentVolumeClaim>::namespaced(&self.client, &key.namespace);
            match claims.create(&claim).await {
                Err(error) if error.is_already_exists() => {}
                outcome => {
                    outcome.during(|| format!("create persistentvolumeclaim {key}"))?;
                }
            }
        }
        Ok(())
    }

    /// Updates the owners of all pods' claims.
    pub(super) async fn update_claim_owners(&self, observed: &Observed<'_>) -> Result<(), Error> {
        let set = observed.set;
        for pod in &observed.pods {
            let Some(ordinal) = identity::ordinal(set, pod) else {
                continue;
            };
            for claim in identity::claims(set, ordinal) {
                if let Some(claim) = self.claims.get(&Key::of(&claim)) {
                    self.update_owners(set, pod, ordinal, &claim).await?;
                }
            }
        }
        Ok(())
    }

    async fn update_owners(
        &self,
        set: &StatefulSet,
        pod: &Pod,
        ordinal: i32,
        claim: &Arc<PersistentVolumeClaim>,
    ) -> Result<(), Error> {
        let present = claim.metadata.owner_references.as_deref();
        let present = present.unwrap_or_default();
        let owners = owners(set, pod, ordinal, present);
        if owners == present {
            return Ok(());
        }
        owner::patch_owners::<PersistentVolumeClaim>(&self.client, &claim.metadata, &owners)
            .await
            .during(|| format!("set the owners of persistentvolumeclaim {}", Key::of(&**claim)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy as Policy;

    #[test]
    fn the_retention_policy_decides_the_owners() {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("db".into());
        set.metadata.uid = Some("set".into());
        set.spec.replicas = Some(1);
        let pod = crate::machinery::testing::pod("db-1").build();
        let other = OwnerReference { uid: "other".into(), ..Default::default() };
        let mut present = vec![other];
        // (with the set, with the pod), ordinal: the owners besides the other one.
        for (policy, ordinal, wanted) in [
            (("Retain", "Retain"), 1, vec![]),
            (("Delete", "Retain"), 1, vec!["set"]),
            (("Retain", "Delete"), 0, vec![]),
            (("Retain", "Delete"), 1, vec!["uid-db-1"]),
            (("Delete", "Delete"), 0, vec!["set"]),
            (("Delete", "Delete"), 1, vec!["uid-db-1"]),
            (("Retain", "Retain"), 0, vec![]),
        ] {
            set.spec.persistent_volume_claim_retention_policy = Some(Policy {
                when_deleted: Some(policy.0.into()),
                when_scaled: Some(policy.1.into()),
            });
            present = owners(&set, &pod, ordinal, &present);
            let uids: Vec<_> = present.iter().map(|owner| owner.uid.as_str()).collect();
            assert_eq!(uids[0], "other");
            assert_eq!(uids[1..], wanted, "{policy:?} {ordinal}");
            assert_eq!(owners(&set, &pod, ordinal, &present), present);
        }
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.owner_references = Some(vec![OwnerReference {
            kind: "Pod".into(),
            name: "db-1".into(),
            ..Default::default()
        }]);
        assert!(is_outgoing(&claim, "db-1"));
        assert!(!is_outgoing(&claim, "db-2"));
    }
}
