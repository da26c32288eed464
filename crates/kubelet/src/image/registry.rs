//! The part of the distribution API that pulls need
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>).
//!
//! Whoever may create a pod chooses the registry, so nothing that it sends is trusted: each body
//! ends at its declared size and at a constant, each must make progress, and what becomes part of
//! a message is short. Credentials are sent to the registry, and to the token server that it
//! names; never in plain text unless the registry is an insecure one, and never to a host that it
//! redirects to. As with Kubernetes, that host may be any.

mod answer;
mod body;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};

pub(super) use body::Body;

use super::RegistryCredential;
use super::error::{ImageError, Result};
use super::manifest::{ACCEPTED_MANIFESTS, Descriptor, digest_like, is_digest};

/// Largest manifest or index accepted: what registries accept.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest configuration accepted.
pub(super) const MAX_CONFIG_BYTES: u64 = 8 << 20;
const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const DIGEST_HEADER: &str = "docker-content-digest";

/// How long a registry may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of an answer, redirects included.
    answer: Duration,
    /// In each such period of a body ...
    period: Duration,
    /// ... this much of it must arrive, or its end.
    period_bytes: u64,
}

const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(60),
    period: Duration::from_secs(60),
    period_bytes: 64 << 10,
};

/// One repository of a registry, for one pull with one credential. Cheap to clone.
#[derive(Clone)]
pub(super) struct Registry {
    http: Client,
    /// The repository's URL, with a slash at its end.
    base: Url,
    reference: Reference,
    credential: Option<RegistryCredential>,
    /// Whether credentials may be sent without TLS.
    insecure: bool,
    /// What the registry's last challenge led to.
    authorization: Arc<Mutex<Option<HeaderValue>>>,
    patience: Patience,
}

/// How to speak to a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Https,
    /// With any certificate.
    InsecureHttps,
    Http,
}

/// A manifest, index or configuration as it came, and its digest.
pub(super) struct Fetched {
    pub(super) bytes: Bytes,
    pub(super) digest: String,
}

