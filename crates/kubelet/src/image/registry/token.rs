//! Authorization: what a registry's challenge asks for
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use http_auth::{ChallengeRef, parse_challenges};
use reqwest::Url;
use serde::Deserialize;

use super::{Registry, answer};
use crate::image::RegistryCredential;
use crate::image::error::Result;

/// Largest answer of a token server accepted.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// The answer of a token server.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Registry {
    /// The header that answers a challenge; `None` if there is nothing to answer it with.
    pub(super) async fn authorize(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>> {
        if let Some(credential) = &self.credential
            && credential.username.is_empty()
            && !credential.token.is_empty()
        {
            return self.header(format!("Bearer {}", credential.token)).map(Some);
        }
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<ChallengeRef<'_>> =
            texts.iter().filter_map(|text| parse_challenges(text).ok()).flatten().collect();
        let of =
            |scheme: &str| challenges.iter().find(|one| one.scheme.eq_ignore_ascii_case(scheme));
        if let Some(bearer) = of("bearer") {
            let token = self.token(bearer).await?;
            return self.header(format!("Bearer {token}")).map(Some);
        }
        match (of("basic"), &self.credential) {
            (Some(_), Some(credential)) => self.header(basic(credential)).map(Some),
            _ => Ok(None),
        }
    }

    /// A token for pulling from the repository, from the server that the challenge names.
    async fn token(&self, challenge: &ChallengeRef<'_>) -> Result<String> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").unwrap_or_default();
        let mut url = Url::parse(&realm).map_err(|error| {
            self.failed(format!("token server {:?}: {error}", answer::short(&realm)))
        })?;
        if !(url.scheme() == "https" || url.scheme() == "http" && self.insecure) {
            let server = answer::short(url.as_str());
            return Err(self.failed(format!("token server {server} does not use TLS")));
        }
        if let Some(service) = parameter("service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let scope = format!("repository:{}:pull", self.reference.repository());
        url.query_pairs_mut().append_pair("scope", &scope);
        let mut request = self.http.get(url);
        if let Some(credential) = &self.credential {
            request = request.basic_auth(&credential.username, Some(&credential.password));
        }
        let response = self.successful(self.answered(request).await?).await?;
        let body = self.body(response, "token".to_owned(), MAX_TOKEN_BYTES)?.read_all().await?;
        // The cause would quote what the server sent.
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| self.failed("the token server's answer holds no token".to_owned()))?;
        Ok(if token.token.is_empty() { token.access_token } else { token.token })
    }

    fn header(&self, text: String) -> Result<HeaderValue> {
        let header = HeaderValue::try_from(text);
        let mut header =
            header.map_err(|_| self.failed("a token or password has control characters".into()))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

fn basic(credential: &RegistryCredential) -> String {
    let RegistryCredential { username, password, .. } = credential;
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}
