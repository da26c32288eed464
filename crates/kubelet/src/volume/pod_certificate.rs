//! Certificates of pods: a key that never leaves the node, and what a signer issues for it, renewed
//! when the signer says (`k8s.io/kubernetes/pkg/kubelet/podcertificate`).
//!
//! One step is made whenever the pod's volumes are synced, which a change of a request triggers.
//! After a restart of the kubelet all certificates are requested anew.

mod key;
mod state;

use std::collections::HashMap;
use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;

use super::VolumeError;
use super::sync::blocking;
use crate::pod::pod_ext::PodExt;
pub use key::KeyError;
use state::{Asked, State, Step};

/// Pause before a certificate whose renewal could not be requested is tried again.
const RETRY: SignedDuration = SignedDuration::from_mins(1);

/// A source of a projected volume: the pod's uid, the volume and the number of the source.
pub type Key = (String, String, usize);

/// Key and certificates, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub key_pem: String,
    pub chain_pem: String,
    /// When to ask for it again.
    pub look_at: Option<Timestamp>,
}

/// The certificates of the node's pods.
pub struct PodCertificates {
    client: Client,
    clock: SharedClock,
    node_name: Arc<str>,
    recorder: EventRecorder,
    states: Mutex<HashMap<Key, State>>,
}

impl PodCertificates {
    pub fn new(
        client: &Client,
        node_name: &Arc<str>,
        recorder: &EventRecorder,
        clock: SharedClock,
    ) -> Self {
        Self {
            client: client.clone(),
            clock,
            node_name: Arc::clone(node_name),
            recorder: recorder.clone(),
            states: Mutex::default(),
        }
    }

    /// Makes the next step, and returns what there is. `requests`: those of the node.
    ///
    /// # Errors
    /// When there is no certificate yet, or there will never be one.
    pub async fn get(
        &self,
        pod: &Pod,
        key: Key,
        source: &PodCertificateProjection,
        requests: &[Arc<PodCertificateRequest>],
    ) -> Result<Bundle, VolumeError> {
        let find = |name: &str| {
            let is = |request: &PodCertificateRequest| {
                request.metadata.name.as_deref() == Some(name) && request.spec.pod_uid == pod.uid()
            };
            requests.iter().map(|request| &**request).find(|request| is(request))
        };
        let state = self.states.lock().get(&key).cloned();
        let now = self.clock.now();
        let Step { mut state, ask, events } = state::step(state, find, now, rand::random());
        for (reason, message) in events {
            self.recorder.warning(pod, reason, message);
        }
        self.set(&key, state.clone());
        let mut look_at = None;
        if ask {
            let asked = self.ask(pod, source).await;
            state = match (asked, state) {
                (Ok(asked), Some(State::Issued(issued, _))) => {
                    Some(State::Issued(issued, Some(asked)))
                }
                (Ok(asked), _) => Some(State::Waiting(asked)),
                // What there is is better than nothing.
                (Err(error), Some(issued)) => {
                    let error = runtime::errors::cause_chain(&error);
                    tracing::warn!(error, pod = pod.pod_name(), "cannot renew a certificate");
                    look_at = Some(now + RETRY);
                    Some(issued)
                }
                (Err(error), None) => return Err(error),
            };
            self.set(&key, state.clone());
        }
        let later = state.as_ref().and_then(|state| state.look_at(now));
        look_at = look_at.into_iter().chain(later).min();
        match state {
            Some(State::Issued(issued, _)) => {
                Ok(Bundle { key_pem: issued.key_pem, chain_pem: issued.chain_pem, look_at })
            }
            Some(State::Ended { denied, reason, message }) => {
                let outcome = if denied { "denied" } else { "failed" };
                Err(VolumeError::CertificateRefused { outcome, reason, message })
            }
            Some(State::Waiting(_)) | None => Err(VolumeError::CertificatePending),
        }
    }

    fn set(&self, key: &Key, state: Option<State>) {
        let mut states = self.states.lock();
        match state {
            Some(state) => states.insert(key.clone(), state),
            None => states.remove(key),
        };
    }

    /// Sends a request for a new key.
    async fn ask(
        &self,
        pod: &Pod,
        source: &PodCertificateProjection,
    ) -> Result<Asked, VolumeError> {
        let account = pod.spec_ref().service_account_name.as_deref().unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(&self.client, pod.pod_namespace());
        let during = |what: &'static str| {
            move |source| VolumeError::CertificateRequest { what, source: Box::new(source) }
        };
        let account =
            accounts.get(account).await.map_err(during("while fetching service account"))?;
        let node = Api::<Node>::all(&self.client).get(&self.node_name).await;
        let node = node.map_err(during("while getting node object"))?;
        let key_type = source.key_type.clone();
        let key = blocking(move || Ok(key::generate(&key_type)?)).await?;
        let request = request(pod, source, &account, &node, key.request);
        let requests: Api<PodCertificateRequest> =
            Api::namespaced(&self.client, pod.pod_namespace());
        let created = requests
            .create(&request)
            .await
            .map_err(during("while creating PodCertificateRequest"))?;
        let at = created.metadata.creation_timestamp.map_or(self.clock.now(), |time| time.0);
        let name = created.metadata.name.unwrap_or_default();
        tracing::info!(name, pod = pod.pod_name(), "asked for a certificate of a pod");
        Ok(Asked::new(key.pem, name, at, rand::random()))
    }

    /// Forgets the certificates of a pod.
    pub fn release(&self, pod_uid: &str) {
        self.states.lock().retain(|(uid, ..), _| uid != pod_uid);
    }
}

fn request(
    pod: &Pod,
    source: &PodCertificateProjection,
    account: &ServiceAccount,
    node: &Node,
    stub: Vec<u8>,
) -> PodCertificateRequest {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    PodCertificateRequest {
        metadata: ObjectMeta {
            namespace: pod.metadata.namespace.clone(),
            generate_name: Some("req-".to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.pod_name().to_owned(),
                uid: pod.uid().to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            signer_name: source.signer_name.clone(),
            pod_name: pod.pod_name().to_owned(),
            pod_uid: pod.uid().to_owned(),
            service_account_name: text(&account.metadata.name),
            service_account_uid: text(&account.metadata.uid),
            node_name: text(&node.metadata.name),
            node_uid: text(&node.metadata.uid),
            max_expiration_seconds: source.max_expiration_seconds,
            stub_pkc_s10_request: ByteString(stub),
            unverified_user_annotations: source.user_annotations.clone(),
        },
        status: None,
    }
}
