//! Removes requests that nobody needs any more: an hour after they were decided, and a day after
//! they were made or approved without a certificate.
//!
//! Where serving certificates are approved automatically, the last one of every node is kept as long
//! as it is valid: it proves whose the addresses in it are.

use std::sync::Arc;
use std::time::Duration;

use api::certificates::{APPROVED, CERTIFICATE_LABEL, DENIED, FAILED, issued, kubelet};
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::last_serving;
use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

/// How long requests are kept that are issued, denied or failed.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long requests are kept that somebody still has to approve or to sign.
const OPEN: SignedDuration = SignedDuration::from_hours(24);

struct Cleaner {
    client: Client,
    clock: SharedClock,
    requests: Arc<Cache<CertificateSigningRequest>>,
    /// Whose last serving certificates are kept; `None`: nobody's.
    nodes: Option<Arc<Cache<Node>>>,
}

/// Adds the controller; its keys are requests. `keep_serving`: whether the last serving certificate
/// of every node is kept.
pub fn start(wiring: &mut Wiring, keep_serving: bool) {
    let controller = Cleaner {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        requests: wiring.cache(),
        nodes: keep_serving.then(|| wiring.cache()),
    };
    let (of_others, of_nodes) = (controller.requests.clone(), controller.requests.clone());
    let builder = wiring.controller(controller).of_present::<CertificateSigningRequest>();
    if !keep_serving {
        return builder.start();
    }
    // A new one replaces the one before, and the node's own goes with the node.
    let builder = builder.maps(move |change: &Change<CertificateSigningRequest>| {
        let newly = change.new.as_ref().filter(|new| {
            issued(new).is_some() && change.old.as_ref().is_none_or(|old| issued(old).is_none())
        });
        let user = newly.and_then(|new| new.spec.username.clone());
        user.map(|user| of_user(&of_others, &user)).unwrap_or_default()
    });
    let builder = builder.maps(move |change: &Change<Node>| {
        let gone = change.new.is_none().then(|| change.key());
        let user = gone.map(|key| format!("{}{}", kubelet::USER_PREFIX, key.name));
        user.map(|user| of_user(&of_nodes, &user)).unwrap_or_default()
    });
    builder.start();
}

/// The requests of a user.
fn of_user(requests: &Cache<CertificateSigningRequest>, user: &str) -> Vec<Key> {
    let all = requests.list();
    let own = all.iter().filter(|request| request.spec.username.as_deref() == Some(user));
    own.filter_map(|request| request.metadata.name.as_deref()).map(Key::cluster).collect()
}

/// When a request is to be removed.
fn ends_at(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref());
    let conditions = conditions.unwrap_or_default();
    let certificate = issued(request);
    let of_conditions = conditions.iter().filter_map(|condition| {
        let kept = match condition.type_.as_str() {
            DENIED | FAILED => DECIDED,
            APPROVED if certificate.is_some() => DECIDED,
            APPROVED => OPEN,
            _ => return None,
        };
        condition.last_update_time.as_ref()?.0.checked_add(kept).ok()
    });
    let pending = conditions.is_empty().then(|| {
        let created = request.metadata.creation_timestamp.as_ref()?;
        created.0.checked_add(OPEN).ok()
    });
    of_conditions.chain(pending.flatten()).chain(certificate.and_then(expires_at)).min()
}

