//! Calls of webhooks: a JSON document is posted, and one comes back.
//!
//! Servers behind a Service are reached as `services/proxy` reaches them, through the kubelets, so
//! that this works wherever exec does. Connections are kept alive, as long as what they go to is ready. Redirects are not followed.
//!
//! Sources: `k8s.io/apiserver/pkg/util/{webhook,proxy}`, `k8s.io/client-go/rest`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::webhook::{WebhookAddress, WebhookClient};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;

use crate::connect::{self, Destination, Io, Pool, destinations};
use crate::core::Core;

/// Webhooks whose connections are kept.
const WEBHOOKS_MAX: u64 = 1_000;
/// How long unused connections are kept.
const IDLE: Duration = Duration::from_secs(90);
/// Unused connections that are kept to one webhook.
const IDLE_MAX: usize = 8;
/// What all calls of one webhook may hold at once, sent and received, in KiB. Others wait. Large
/// answers are counted apart.
const HELD_KIB: usize = 64 << 10;
/// An answer larger than that is large.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
/// How much of an answer that reports an error is shown.
const SHOWN_BYTES: usize = 2_048;

type Sender = SendRequest<Full<Bytes>>;

/// Why a call failed, as client-go words it.
#[derive(Debug)]
pub struct CallError {
    why: String,
    /// That of the answer, if there is one.
    code: Option<u16>,
}

impl CallError {
    pub fn code(&self) -> Option<u16> {
        self.code
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// The connections to all webhooks.
pub struct Webhooks {
    endpoints: moka::sync::Cache<WebhookClient, Arc<Endpoint>>,
}

impl Default for Webhooks {
    fn default() -> Self {
        let endpoints =
            moka::sync::Cache::builder().max_capacity(WEBHOOKS_MAX).time_to_idle(IDLE).build();
        Self { endpoints }
    }
}

/// What is posted to a webhook, and what it may take and return.
pub struct Post {
    pub body: Bytes,
    pub timeout: Duration,
    /// Maximum size of the answer.
    pub answer_bytes: usize,
}

/// What a webhook has answered. It counts as held by the call until it is dropped.
pub struct Answer {
    body: Bytes,
    _held: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Deref for Answer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.body
    }
}

impl Webhooks {
    /// Posts a JSON document, and returns the answer's body.
    ///
    /// # Errors
    /// When the webhook cannot be reached, is not who it should be, answers with an error, with too
    /// much, or too late.
    pub async fn post(
        &self,
        core: &Core,
        client: &WebhookClient,
        post: Post,
    ) -> Result<Answer, CallError> {
        let seconds = post.timeout.as_millis().div_ceil(1_000);
        let url = format!("{}?timeout={seconds}s", client.url());
        let failed = |cause: &dyn fmt::Display| {
            let why = format!("Post {url:?}: {cause}");
            CallError { why, code: None }
        };
        let endpoint = match self.endpoints.get(client) {
            Some(endpoint) => endpoint,
            None => {
                let endpoint = Arc::new(Endpoint::new(client).map_err(|error| failed(&error))?);
                self.endpoints.insert(client.clone(), endpoint.clone());
                endpoint
            }
        };
        let answer = tokio::time::timeout(post.timeout, endpoint.post(core, client, &url, &post));
        match answer.await {
            Err(_) => Err(failed(&"context deadline exceeded")),
            Ok(Err(error)) => Err(failed(&runtime::errors::root_cause(&*error))),
            Ok(Ok((status, body))) if status.is_success() => Ok(body),
            Ok(Ok((status, body))) => {
                let code = Some(status.as_u16());
                Err(CallError { why: refusal(status, &body), code })
            }
        }
    }
}

/// What client-go makes of an answer that is no success.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    match status.as_u16() {
        404 => "the server could not find the requested resource".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        500.. => {
            let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
            format!(
                "an error on the server ({:?}) has prevented the request from succeeding",
                text.trim()
            )
        }
        code => format!(
            "the server responded with the status code {code} but did not return more information"
        ),
    }
}

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One webhook's server.
struct Endpoint {
    host: String,
    port: u16,
    tls: TlsConnector,
    name: ServerName<'static>,
    idle: Pool<Sender>,
    held: Arc<Semaphore>,
    /// For large answers.
    large: Arc<Semaphore>,
}

