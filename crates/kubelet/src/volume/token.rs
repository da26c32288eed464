//! Service account tokens by TokenRequest: cached for 80 % of their lifetime (at most a day), then
//! renewed.

use std::collections::HashMap;

use client::{Api, Client};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use parking_lot::Mutex;

use super::VolumeError;
use crate::pod::pod_ext::PodExt;

/// Default lifetime of a token, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// Tokens are renewed after at most this long, in seconds.
const OLDEST_SECONDS: i64 = 24 * 3600;

/// A token that can be used now.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    pub renew_at: Timestamp,
}

type Key = (String, String, Option<String>, i64);

/// The tokens of the node's pods. After a restart of the kubelet they are requested again.
pub struct Tokens {
    client: Client,
    clock: SharedClock,
    cache: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    pub fn new(client: &Client, clock: SharedClock) -> Self {
        Self { client: client.clone(), clock, cache: Mutex::default() }
    }

    /// A token for the pod's service account, bound to the pod.
    pub async fn get(
        &self,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
    ) -> Result<Token, VolumeError> {
        let account = pod.spec_ref().service_account_name.as_deref().unwrap_or("default");
        let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let audience = source.audience.clone().filter(|audience| !audience.is_empty());
        let key = (pod.uid().to_owned(), account.to_owned(), audience.clone(), seconds);
        let now = self.clock.now();
        if let Some(known) = self.cache.lock().get(&key).filter(|known| known.renew_at > now) {
            return Ok(known.clone());
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|audience| vec![audience]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(&self.client, pod.pod_namespace());
        let answer = accounts
            .create_subresource(account, "token", &request)
            .await
            .map_err(VolumeError::Token)?;
        let status = answer.status.unwrap_or_default();
        let token = Token {
            text: status.token.unwrap_or_default(),
            renew_at: renew_at(now, status.expiration_timestamp.map_or(now, |time| time.0)),
        };
        self.cache.lock().insert(key, token.clone());
        Ok(token)
    }

    /// Forgets the tokens of a pod.
    pub fn release(&self, pod_uid: &str) {
        self.cache.lock().retain(|key, _| key.0 != pod_uid);
    }
}

fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let lifetime = expires.duration_since(now).as_secs().max(0);
    let seconds = (lifetime * 4 / 5).min(OLDEST_SECONDS);
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(expires)
}
