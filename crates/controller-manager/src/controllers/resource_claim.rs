//! Makes the claims to devices of pods from their templates, and forgets reservations of pods that are
//! gone (`k8s.io/kubernetes/pkg/controller/resourceclaim`).

use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::index::By;
use crate::machinery::owner::{
    self, controlled_by, controller_key, controller_of, is_deleting, none_if_empty, uid,
};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;

/// Of a claim that was made from a template: the claim of the pod that it is for.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";

struct Claims {
    client: Client,
    recorder: EventRecorder,
    pods: Arc<Cache<Pod>>,
    claims: Arc<Cache<ResourceClaim>>,
    templates: Arc<Cache<ResourceClaimTemplate>>,
}

/// The claims of pods; its keys are pods.
struct OfPods(Arc<Claims>);

/// The claims themselves.
struct Reservations(Arc<Claims>);

/// Adds the controllers.
pub fn start(wiring: &mut Wiring) {
    let shared = Arc::new(Claims {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("resource_claim"),
        pods: wiring.cache(),
        claims: wiring.cache(),
        templates: wiring.cache(),
    });
    // A template that a pod waits for was created.
    let pods = wiring.cache::<Pod>();
    let waiting =
        move |change: &Change<ResourceClaimTemplate>| pods.keys_of(&By::Template(change.key()));
    // A claim of a pod was deleted: another is made.
    let deleted = |change: &Change<ResourceClaim>| match change.new {
        Some(_) => None,
        None => controller_key::<Pod>(&change.last().metadata),
    };
    let has_claims = |pod: &Arc<Pod>| claims_of(pod).next().is_some();
    wiring
        .controller(OfPods(shared.clone()))
        .of_some(move |change: &Change<Pod>| change.new.as_ref().is_some_and(has_claims))
        .maps(waiting)
        .maps(deleted)
        .start();

    let claims = wiring.cache::<ResourceClaim>();
    // The pod's own claims, and those reserved for it.
    let ended = move |change: &Change<Pod>| {
        let pod = change.last();
        if change.new.is_some() && !api::pod::is_terminal(pod) {
            return Vec::new();
        }
        let uid = uid(&pod.metadata);
        [controlled_by(uid), By::User(uid.to_owned())].map(|by| claims.keys_of(&by)).concat()
    };
    wiring.controller(Reservations(shared)).of_present::<ResourceClaim>().maps(ended).start();
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten())
}

/// The claim that has been made for one of the pod's.
fn made<'a>(
    pod: &Pod,
    name: &str,
    claims: &'a [Arc<ResourceClaim>],
) -> Option<&'a Arc<ResourceClaim>> {
    claims.iter().find(|claim| {
        let annotations = claim.metadata.annotations.as_ref();
        let of = annotations.and_then(|annotations| annotations.get(POD_CLAIM));
        let owner = controller_of(&claim.metadata).map(|owner| owner.uid.as_str());
        owner == Some(uid(&pod.metadata)) && of.is_some_and(|of| of == name)
    })
}

/// A new claim for one of the pod's, from its template.
fn from_template(pod: &Pod, name: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let spec = template.spec.clone().unwrap_or_default();
    let mut claim = ResourceClaim {
        metadata: spec.metadata.unwrap_or_default(),
        spec: spec.spec,
        status: None,
    };
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let metadata = &mut claim.metadata;
    metadata.name = None;
    metadata.generate_name = Some(format!("{pod_name}-{name}-"));
    metadata.namespace.clone_from(&pod.metadata.namespace);
    metadata.annotations.get_or_insert_default().insert(POD_CLAIM.to_owned(), name.to_owned());
    metadata.owner_references = Some(vec![owner::reference(pod)]);
    claim
}

/// The claim without the reservations of pods that are not there any more, or have ended. `alive`: the
/// uid of the pod of a name, if it runs.
fn without_gone(claim: &ResourceClaim, alive: impl Fn(&str) -> Option<String>) -> ResourceClaim {
    let mut changed = claim.clone();
    let Some(status) = &mut changed.status else { return changed };
    let Some(reserved) = &mut status.reserved_for else { return changed };
    reserved.retain(|one| {
        let is_pod = one.resource == "pods" && one.api_group.as_deref().unwrap_or("").is_empty();
        !is_pod || alive(&one.name).as_ref() == Some(&one.uid)
    });
    if reserved.is_empty() {
        status.reserved_for = None;
        // Devices of a claim that was made for a pod go with it.
        if controller_key::<Pod>(&claim.metadata).is_some() || is_deleting(&claim.metadata) {
            status.allocation = None;
            status.devices = None;
        }
    }
    changed
}

