//! Signs approved requests for the cluster's own signers.

use std::sync::Arc;
use std::time::Duration;

use api::certificates::{
    self, CLIENT_AUTH, CLIENT_SIGNER, DIGITAL_SIGNATURE, FAILED, KEY_ENCIPHERMENT, Request,
    has_condition, is_approved, issued, kubelet,
};
use client::Client;
use clock::SharedClock;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::authority::AuthorityFiles;
use super::{add_condition, usages};
use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;

/// The shortest life of a certificate: twice what it is backdated by.
const LIFE_MIN: Duration = Duration::from_secs(600);

/// The signers and their authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSettings {
    pub signers: Vec<(&'static str, AuthorityFiles)>,
    /// How long certificates are valid that ask for no less.
    pub life: Duration,
}

struct Signing {
    client: Client,
    clock: SharedClock,
    requests: Arc<Cache<CertificateSigningRequest>>,
    settings: SigningSettings,
}

/// Adds the controller; its keys are requests.
pub fn start(wiring: &mut Wiring, settings: SigningSettings) {
    let controller = Signing {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        requests: wiring.cache(),
        settings,
    };
    wiring.controller(controller).of_present::<CertificateSigningRequest>().start();
}

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    /// The request is not what its signer signs.
    Fail(String),
    Sign {
        authority: AuthorityFiles,
        request: Box<Request>,
        life: Duration,
    },
}

fn plan(request: &CertificateSigningRequest, settings: &SigningSettings) -> Plan {
    let spec = &request.spec;
    let open = is_approved(request) && !has_condition(request, FAILED) && issued(request).is_none();
    let mut signers = settings.signers.iter();
    let Some((signer, authority)) = signers.find(|(signer, _)| open && *signer == spec.signer_name)
    else {
        return Plan::Nothing;
    };
    let checked = certificates::parse(&spec.request.0)
        .map_err(|error| error.to_string())
        .and_then(|parsed| problem(signer, &parsed, usages(request)).map_or(Ok(parsed), Err));
    match checked {
        Err(problem) => Plan::Fail(problem),
        Ok(parsed) => {
            let (request, authority) = (Box::new(parsed), authority.clone());
            Plan::Sign { authority, request, life: life(spec.expiration_seconds, settings.life) }
        }
    }
}

/// Why a signer does not sign a request.
fn problem(signer: &str, request: &Request, usages: &[String]) -> Option<String> {
    if signer != CLIENT_SIGNER {
        return kubelet::check(signer, request, usages).err().map(|error| error.to_string());
    }
    let known = [DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, CLIENT_AUTH];
    if let Some(other) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Some(format!("invalid usage for client certificate: {other}"));
    }
    let client = usages.iter().any(|usage| usage == CLIENT_AUTH);
    (!client).then(|| format!("missing required usage for client certificate: {CLIENT_AUTH}"))
}

/// How long a certificate is to be valid: what is asked for, within the signer's limits.
fn life(asked_seconds: Option<i32>, most: Duration) -> Duration {
    let Some(seconds) = asked_seconds else {
        return most;
    };
    let asked = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    if asked > most { most } else { asked.max(LIFE_MIN) }
}

impl Controller for Signing {
    const NAME: &'static str = "certificatesigningrequest-signing";
    const CONCURRENCY: usize = 2;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(request) = self.requests.get(key) else {
            return Ok(Next::Change);
        };
        let (mut changed, now) = ((*request).clone(), self.clock.now());
        match plan(&request, &self.settings) {
            Plan::Nothing => return Ok(Next::Change),
            Plan::Fail(problem) => {
                add_condition(&mut changed, FAILED, "SignerValidationFailure", problem, now);
            }
            Plan::Sign { authority, request: parsed, life } => {
                let signed = authority
                    .load()
                    .and_then(|authority| authority.sign(&parsed, usages(&request), life, now))
                    .map_err(|source| Error::Local {
                        operation: format!("sign certificatesigningrequest {key}"),
                        source: source.into(),
                    })?;
                let status = changed.status.get_or_insert_default();
                status.certificate = Some(ByteString(signed.into_bytes()));
            }
        }
        // With the revision as precondition: of two signers, one is too late.
        status::write(&self.client, &*request, &changed).await?;
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests;