impl Endpoint {
    fn new(client: &WebhookClient) -> Result<Self, Failure> {
        let uri: Uri = client.url().parse()?;
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = match &client.address {
            WebhookAddress::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
            WebhookAddress::Url(_) => host.clone(),
        };
        Ok(Self {
            name: ServerName::try_from(name)?,
            port: uri.port_u16().unwrap_or(443),
            host,
            tls: TlsConnector::from(Arc::new(tls(&client.ca_pem)?)),
            idle: Pool::default(),
            held: Arc::new(Semaphore::new(HELD_KIB)),
            large: Arc::new(Semaphore::new(HELD_KIB)),
        })
    }

    async fn post(
        &self,
        core: &Core,
        client: &WebhookClient,
        url: &str,
        post: &Post,
    ) -> Result<(StatusCode, Answer), Failure> {
        let small = post.answer_bytes.min(SMALL_ANSWER_BYTES);
        let held = self.held.clone().acquire_many_owned(kib(post.body.len() + small)?).await?;
        let uri: Uri = url.parse()?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, "skiff-apiserver")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(post.body.clone()))?;
        let ready = self.destinations(core, client).await?;
        let to = &ready[rand::random_range(0..ready.len())];
        let (response, sender) = loop {
            let kept = self.idle.take(&ready, to);
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) if sender.is_closed() => continue,
                Some(sender) => sender,
                None => self.connect(core, client, to).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => break (response, sender),
                Err(mut error) => match error.take_message() {
                    // The server had closed the connection; it has not seen the request.
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        };
        let status = response.status();
        let mut limited = Limited::new(response.into_body(), post.answer_bytes);
        let (mut body, mut large) = (BytesMut::new(), None);
        while let Some(frame) = limited.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if large.is_none() && body.len() + data.len() > SMALL_ANSWER_BYTES {
                let permits = kib(post.answer_bytes)?;
                large = Some(self.large.clone().acquire_many_owned(permits).await?);
            }
            body.extend_from_slice(&data);
        }
        if !sender.is_closed() {
            self.idle.keep(to.clone(), sender, IDLE_MAX);
        }
        Ok((status, Answer { body: body.freeze(), _held: (held, large) }))
    }

    /// Where it can be reached now: at one place at least.
    async fn destinations(
        &self,
        core: &Core,
        client: &WebhookClient,
    ) -> Result<Vec<Destination>, ApiError> {
        match &client.address {
            WebhookAddress::Url(_) => Ok(vec![Destination::Host(self.host.clone(), self.port)]),
            WebhookAddress::Service { namespace, name, port, .. } => {
                destinations(core, namespace, name, *port).await
            }
        }
    }

    async fn connect(
        &self,
        core: &Core,
        client: &WebhookClient,
        to: &Destination,
    ) -> Result<Sender, Failure> {
        let io: Box<dyn Io> = match &client.address {
            WebhookAddress::Url(_) => Box::new(dial(&self.host, self.port).await?),
            WebhookAddress::Service { namespace, .. } => connect::dial(core, namespace, to).await?,
        };
        let io = self.tls.connect(self.name.clone(), io).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            // The error also reaches whoever waits for the response.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a webhook ended");
            }
        });
        Ok(sender)
    }
}

/// Permits for so many bytes.
fn kib(bytes: usize) -> Result<u32, Failure> {
    Ok(u32::try_from(bytes.div_ceil(1 << 10).min(HELD_KIB))?)
}

async fn dial(host: &str, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Settings that verify a server by these authorities, or by the machine's.
///
/// # Errors
/// When an authority cannot be read.
pub fn tls(ca_pem: &[u8]) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_pem)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// These authorities, or the machine's if there are none.
///
/// # Errors
/// When an authority cannot be read.
pub fn roots(ca_pem: &[u8]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if ca_pem.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}
