//! Approves what kubelets ask for, if the apiserver says that their user may: the right to `create`
//! `certificatesigningrequests/nodeclient` is the right to become any node, that to create
//! `.../selfnodeclient` to stay oneself.

use std::sync::Arc;
use std::time::Duration;

use api::certificates::{
    self, APPROVED, DENIED, GROUP, KUBELET_CLIENT_SIGNER, has_condition, issued, kubelet,
};
use client::{Api, Client};
use clock::SharedClock;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{add_condition, usages};
use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

/// When a request that nobody may have is looked at again: the right may be granted.
const AGAIN: Duration = Duration::from_secs(60);

/// The right that lets a request be approved, and how that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Right {
    subresource: &'static str,
    message: &'static str,
}

const OWN: Right = Right {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const ANY: Right = Right {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

struct Approval {
    client: Client,
    clock: SharedClock,
    requests: Arc<Cache<CertificateSigningRequest>>,
}

/// Adds the controller; its keys are requests.
pub fn start(wiring: &mut Wiring) {
    let controller = Approval {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        requests: wiring.cache(),
    };
    wiring.controller(controller).of_present::<CertificateSigningRequest>().start();
}

/// Whether nothing has been decided about a request.
pub(super) fn is_pending(request: &CertificateSigningRequest) -> bool {
    issued(request).is_none()
        && !has_condition(request, APPROVED)
        && !has_condition(request, DENIED)
}

/// The rights of which one is enough; none: the request is not this controller's.
fn plan(request: &CertificateSigningRequest) -> Vec<Right> {
    if request.spec.signer_name != KUBELET_CLIENT_SIGNER || !is_pending(request) {
        return Vec::new();
    }
    let Ok(parsed) = certificates::parse(&request.spec.request.0) else {
        return Vec::new();
    };
    if kubelet::check_client(&parsed, usages(request)).is_err() {
        return Vec::new();
    }
    let own = request.spec.username.as_deref() == Some(&parsed.common_name);
    own.then_some(OWN).into_iter().chain([ANY]).collect()
}

impl Approval {
    async fn may(&self, request: &CertificateSigningRequest, right: Right) -> Result<bool, Error> {
        let spec = &request.spec;
        let text = |text: &str| Some(text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: text(GROUP),
                    resource: text("certificatesigningrequests"),
                    subresource: text(right.subresource),
                    verb: text("create"),
                    version: text("*"),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = Api::<SubjectAccessReview>::all(&self.client)
            .create(&review)
            .await
            .during(|| format!("review {}", right.subresource))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

impl Controller for Approval {
    const NAME: &'static str = "certificatesigningrequest-approving";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(request) = self.requests.get(key) else {
            return Ok(Next::Change);
        };
        let rights = plan(&request);
        for right in &rights {
            if self.may(&request, *right).await? {
                let mut approved = (*request).clone();
                let message = right.message.to_owned();
                add_condition(&mut approved, APPROVED, "AutoApproved", message, self.clock.now());
                Api::<CertificateSigningRequest>::all(&self.client)
                    .replace_approval(&approved)
                    .await
                    .during(|| format!("approve certificatesigningrequest {key}"))?;
                return Ok(Next::Change);
            }
        }
        if rights.is_empty() {
            return Ok(Next::Change);
        }
        tracing::debug!(%key, user = request.spec.username, "its user may not have a node's certificate");
        Ok(Next::After(AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, client_request, condition};
    use super::*;

    #[test]
    fn only_undecided_requests_of_kubelets_are_reviewed() {
        let pem = client_request("system:node:a", "system:nodes", &[]);
        let mut request = asked("system:node:a", KUBELET_CLIENT_SIGNER, &pem);
        assert_eq!(plan(&request), [OWN, ANY]);
        request.spec.username = Some("system:node:b".to_owned());
        assert_eq!(plan(&request), [ANY], "another node's name takes the right to any");
        for type_ in [APPROVED, DENIED] {
            let mut decided = request.clone();
            condition(&mut decided, type_, 0);
            assert_eq!(plan(&decided), []);
        }
        for (name, group, hosts) in [
            ("system:node:a", "people", &[][..]),
            ("admin", "system:nodes", &[]),
            ("system:node:a", "system:nodes", &["a.example.com"]),
        ] {
            let pem = client_request(name, group, hosts);
            assert_eq!(plan(&asked("system:node:a", KUBELET_CLIENT_SIGNER, &pem)), [], "{name}");
        }
        request.spec.signer_name = certificates::CLIENT_SIGNER.to_owned();
        assert_eq!(plan(&request), []);
        request.spec.signer_name = KUBELET_CLIENT_SIGNER.to_owned();
        request.spec.usages.as_mut().unwrap().push("server auth".to_owned());
        assert_eq!(plan(&request), []);
    }
}
