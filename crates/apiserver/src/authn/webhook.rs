//! Tokens that a webhook knows: it is sent a TokenReview, and its answer counts for a while
//! (`k8s.io/apiserver/plugin/pkg/authenticator/token/webhook`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenReview;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::fetch::Client;
use super::kubeconfig::Source;
use crate::config::Config;
use crate::configuration::Unusable;
use crate::user::User;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once; more wait as long as one may take.
const CALLS: usize = 64;
/// Answers that are remembered.
const REMEMBERED: u64 = 10_000;

/// What the webhook has said of a token for some audiences; `None`: it is of nobody.
type Verdict = Option<(Arc<User>, Vec<String>)>;

/// The webhook.
pub struct TokenWebhook {
    client: Client,
    version: String,
    /// By the digest of a token and the audiences.
    known: moka::sync::Cache<[u8; 32], Verdict>,
    calls: Semaphore,
}

impl TokenWebhook {
    /// The webhook of the flags, if there is one.
    ///
    /// # Errors
    /// When its file cannot be used.
    pub fn new(config: &Config) -> Result<Option<Self>, Unusable> {
        let flags = &config.token_webhook;
        let Some(path) = &flags.authentication_token_webhook_config_file else {
            return Ok(None);
        };
        let version = flags.authentication_token_webhook_version.clone();
        if !matches!(&*version, "v1" | "v1beta1") {
            let problem = format!("unsupported webhook authenticator version {version:?}");
            return Err(Unusable(problem));
        }
        let life = api::duration::parse(&flags.authentication_token_webhook_cache_ttl).map_err(
            |error| Unusable(format!("--authentication-token-webhook-cache-ttl: {error}")),
        )?;
        Ok(Some(Self {
            client: Client::new(Source::load(path)?),
            version,
            known: moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build(),
            calls: Semaphore::new(CALLS),
        }))
    }

    /// The user of a token, and the audiences of `wanted` that it is for.
    ///
    /// # Errors
    /// When the webhook cannot be asked; that is not remembered.
    pub async fn user(
        &self,
        token: &str,
        wanted: &[String],
        own: &[String],
    ) -> Result<Verdict, String> {
        let mut digest = Sha256::new();
        for part in wanted.iter().map(String::as_str).chain([token]) {
            digest.update(part.len().to_be_bytes());
            digest.update(part.as_bytes());
        }
        let key: [u8; 32] = digest.finalize().into();
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let waited = tokio::time::timeout(TIMEOUT, self.calls.acquire()).await;
        let Ok(Ok(_call)) = waited else {
            return Err("too many tokens are being reviewed".to_owned());
        };
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let verdict = verdict(self.review(token, wanted).await?, wanted, own);
        self.known.insert(key, verdict.clone());
        Ok(verdict)
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<TokenReview, String> {
        let version = format!("authentication.k8s.io/{}", self.version);
        let review = json!({"kind": "TokenReview", "apiVersion": version,
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences}});
        let answer = self.client.ask(review.to_string().into(), TIMEOUT).await?;
        let mut answer: serde_json::Value = serde_json::from_slice(&answer)
            .map_err(|_| "the webhook's answer is no TokenReview".to_owned())?;
        if answer["kind"] != "TokenReview" || answer["apiVersion"] != *version {
            return Err("the webhook's answer is no TokenReview of that version".to_owned());
        }
        answer["apiVersion"] = "authentication.k8s.io/v1".into();
        if answer["spec"].is_null() {
            answer["spec"] = json!({});
        }
        serde_json::from_value(answer)
            .map_err(|_| "the webhook's answer is no TokenReview".to_owned())
    }
}

fn verdict(review: TokenReview, wanted: &[String], own: &[String]) -> Verdict {
    let status = review.status?;
    if status.authenticated != Some(true) {
        return None;
    }
    // A webhook that does not speak of audiences answers for the apiserver's own.
    let given = status.audiences.filter(|given| !given.is_empty()).unwrap_or_else(|| own.to_vec());
    let audiences: Vec<String> =
        wanted.iter().filter(|audience| given.contains(audience)).cloned().collect();
    if audiences.is_empty() && !wanted.is_empty() {
        return None;
    }
    let info = status.user.unwrap_or_default();
    let name = info.username.filter(|name| !name.is_empty())?;
    let mut user = User::authenticated(name, info.groups.unwrap_or_default());
    user.uid = info.uid.unwrap_or_default();
    user.extra = info.extra.unwrap_or_default();
    Some((Arc::new(user), audiences))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_for_these_audiences_is_one() {
        let names =
            |all: &[&str]| -> Vec<String> { all.iter().map(|one| (*one).to_owned()).collect() };
        let of = |status: serde_json::Value, wanted: &[&str]| {
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "spec": {}, "status": status});
            let review = serde_json::from_value(review).unwrap();
            verdict(review, &names(wanted), &names(&["own"]))
                .map(|(user, given)| (user.name.clone(), given))
        };
        let user = json!({"username": "u"});
        let yes = |audiences: &[&str]| Some(("u".to_owned(), names(audiences)));
        let good = json!({"authenticated": true, "user": user});
        assert_eq!(of(good.clone(), &["own", "x"]), yes(&["own"]));
        assert_eq!(of(good, &["x"]), None);
        let bound = json!({"authenticated": true, "user": user, "audiences": ["x"]});
        assert_eq!(of(bound.clone(), &["own", "x"]), yes(&["x"]));
        assert_eq!(of(bound, &["own"]), None);
        assert_eq!(of(json!({"authenticated": false, "user": user}), &["own"]), None);
        assert_eq!(of(json!({"authenticated": true}), &["own"]), None);
        assert_eq!(of(json!({"user": user}), &["own"]), None);
    }
}
