//! The keys of an issuer: where they are is asked once, they themselves when a token names one that
//! is not known.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::fetch;
use super::jwt::{Jwt, Key, key_set};

/// How long after a failure an issuer is asked again where its keys are.
const RETRY: Duration = Duration::from_secs(10);
/// How long after an answer keys are not asked for again: tokens name what they want.
const REFRESH: Duration = Duration::from_secs(1);
/// Requests that wait for the keys of an issuer at once; more are refused.
const WAITING: usize = 64;
/// Keys of an issuer.
const KEYS: usize = 256;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// One issuer.
pub struct Issuer {
    url: String,
    discovery: String,
    tls: Arc<ClientConfig>,
    /// Where its keys are, once it has said so.
    keys_url: ArcSwap<String>,
    keys: ArcSwap<Vec<Key>>,
    /// Why there are no keys yet.
    problem: Mutex<Option<String>>,
    asked: tokio::sync::Mutex<Option<Instant>>,
    waiting: Semaphore,
}

#[derive(Deserialize)]
struct Discovery {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
}

impl Issuer {
    /// `discovery`: where its configuration is, if not below its URL.
    pub fn new(url: &str, discovery: &str, tls: Arc<ClientConfig>) -> Self {
        let discovery = match discovery {
            "" => format!("{}{WELL_KNOWN}", url.trim_end_matches('/')),
            other => other.to_owned(),
        };
        Self {
            problem: Mutex::new(Some(format!(
                "oidc: authenticator for issuer {url:?} is not initialized"
            ))),
            url: url.to_owned(),
            discovery,
            tls,
            keys_url: ArcSwap::default(),
            keys: ArcSwap::default(),
            asked: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// Asks the issuer until it has answered once. Ends when nobody uses it any more.
    pub async fn initialize(itself: std::sync::Weak<Self>) {
        loop {
            let Some(own) = itself.upgrade() else { return };
            let outcome = own.discover().await;
            let done = outcome.is_ok();
            *own.problem.lock() = outcome.err().map(|error| {
                tracing::warn!(issuer = own.url, error, "an issuer of tokens cannot be used yet");
                let url = &own.url;
                format!("oidc: authenticator for issuer {url:?} is not initialized: {error}")
            });
            drop(own);
            if done {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Asks where the keys are, unless that is known.
    ///
    /// # Errors
    /// When the issuer does not say.
    pub async fn ready(&self) -> Result<(), String> {
        if self.problem().is_some() {
            self.discover().await?;
            *self.problem.lock() = None;
        }
        Ok(())
    }

    /// Why its tokens cannot be verified.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    async fn discover(&self) -> Result<(), String> {
        let document = fetch::get(&self.discovery, &self.tls).await?;
        let found: Discovery = serde_json::from_slice(&document)
            .map_err(|_| "oidc: failed to decode provider discovery object".to_owned())?;
        if found.issuer != self.url {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.url, found.issuer
            ));
        }
        if found.jwks_uri.is_empty() {
            return Err("oidc: the provider has no jwks_uri".to_owned());
        }
        self.keys_url.store(Arc::new(found.jwks_uri));
        Ok(())
    }

    /// Whether the issuer has signed a token. Its keys are asked for if none of the known ones has.
    ///
    /// # Errors
    /// When they cannot be asked for.
    pub async fn has_signed(&self, token: &Jwt<'_>) -> Result<bool, String> {
        if token.is_signed_by(&self.keys.load()) {
            return Ok(true);
        }
        if let Some(problem) = self.problem() {
            return Err(problem);
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err("too many requests wait for the issuer's keys".to_owned());
        };
        let mut asked = self.asked.lock().await;
        let recent = asked.is_some_and(|at| at.elapsed() < REFRESH);
        if !recent {
            let answer = fetch::get(&self.keys_url.load(), &self.tls).await;
            // Those who waited for this answer do not each wait for another one.
            *asked = Some(clock::instant());
            let keys = answer.and_then(|document| key_set(&document, KEYS));
            self.keys.store(Arc::new(keys.map_err(|error| {
                tracing::warn!(issuer = self.url, error, "the keys of an issuer cannot be read");
                format!("failed to verify id token signature: fetching keys {error}")
            })?));
        }
        drop(asked);
        Ok(token.is_signed_by(&self.keys.load()))
    }
}
