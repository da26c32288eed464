//! Signs the kubeconfig in `kube-public/cluster-info` with every bootstrap token that is for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::bootstrap_token::{FOR_SIGNING, expires_at, usable};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use client::{Api, Client};
use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ring::hmac;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::CLUSTER_INFO;
use crate::wire::Wiring;

const NAMESPACE: &str = "kube-public";
const KUBECONFIG: &str = "kubeconfig";
/// What the fields of signatures start with; the token's id follows.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

struct Signer {
    client: Client,
    clock: SharedClock,
    tokens: Arc<Cache<Secret>>,
    config_maps: Arc<Cache<ConfigMap>>,
}

/// Adds the controller; its only key is the ConfigMap.
pub fn start(wiring: &mut Wiring) {
    let controller = Signer {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        tokens: wiring.cache(),
        config_maps: wiring.cache(),
    };
    let key = || Key::new(NAMESPACE, CLUSTER_INFO);
    wiring
        .controller(controller)
        .of_some(move |change: &Change<ConfigMap>| change.key() == key())
        .maps(move |_: &Change<Secret>| [key()])
        .start();
}

/// The fields that the ConfigMap should have; `None` if it has them.
fn plan(
    map: &ConfigMap,
    tokens: &[Arc<Secret>],
    now: Timestamp,
) -> Option<BTreeMap<String, String>> {
    let data = map.data.clone().unwrap_or_default();
    let content = data.get(KUBECONFIG)?;
    let others = data.iter().filter(|(name, _)| !name.starts_with(SIGNATURE_PREFIX));
    let mut wanted: BTreeMap<_, _> =
        others.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (id, secret) in tokens.iter().filter_map(|token| usable(token, FOR_SIGNING, now)) {
        wanted.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(content, id, secret));
    }
    (wanted != data).then_some(wanted)
}

/// A signature by HMAC, as a JWS whose content is elsewhere (RFC 7515, appendix F).
fn signature(content: &str, id: &str, secret: &str) -> String {
    let header = BASE64.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let message = format!("{header}.{}", BASE64.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
    format!("{header}..{signature}")
}

impl Controller for Signer {
    const NAME: &'static str = "bootstrap-signer";
    const CONCURRENCY: usize = 1;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let (tokens, now) = (self.tokens.list(), self.clock.now());
        let Some(map) = self.config_maps.get(key) else {
            return Ok(Next::Change);
        };
        if let Some(data) = plan(&map, &tokens, now) {
            let mut changed = (*map).clone();
            changed.data = Some(data);
            Api::<ConfigMap>::namespaced(&self.client, NAMESPACE)
                .replace(&changed)
                .await
                .during(|| format!("replace configmap {key}"))?;
        }
        // A signature ends with its token.
        let ends = tokens.iter().filter_map(|token| expires_at(token)).filter(|at| *at > now).min();
        let left = ends.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        Ok(left.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::at;
    use k8s_openapi::ByteString;

    fn token(id: &str, fields: &[(&str, &str)]) -> Arc<Secret> {
        let mut secret =
            Secret { type_: Some("bootstrap.kubernetes.io/token".into()), ..Default::default() };
        secret.metadata.name = Some(format!("bootstrap-token-{id}"));
        let all = [("token-id", id), ("token-secret", "0123456789abcdef"), (FOR_SIGNING, "true")];
        let data = all.iter().chain(fields);
        let data =
            data.map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        Arc::new(secret)
    }

    #[test]
    fn every_token_signs_and_no_other_signature_stays() {
        let mut map = ConfigMap::default();
        assert_eq!(plan(&map, &[token("abcdef", &[])], at(0)), None);
        let data = map.data.get_or_insert_default();
        data.insert(KUBECONFIG.into(), "content".into());
        data.insert("jws-kubeconfig-gone12".into(), "x".into());
        data.insert("other".into(), "y".into());
        let expired = [("expiration", "1970-01-01T00:00:10Z")];
        let tokens = [
            token("abcdef", &[]),
            token("second", &expired),
            token("third1", &[(FOR_SIGNING, "no")]),
        ];
        let data = plan(&map, &tokens, at(0)).unwrap();
        let names: Vec<_> = data.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["jws-kubeconfig-abcdef", "jws-kubeconfig-second", "kubeconfig", "other"]
        );
        map.data = Some(data);
        assert_eq!(plan(&map, &tokens, at(0)), None);
        let later = plan(&map, &tokens, at(10)).unwrap();
        assert!(!later.contains_key("jws-kubeconfig-second"));
    }

    #[test]
    fn signatures_are_detached_and_by_the_tokens_secret() {
        let signed = signature("content", "abcdef", "0123456789abcdef");
        let (header, mac) = signed.split_once("..").unwrap();
        assert_eq!(BASE64.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let message = format!("{header}.{}", BASE64.encode("content"));
        hmac::verify(&key, message.as_bytes(), &BASE64.decode(mac).unwrap()).unwrap();
    }
}