impl Registry {
    pub(super) fn new(
        reference: &Reference,
        credential: Option<&RegistryCredential>,
        protocol: Protocol,
    ) -> Result<Self> {
        let failed = |message: String| pull_error(reference, message);
        let scheme = if protocol == Protocol::Http { "http" } else { "https" };
        let host = reference.resolve_registry();
        let base = Url::parse(&format!("{scheme}://{host}/v2/{}/", reference.repository()))
            .map_err(|error| failed(format!("registry {host}: {error}")))?;
        let http = Client::builder()
            .danger_accept_invalid_certs(protocol == Protocol::InsecureHttps)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::limited(MAX_REDIRECTS))
            .user_agent("skiff")
            .build()
            .map_err(|error| failed(runtime::errors::cause_chain(&error)))?;
        Ok(Registry {
            http,
            base,
            reference: reference.clone(),
            credential: credential.cloned(),
            insecure: protocol != Protocol::Https,
            authorization: Arc::default(),
            patience: PATIENCE,
        })
    }

    /// The manifest or index that the reference names.
    pub(super) async fn target(&self) -> Result<Fetched> {
        let reference = &self.reference;
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        self.manifest(name, reference.digest(), MAX_MANIFEST_BYTES).await
    }

    /// The manifest that an index names.
    pub(super) async fn entry(&self, entry: &Descriptor) -> Result<Fetched> {
        let limit = entry.size.min(MAX_MANIFEST_BYTES);
        self.check_declared("manifest", entry, MAX_MANIFEST_BYTES)?;
        self.manifest(&entry.digest, Some(&entry.digest), limit).await
    }

    /// The configuration that a manifest names.
    pub(super) async fn config(&self, config: &Descriptor) -> Result<Bytes> {
        self.check_declared("image configuration", config, MAX_CONFIG_BYTES)?;
        let subject = format!("image configuration {}", config.digest);
        let response = self.get(&format!("blobs/{}", config.digest), HeaderMap::new()).await?;
        let bytes = self.body(response, subject, config.size)?.read_all().await?;
        self.verify(&bytes, &config.digest)?;
        Ok(bytes)
    }

    /// A layer, from `offset` on if the registry can do that: else from its beginning. Returns
    /// where the body begins. The caller verifies the digest.
    pub(super) async fn layer(&self, layer: &Descriptor, offset: u64) -> Result<(u64, Body)> {
        self.check_declared("layer", layer, u64::MAX)?;
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = format!("bytes={offset}-");
            headers.insert(RANGE, range.parse().expect("a range is a header's value"));
        }
        let response = self.get(&format!("blobs/{}", layer.digest), headers).await?;
        let begin = match response.status() {
            StatusCode::PARTIAL_CONTENT => offset,
            _ => 0,
        };
        let left = layer.size.saturating_sub(begin);
        Ok((begin, self.body(response, format!("layer {}", layer.digest), left)?))
    }

    async fn manifest(&self, name: &str, digest: Option<&str>, limit: u64) -> Result<Fetched> {
        let mut headers = HeaderMap::new();
        let accepted = ACCEPTED_MANIFESTS.join(", ");
        headers.insert(ACCEPT, accepted.parse().expect("media types are a header's value"));
        let response = self.get(&format!("manifests/{name}"), headers).await?;
        let stated = response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
        let stated = stated.map(str::to_owned);
        let bytes = self.body(response, format!("manifest {name}"), limit)?.read_all().await?;
        for digest in stated.iter().map(String::as_str).chain(digest) {
            self.verify(&bytes, digest)?;
        }
        let digest = digest.map_or_else(|| super::manifest::sha256_digest(&bytes), str::to_owned);
        Ok(Fetched { bytes, digest })
    }

    /// Refuses what a manifest declares before anything is asked for.
    fn check_declared(&self, what: &str, declared: &Descriptor, limit: u64) -> Result<()> {
        if !is_digest(&declared.digest) {
            let digest = answer::short(&declared.digest);
            return Err(self.failed(format!("{what} has an invalid digest {digest:?}")));
        }
        if declared.size > limit {
            let (size, digest) = (declared.size, &declared.digest);
            return Err(self.failed(format!(
                "{what} {digest} has {size} bytes, more than the {limit} that are accepted"
            )));
        }
        Ok(())
    }

    fn verify(&self, bytes: &[u8], digest: &str) -> Result<()> {
        match digest_like(digest, bytes) {
            Some(actual) if actual == digest => Ok(()),
            Some(actual) => {
                Err(self.failed(format!("content has the digest {actual}, expected {digest}")))
            }
            None => {
                let digest = answer::short(digest);
                Err(self.failed(format!("the digest {digest:?} cannot be verified")))
            }
        }
    }

    /// A successful answer, after authorization if the registry asks for it.
    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response> {
        let url = self.base.join(path).map_err(|error| self.failed(format!("{path}: {error}")))?;
        let known = self.authorization.lock().clone();
        let response = self.send(&url, &headers, known.as_ref()).await?;
        // A host that the registry redirects to gets no credentials.
        let may_ask = response.url().origin() == self.base.origin();
        if response.status() != StatusCode::UNAUTHORIZED || !may_ask {
            return self.successful(response).await;
        }
        match self.authorize(response.headers()).await? {
            Some(authorization) if known.as_ref() != Some(&authorization) => {
                *self.authorization.lock() = Some(authorization.clone());
                let response = self.send(&url, &headers, Some(&authorization)).await?;
                self.successful(response).await
            }
            _ => self.successful(response).await,
        }
    }

    async fn send(
        &self,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut request = self.http.get(url.clone()).headers(headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.answered(request).await
    }

    /// The head of the answer to a request.
    async fn answered(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        match tokio::time::timeout(self.patience.answer, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unavailable(runtime::errors::cause_chain(&error))),
            Err(_) => {
                let seconds = self.patience.answer.as_secs();
                Err(self.unavailable(format!("it has not answered for {seconds} seconds")))
            }
        }
    }

    fn body(&self, response: Response, subject: String, limit: u64) -> Result<Body> {
        Body::new(response, self.reference.to_string(), subject, limit, self.patience)
    }

    fn failed(&self, message: String) -> ImageError {
        pull_error(&self.reference, message)
    }

    fn unavailable(&self, message: String) -> ImageError {
        ImageError::RegistryUnavailable { image: self.reference.to_string(), message }
    }
}

fn pull_error(reference: &Reference, message: String) -> ImageError {
    ImageError::Pull { image: reference.to_string(), message }
}
