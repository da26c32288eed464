//! Removes requests that nobody needs any more: an hour after they were decided, and a day after
//! they were made or approved without a certificate.

use std::sync::Arc;
use std::time::Duration;

use api::certificates::{APPROVED, CERTIFICATE_LABEL, DENIED, FAILED, issued};
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;
use crate::machinery::cache::{Cache, Key};
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
}

/// Adds the controller; its keys are requests.
pub fn start(wiring: &mut Wiring) {
    let controller = Cleaner {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        requests: wiring.cache(),
    };
    wiring.controller(controller).of_present::<CertificateSigningRequest>().start();
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

impl Controller for Cleaner {
    const NAME: &'static str = "certificatesigningrequest-cleaner";

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
}