fn expires_at(certificate: &[u8]) -> Option<Timestamp> {
    let block = api::pem::blocks(certificate).find(|block| block.label == CERTIFICATE_LABEL)?;
    let (_, certificate) = X509Certificate::from_der(&block.der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The node whose kubelet has made a request.
fn node_of(request: &CertificateSigningRequest) -> Option<&str> {
    request.spec.username.as_deref()?.strip_prefix(kubelet::USER_PREFIX)
}

/// When a request is to be removed among others; `keeps`: as the last of a node.
fn removed_at(
    request: &CertificateSigningRequest,
    keeps: bool,
    all: impl FnOnce() -> Vec<Arc<CertificateSigningRequest>>,
) -> Option<Timestamp> {
    let expiry = issued(request).filter(|_| keeps).and_then(expires_at);
    let is_last = || {
        let (all, user) = (all(), request.spec.username.as_deref()?);
        Some(last_serving(&all, user)?.metadata.name == request.metadata.name)
    };
    expiry.filter(|_| is_last() == Some(true)).or_else(|| ends_at(request))
}

impl Controller for Cleaner {
    const NAME: &'static str = "certificatesigningrequest-cleaner";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let request = self.requests.get(key);
        let at = |request: &CertificateSigningRequest| {
            let known = |node| self.nodes.as_ref().is_some_and(|all| all.get(&node).is_some());
            let keeps = node_of(request).is_some_and(|node| known(Key::cluster(node)));
            removed_at(request, keeps, || self.requests.list())
        };
        let Some((request, at)) = request.and_then(|it| at(&it).map(|at| (it, at))) else {
            return Ok(Next::Change);
        };
        if let Ok(left) = Duration::try_from(at.duration_since(self.clock.now()))
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let requests = Api::<CertificateSigningRequest>::all(&self.client);
        match requests.delete_exactly(&request, &DeleteOptions::default()).await {
            Err(error) if error.is_not_found() => {}
            outcome => outcome.during(|| format!("delete certificatesigningrequest {key}"))?,
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, condition};
    use super::*;
    use crate::machinery::testing::at;
    use api::certificates::KUBELET_SERVING_SIGNER;
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn requests_are_kept_as_long_as_upstream_keeps_them() {
        let mut request = asked("a", "example.com/signer", "");
        assert_eq!(ends_at(&request), None);
        request.metadata.creation_timestamp = Some(Time(at(100)));
        assert_eq!(ends_at(&request), Some(at(100 + 86_400)));
        let with = |type_: &str| {
            let mut request = request.clone();
            condition(&mut request, type_, 200);
            request
        };
        assert_eq!(ends_at(&with(DENIED)), Some(at(200 + 3_600)));
        assert_eq!(ends_at(&with(FAILED)), Some(at(200 + 3_600)));
        assert_eq!(ends_at(&with("Other")), None);
        let mut approved = with(APPROVED);
        assert_eq!(ends_at(&approved), Some(at(200 + 86_400)));
        let status = approved.status.as_mut().unwrap();
        status.certificate = Some(ByteString(b"x".to_vec()));
        assert_eq!(ends_at(&approved), Some(at(200 + 3_600)));
        let mut until = rcgen::CertificateParams::default();
        until.not_after = rcgen::date_time_ymd(1970, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let expired = until.self_signed(&key).unwrap().pem();
        approved.status.as_mut().unwrap().certificate = Some(ByteString(expired.into_bytes()));
        assert_eq!(ends_at(&approved), Some(at(0)), "an expired certificate is of no use");
    }

    #[test]
    fn the_last_serving_certificate_of_a_node_is_kept() {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(1971, 1, 1);
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let request = |name: &str, user: &str, signer: &str, second: i64| {
            let mut request = asked(user, signer, "");
            request.metadata.name = Some(name.to_owned());
            request.metadata.creation_timestamp = Some(Time(at(second)));
            condition(&mut request, APPROVED, second);
            let status = request.status.as_mut().unwrap();
            status.certificate = Some(ByteString(pem.clone().into_bytes()));
            Arc::new(request)
        };
        let (a, b) = ("system:node:a", "system:node:b");
        let all = vec![
            request("old", a, KUBELET_SERVING_SIGNER, 100),
            request("last", a, KUBELET_SERVING_SIGNER, 200),
            request("client", a, "kubernetes.io/kube-apiserver-client-kubelet", 300),
            request("other", b, KUBELET_SERVING_SIGNER, 400),
        ];
        let expiry = at(365 * 86_400);
        let ends = |index: usize, keeps| removed_at(&all[index], keeps, || all.clone()).unwrap();
        assert_eq!(ends(0, true), at(100 + 3_600));
        assert_eq!(ends(1, true), expiry);
        assert_eq!(ends(2, true), at(300 + 3_600));
        assert_eq!(ends(3, true), expiry);
        assert_eq!(ends(3, false), at(400 + 3_600), "the node has gone");
        assert_eq!(node_of(&all[0]), Some("a"));
    }
}
