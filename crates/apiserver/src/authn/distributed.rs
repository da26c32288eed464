//! Distributed claims (OpenID Connect Core 5.6.2): a token may say where its groups are instead of
//! naming them. That place answers with another token, of an issuer of its own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::fetch;
use super::issuer::Issuer;
use super::jwt::{ALGORITHMS, Jwt};
use super::structured::check;

const NAMES: &str = "_claim_names";
const SOURCES: &str = "_claim_sources";
/// Issuers of claims that are known at once; more are refused.
const ISSUERS_MAX: usize = 64;

/// Where claims are.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    endpoint: String,
    access_token: String,
}

/// Fetches the claims of the tokens of one issuer.
pub struct Distributed {
    tls: Arc<ClientConfig>,
    audiences: Vec<String>,
    issuers: Mutex<HashMap<String, Arc<Issuer>>>,
}

impl Distributed {
    /// `tls`: how endpoints and issuers are verified; `audiences`: whom the claims must be for.
    pub fn new(tls: Arc<ClientConfig>, audiences: Vec<String>) -> Self {
        Self { tls, audiences, issuers: Mutex::default() }
    }

    /// Adds a claim that verified claims only refer to.
    ///
    /// # Errors
    /// When they do, and it cannot be had.
    pub async fn expand(
        &self,
        claims: &mut Map<String, Value>,
        claim: &str,
        now: f64,
    ) -> Result<(), String> {
        let Some(source) = source(claims, claim)? else { return Ok(()) };
        let token = Some(source.access_token.as_str()).filter(|token| !token.is_empty());
        let answer = fetch::get_with(&source.endpoint, &self.tls, token).await;
        let answer = answer
            .map_err(|error| format!("while getting distributed claim {claim:?}: {error}"))?;
        let endpoint = &source.endpoint;
        let failed = |why: &str| {
            format!(
                "getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}: {why}"
            )
        };
        let text = std::str::from_utf8(&answer).map_err(|_| failed("no token"))?.trim();
        let jwt = Jwt::parse(text).map_err(|error| failed(&error.to_string()))?;
        let issuer = self.issuer(jwt.claimed_issuer())?;
        issuer.ready().await.map_err(|error| {
            format!("verifying untrusted issuer {} failed: {error}", jwt.claimed_issuer())
        })?;
        let verify = |why: String| format!("verify distributed claim token: {why}");
        if !ALGORITHMS.contains(&jwt.algorithm()) {
            let algorithm = jwt.algorithm();
            return Err(verify(format!("oidc: unexpected signature algorithm {algorithm:?}")));
        }
        if !issuer.has_signed(&jwt).await.map_err(verify)? {
            return Err(verify("failed to verify signature".to_owned()));
        }
        let mut found = jwt.claims();
        check(&found, &self.audiences, now).map_err(verify)?;
        let value = found.remove(claim).ok_or_else(|| {
            format!(
                "jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}"
            )
        })?;
        claims.insert(claim.to_owned(), value);
        Ok(())
    }

    fn issuer(&self, url: &str) -> Result<Arc<Issuer>, String> {
        let mut issuers = self.issuers.lock();
        if !issuers.contains_key(url) && issuers.len() >= ISSUERS_MAX {
            return Err(format!("more than {ISSUERS_MAX} issuers of distributed claims"));
        }
        let issuer = issuers.entry(url.to_owned());
        let new = || Arc::new(Issuer::new(url, "", self.tls.clone()));
        Ok(issuer.or_insert_with(new).clone())
    }
}

/// Where a claim is that is not among the claims; `None`: it is there, or nowhere.
fn source(claims: &Map<String, Value>, claim: &str) -> Result<Option<Source>, String> {
    if claims.contains_key(claim) {
        return Ok(None);
    }
    let Some(names) = claims.get(NAMES) else { return Ok(None) };
    let names: HashMap<String, String> = serde_json::from_value(names.clone())
        .map_err(|error| format!("oidc: error parsing distributed claim names: {error}"))?;
    let sources = claims.get(SOURCES).ok_or("oidc: no claim sources")?;
    let mut sources: HashMap<String, Source> = serde_json::from_value(sources.clone())
        .map_err(|error| format!("oidc: could not parse claim sources: {error}"))?;
    let Some(name) = names.get(claim) else { return Ok(None) };
    let source = sources.remove(name).ok_or_else(|| {
        format!("id token _claim_names contained a source {name} missing in _claims_sources")
    })?;
    // One without an endpoint is an aggregated claim.
    Ok(Some(source).filter(|source| !source.endpoint.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_that_is_elsewhere_is_found_there() {
        let names = json!({"groups": "a"});
        for (claims, expected) in [
            (json!({}), Ok("")),
            (json!({"groups": [], "_claim_names": names}), Ok("")),
            (json!({"_claim_names": {"other": "a"}, "_claim_sources": {}}), Ok("")),
            (
                json!({"_claim_names": names, "_claim_sources": {"a": {"endpoint": "https://e"}}}),
                Ok("https://e"),
            ),
            (json!({"_claim_names": names, "_claim_sources": {"a": {"JWT": "x"}}}), Ok("")),
            (json!({"_claim_names": names}), Err("oidc: no claim sources")),
            (
                json!({"_claim_names": [], "_claim_sources": {}}),
                Err("oidc: error parsing distributed claim names"),
            ),
            (
                json!({"_claim_names": names, "_claim_sources": []}),
                Err("oidc: could not parse claim sources"),
            ),
            (
                json!({"_claim_names": names, "_claim_sources": {}}),
                Err("id token _claim_names contained a source a missing in _claims_sources"),
            ),
        ] {
            let found = source(claims.as_object().unwrap(), "groups");
            match (found, expected) {
                (Ok(found), Ok(endpoint)) => {
                    assert_eq!(found.unwrap_or_default().endpoint, endpoint, "{claims}");
                }
                (Err(error), Err(why)) => assert!(error.starts_with(why), "{error}"),
                (found, _) => panic!("{claims}: {:?}", found.err()),
            }
        }
    }
}
