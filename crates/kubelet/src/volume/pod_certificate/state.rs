//! The life of a certificate in a pod's volume: asked for, issued, renewed. Pure.

use api::certificates::pod::{self, ISSUED};
use api::certificates::{CERTIFICATE_LABEL, DENIED};
use api::pem;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;

/// After this long, and up to [`JITTER_SECONDS`] more, a request that is not there has been deleted.
const DELETED_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// How long after the time to renew it a certificate is overdue.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// By how much pods spread their requests at most, in seconds.
const JITTER_SECONDS: f64 = 5.0 * 60.0;

/// A request that has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The private key.
    pub key_pem: String,
    /// The request's name.
    pub name: String,
    /// When a request that is not there has been deleted.
    pub abandon_at: Timestamp,
}

impl Asked {
    /// `jitter`: from 0 to 1.
    pub fn new(key_pem: String, name: String, created: Timestamp, jitter: f64) -> Self {
        Self { key_pem, name, abandon_at: spread(created, jitter) + DELETED_AFTER }
    }
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub key_pem: String,
    pub chain_pem: String,
    refresh_at: Timestamp,
    not_after: Timestamp,
    told_overdue: bool,
    told_expired: bool,
}

/// What has become of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Waiting(Asked),
    /// With the request for the next one.
    Issued(Issued, Option<Asked>),
    /// Denied, or failed: for good.
    Ended {
        denied: bool,
        reason: String,
        message: String,
    },
}

/// What is to be done, and what there is then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub state: Option<State>,
    /// Whether to send a request.
    pub ask: bool,
    /// Reasons and messages of warnings about the pod.
    pub events: Vec<(&'static str, String)>,
}

/// The next step. `state`: `None` before the first request; `find`: requests by name; `jitter`: from
/// 0 to 1.
pub fn step<'a>(
    state: Option<State>,
    find: impl Fn(&str) -> Option<&'a PodCertificateRequest>,
    now: Timestamp,
    jitter: f64,
) -> Step {
    let (certificate, asked) = match state {
        None => return Step { ask: true, ..Step::default() },
        Some(ended @ State::Ended { .. }) => {
            return Step { state: Some(ended), ..Step::default() };
        }
        Some(State::Waiting(asked)) => (None, Some(asked)),
        Some(State::Issued(certificate, asked)) => (Some(certificate), asked),
    };
    let Some(asked) = asked else {
        let mut step = kept(certificate, None, now);
        step.ask =
            matches!(&step.state, Some(State::Issued(issued, _)) if now >= issued.refresh_at);
        return step;
    };
    let Some(request) = find(&asked.name) else {
        let gone = now >= asked.abandon_at;
        let mut step = kept(certificate, (!gone).then_some(asked), now);
        step.ask = gone;
        return step;
    };
    match pod::outcome(request) {
        None => kept(certificate, Some(asked), now),
        Some(outcome) if outcome.type_ == ISSUED => {
            let issued = issued(request, asked.key_pem, jitter);
            Step { state: Some(State::Issued(issued, None)), ..Step::default() }
        }
        Some(outcome) => {
            let denied = outcome.type_ == DENIED;
            let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
            let verb = if denied { "was denied" } else { "failed" };
            let (reason, message) = (outcome.reason.clone(), outcome.message.clone());
            let text = format!(
                "PodCertificateRequest {namespace}/{} {verb}, reason={reason:?}, message={message:?}",
                asked.name
            );
            let event = if denied { "Denied" } else { "Failed" };
            let state = Some(State::Ended { denied, reason, message });
            Step { state, ask: false, events: vec![(event, text)] }
        }
    }
}

/// What there is stays; whoever should know learns that it is too old.
fn kept(certificate: Option<Issued>, asked: Option<Asked>, now: Timestamp) -> Step {
    let Some(mut certificate) = certificate else {
        return Step { state: asked.map(State::Waiting), ..Step::default() };
    };
    let mut events = Vec::new();
    if now > certificate.refresh_at + OVERDUE_AFTER && !certificate.told_overdue {
        certificate.told_overdue = true;
        events.push(("CertificateOverdueForRefresh", "PodCertificate refresh overdue".to_owned()));
    }
    if now > certificate.not_after && !certificate.told_expired {
        certificate.told_expired = true;
        events.push(("CertificateExpired", "PodCertificate expired".to_owned()));
    }
    Step { state: Some(State::Issued(certificate, asked)), ask: false, events }
}

fn issued(request: &PodCertificateRequest, key_pem: String, jitter: f64) -> Issued {
    let status = request.status.clone().unwrap_or_default();
    let time = |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    };
    let chain = status.certificate_chain.unwrap_or_default();
    let blocks = pem::blocks(chain.as_bytes());
    Issued {
        key_pem,
        // Without what is between the blocks, and their headers.
        chain_pem: blocks.map(|block| pem::encode(CERTIFICATE_LABEL, &block.der)).collect(),
        refresh_at: spread(time(status.begin_refresh_at), jitter),
        not_after: time(status.not_after),
        told_overdue: false,
        told_expired: false,
    }
}

fn spread(at: Timestamp, jitter: f64) -> Timestamp {
    at + SignedDuration::from_secs_f64(JITTER_SECONDS * jitter.clamp(0.0, 1.0))
}

impl State {
    /// When to look again at the latest.
    pub fn look_at(&self, now: Timestamp) -> Option<Timestamp> {
        let (certificate, asked) = match self {
            Self::Waiting(asked) => (None, Some(asked)),
            Self::Issued(certificate, asked) => (Some(certificate), asked.as_ref()),
            Self::Ended { .. } => (None, None),
        };
        let second = SignedDuration::from_secs(1);
        let of_certificate = certificate.into_iter().flat_map(|certificate| {
            // One that cannot be asked for yet is asked for when one looks next.
            let refresh = asked.is_none().then_some(certificate.refresh_at);
            let overdue = certificate.refresh_at + OVERDUE_AFTER + second;
            let expired = certificate.not_after + second;
            refresh.into_iter().chain([overdue, expired])
        });
        let of_request = asked.map(|asked| asked.abandon_at);
        of_certificate.chain(of_request).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