impl Controller for OfPods {
    const NAME: &'static str = "resource-claim";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let shared = &self.0;
        let Some(pod) = shared.pods.get(key) else {
            return Ok(Next::Change);
        };
        if is_deleting(&pod.metadata) || api::pod::is_terminal(&pod) {
            return Ok(Next::Change);
        }
        let mut statuses = Vec::new();
        for claim in claims_of(&pod) {
            let Some(template) = &claim.resource_claim_template_name else { continue };
            let made = shared.claim(key, &pod, &claim.name, template).await?;
            statuses.push(PodResourceClaimStatus {
                name: claim.name.clone(),
                resource_claim_name: Some(made),
            });
        }
        status::update(&shared.client, &*pod, |pod| {
            let status = pod.status.get_or_insert_default();
            status.resource_claim_statuses = none_if_empty(statuses);
        })
        .await?;
        Ok(Next::Change)
    }
}

impl Claims {
    /// The name of the claim of a pod, which is made if it is not there.
    async fn claim(
        &self,
        key: &Key,
        pod: &Pod,
        name: &str,
        template: &str,
    ) -> Result<String, Error> {
        if let Some(made) =
            made(pod, name, &self.claims.indexed(&controlled_by(uid(&pod.metadata))))
        {
            return Ok(Key::of(&**made).name);
        }
        let found = self.templates.get(&Key::new(&key.namespace, template));
        let Some(found) = found else {
            let message = format!("resourceclaimtemplate.resource.k8s.io \"{template}\" not found");
            let event = format!(
                "PodResourceClaim {name}: resource claim template \"{template}\": {message}"
            );
            self.recorder.warning(pod, "FailedResourceClaimCreation", event);
            return Err(Error::Invalid(message));
        };
        let claims = Api::<ResourceClaim>::namespaced(&self.client, &key.namespace);
        let created = claims.create(&from_template(pod, name, &found)).await;
        if let Err(error) = &created {
            let event = format!("PodResourceClaim {name}: {error}");
            self.recorder.warning(pod, "FailedResourceClaimCreation", event);
        }
        let created = created.during(|| format!("create a resourceclaim of pod {key}"))?;
        Ok(Key::of(&created).name)
    }
}

impl Controller for Reservations {
    const NAME: &'static str = "resource-claim-reservation";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let shared = &self.0;
        let Some(claim) = shared.claims.get(key) else {
            return Ok(Next::Change);
        };
        let changed = without_gone(&claim, |name| {
            let pod = shared.pods.get(&Key::new(&key.namespace, name));
            pod.filter(|pod| !api::pod::is_terminal(pod)).and_then(|pod| pod.metadata.uid.clone())
        });
        status::update(&shared.client, &*claim, |claim| *claim = changed).await?;
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;
    use serde_json::json;

    fn read<K: Kind>(object: serde_json::Value) -> K {
        K::decode(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_claim_is_made_from_its_template_and_found_again() {
        let pod: Pod = read(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}, {"name": "own", "resourceClaimName": "c"}]}}),
        );
        let template = read(
            json!({"metadata": {"name": "t"}, "spec": {"metadata": {"labels": {"a": "b"}},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}}),
        );
        let claim = from_template(&pod, "gpu", &template);
        assert_eq!(claim.metadata.generate_name.as_deref(), Some("p-gpu-"));
        assert_eq!(claim.metadata.labels.as_ref().unwrap()["a"], "b");
        assert!(claim.spec.as_ref().unwrap().devices.is_some());
        let claims = [Arc::new(claim)];
        assert!(made(&pod, "gpu", &claims).is_some());
        assert!(made(&pod, "own", &claims).is_none());
    }

    #[test]
    fn reservations_of_pods_end_with_them() {
        let claim = |owned: bool| -> ResourceClaim {
            let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "a", "controller": true}]);
            let owners = if owned { owner } else { json!([]) };
            read(
                json!({"metadata": {"name": "c", "namespace": "ns", "ownerReferences": owners}, "status": {"allocation": {},
                "reservedFor": [{"resource": "pods", "name": "p", "uid": "a"}]}}),
            )
        };
        let alive = |uid: Option<&'static str>| {
            move |name: &str| uid.filter(|_| name == "p").map(str::to_owned)
        };
        assert_eq!(without_gone(&claim(true), alive(Some("a"))), claim(true));
        let status = without_gone(&claim(false), alive(Some("b"))).status.unwrap();
        assert!(status.reserved_for.is_none() && status.allocation.is_some());
        let status = without_gone(&claim(true), alive(None)).status.unwrap();
        assert!(status.reserved_for.is_none() && status.allocation.is_none());
    }
}
