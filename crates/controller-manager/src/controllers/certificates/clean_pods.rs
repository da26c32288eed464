//! Removes requests for certificates of pods a while after they were made, whatever became of them:
//! the kubelet has the certificate by then, or asks anew
//! (`k8s.io/kubernetes/pkg/controller/certificates/cleaner`).

use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

/// How long requests are kept.
const KEPT: SignedDuration = SignedDuration::from_mins(15);

struct Cleaner {
    client: Client,
    clock: SharedClock,
    requests: Arc<Cache<PodCertificateRequest>>,
}

/// Adds the controller; its keys are requests.
pub fn start(wiring: &mut Wiring) {
    let controller = Cleaner {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        requests: wiring.cache(),
    };
    wiring.controller(controller).of_present::<PodCertificateRequest>().start();
}

/// When a request is to be removed.
fn ends_at(request: &PodCertificateRequest) -> Option<Timestamp> {
    request.metadata.creation_timestamp.as_ref()?.0.checked_add(KEPT).ok()
}

impl Controller for Cleaner {
    const NAME: &'static str = "podcertificaterequest-cleaner";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let request = self.requests.get(key);
        let Some((request, at)) = request.and_then(|it| ends_at(&it).map(|at| (it, at))) else {
            return Ok(Next::Change);
        };
        if let Ok(left) = Duration::try_from(at.duration_since(self.clock.now()))
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let requests: Api<PodCertificateRequest> = Api::namespaced(&self.client, &key.namespace);
        match requests.delete_exactly(&request, &DeleteOptions::default()).await {
            Err(error) if error.is_not_found() => {}
            outcome => outcome.during(|| format!("delete podcertificaterequest {key}"))?,
        }
        Ok(Next::Change)
    }
}
