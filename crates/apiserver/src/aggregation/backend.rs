//! The server behind an APIService: how it is reached, and its connections.
//!
//! It is reached as `services/proxy` reaches pods, through the kubelets. It must know this server by
//! its front-proxy certificate; this server verifies it by the APIService's `caBundle`. Connections
//! are kept alive, for requests without a body; each carries one request at a time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, IF_NONE_MATCH, USER_AGENT};
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIServiceSpec;
use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption, WantsClientCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::documents::Documents;
use super::identity;
use crate::connect::{Io, dial_service, unverified};
use crate::core::Core;
use crate::rest::{Body, full};
use crate::user::User;

/// Unused connections that are kept to one backend, and for how long: less than servers in Go keep
/// theirs.
const IDLE_MAX: usize = 8;
const IDLE: Duration = Duration::from_secs(60);

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
type Sender = SendRequest<Body>;

/// What this server proves to extension servers that it is.
#[derive(Debug)]
pub struct Identity(Arc<CertifiedKey>);

/// The identity as it is now.
pub type CurrentIdentity = watch::Receiver<Arc<Identity>>;

impl Identity {
    /// From PEM.
    ///
    /// # Errors
    /// When they are no certificate and key, or do not belong together.
    pub fn new(certificate_pem: &[u8], key_pem: &[u8]) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)?;
        certified.keys_match()?;
        Ok(Self(Arc::new(certified)))
    }
}

/// A renewed certificate is another one, whatever its key.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

/// Presents what the identity is at each handshake.
#[derive(Debug)]
struct Presenter(CurrentIdentity);

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.0.borrow().0.clone();
        current.key.choose_scheme(schemes).is_some().then_some(current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Where an APIService says that its server is, and how it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    ca_pem: Vec<u8>,
    insecure: bool,
}

impl Address {
    /// `None`: this server answers it itself.
    pub fn of(spec: &APIServiceSpec) -> Option<Self> {
        let service = spec.service.as_ref()?;
        Some(Self {
            namespace: service.namespace.clone().unwrap_or_default(),
            name: service.name.clone().unwrap_or_default(),
            port: service.port.and_then(|port| port.try_into().ok()).unwrap_or(443),
            ca_pem: spec.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default(),
            insecure: spec.insecure_skip_tls_verify.unwrap_or_default(),
        })
    }

    /// The name that its certificate must have.
    fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// Host and port, as in URLs.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host(), self.port)
    }
}

/// Whether a server is verified. Checks of availability accept any, as upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Verified,
    Any,
}

/// One backend.
pub struct Backend {
    pub address: Address,
    /// Or why its authorities cannot be used.
    verified: Result<TlsConnector, String>,
    any: Result<TlsConnector, String>,
    identity: Option<CurrentIdentity>,
    idle: Mutex<Vec<(Connection, Instant)>>,
    /// What it has said about its resources.
    pub documents: ArcSwap<Documents>,
}

/// A connection, and the identity that it was made with.
struct Connection {
    sender: Sender,
    identity: Option<Arc<Identity>>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.address.authority())
    }
}

impl Backend {
    pub fn new(address: Address, identity: Option<&CurrentIdentity>) -> Self {
        let connector = |builder: Result<Builder, String>| {
            Ok(TlsConnector::from(Arc::new(with_identity(builder?, identity))))
        };
        let any = || unverified().map_err(|error| error.to_string());
        let verified = if address.insecure { any() } else { verifying(&address.ca_pem) };
        Self {
            verified: connector(verified),
            any: connector(any()),
            address,
            identity: identity.cloned(),
            idle: Mutex::default(),
            documents: ArcSwap::default(),
        }
    }

    /// Why no request can be sent: the `caBundle` is not one.
    pub fn unusable(&self) -> Option<&str> {
        self.verified.as_ref().err().map(String::as_str)
    }

    fn current_identity(&self) -> Option<Arc<Identity>> {
        self.identity.as_ref().map(|identity| identity.borrow().clone())
    }

    /// Whether a connection can carry another request.
    fn is_good(&self, connection: &Connection) -> bool {
        !connection.sender.is_closed() && connection.identity == self.current_identity()
    }

    async fn connect(&self, core: &Core, trust: Trust) -> Result<Connection, Failure> {
        let Address { namespace, name, port, .. } = &self.address;
        let connector = if trust == Trust::Any { &self.any } else { &self.verified };
        let connector = connector.clone()?;
        // If it is replaced meanwhile, the connection carries one request only.
        let identity = self.current_identity();
        let io: Box<dyn Io> = dial_service(core, namespace, name, *port).await?;
        let io = connector.connect(ServerName::try_from(self.address.host())?, io).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            // The error also reaches whoever waits for the response.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection to an extension server ended");
            }
        });
        Ok(Connection { sender, identity })
    }

    /// A kept connection that is still good.
    async fn kept(&self) -> Option<Connection> {
        loop {
            let (mut kept, since) = self.idle.lock().pop()?;
            let good = since.elapsed() < IDLE && self.is_good(&kept);
            if good && kept.sender.ready().await.is_ok() {
                return Some(kept);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        idle.retain(|(kept, since)| since.elapsed() < IDLE && self.is_good(kept));
        if idle.len() < IDLE_MAX && self.is_good(&connection) {
            idle.push((connection, clock::instant()));
        }
    }

    /// Sends a request, and returns the head of its answer.
    ///
    /// # Errors
    /// When there is no connection to the server, or it is not who it should be, or no HTTP server.
    pub async fn send(
        self: &Arc<Self>,
        core: &Core,
        request: Request<Body>,
        trust: Trust,
    ) -> Result<Response<Answer>, Failure> {
        // What has a body cannot be sent again if the server has just closed the connection.
        let keeps = trust == Trust::Verified && request.body().is_end_stream();
        let mut request = request;
        let (response, connection) = loop {
            let kept = if keeps { self.kept().await } else { None };
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(core, trust).await?,
            };
            match connection.sender.try_send_request(request).await {
                Ok(response) => break (response, connection),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        };
        let back = keeps.then(|| (connection, self.clone()));
        let mut response = response.map(|body| Answer { body, back });
        response.body_mut().give_back();
        Ok(response)
    }

    /// Sends a request as `user`, and reads the answer, of at most `most` bytes.
    ///
    /// # Errors
    /// Those of [`Self::send`], and when the document is larger.
    pub async fn ask(
        self: &Arc<Self>,
        core: &Core,
        user: &User,
        asked: Asked<'_>,
        most: usize,
    ) -> Result<Document, Failure> {
        let mut request = Request::builder()
            .method(asked.method)
            .uri(asked.path)
            .header(HOST, self.address.authority())
            .header(USER_AGENT, "skiff-apiserver")
            .header(ACCEPT, asked.accept);
        if !asked.etag.is_empty() {
            request = request.header(IF_NONE_MATCH, asked.etag);
        }
        if !asked.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(full(asked.body))?;
        identity::set(request.headers_mut(), user)?;
        let (parts, body) = self.send(core, request, Trust::Verified).await?.into_parts();
        let mut limited = Limited::new(body, most);
        let mut whole = BytesMut::new();
        while let Some(frame) = limited.frame().await {
            if let Ok(data) = frame?.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(Document { code: parts.status.as_u16(), headers: parts.headers, body: whole.freeze() })
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub method: Method,
    pub path: &'a str,
    pub accept: &'a str,
    /// Of the version that is known; empty: of none.
    pub etag: &'a str,
    /// JSON.
    pub body: Bytes,
}

impl<'a> Asked<'a> {
    /// A document.
    pub fn document(path: &'a str, accept: &'a str, etag: &'a str) -> Self {
        Self { method: Method::GET, path, accept, etag, body: Bytes::new() }
    }
}

/// An answer that has been read as a whole.
#[derive(Debug)]
pub struct Document {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Document {
    pub fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The body of an answer. At its end the connection is kept for the next request.
pub struct Answer {
    body: Incoming,
    back: Option<(Connection, Arc<Backend>)>,
}

impl Answer {
    /// The body alone.
    pub fn into_inner(self) -> Incoming {
        self.body
    }

    /// Keeps the connection, if the body is known to end here.
    fn give_back(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some((connection, backend)) = self.back.take() {
            backend.keep(connection);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match frame {
            None => self.end(),
            // Whoever knows its length asks for no more.
            Some(_) => self.give_back(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Builder = ConfigBuilder<ClientConfig, WantsClientCert>;

fn with_identity(builder: Builder, identity: Option<&CurrentIdentity>) -> ClientConfig {
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(Presenter(own.clone()))),
    };
    // A session that is resumed is one of the identity that it began with.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Settings that verify a server by these authorities, or by the machine's.
fn verifying(ca_pem: &[u8]) -> Result<Builder, String> {
    let mut roots = RootCertStore::empty();
    if ca_pem.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        add_authorities(&mut roots, ca_pem)
            .map_err(|why| format!("unable to load root certificates: {why}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots))
}

/// As client-go reads a bundle: one certificate that can be used is enough.
fn add_authorities(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut broken = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            Ok((SectionKind::Certificate, der)) => {
                if let Err(error) = roots.add(CertificateDer::from(der)) {
                    broken.get_or_insert_with(|| format!("failed to parse certificate: {error}"));
                }
            }
            Ok(_) => {}
            Err(_) => {
                broken.get_or_insert_with(|| "unable to parse bytes as PEM block".to_owned());
            }
        }
    }
    if !roots.is_empty() {
        return Ok(());
    }
    let blocks = pem.windows(11).any(|part| part == b"-----BEGIN ");
    Err(broken.unwrap_or_else(|| {
        let why = if blocks {
            "no valid certificate authority data seen"
        } else {
            "unable to parse bytes as PEM block"
        };
        why.to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_is_said_as_client_go_says_it() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let good = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
        let table = [
            ("nonsense", "unable to parse bytes as PEM block"),
            ("\n", "unable to parse bytes as PEM block"),
            (&key, "no valid certificate authority data seen"),
            (broken, "failed to parse certificate: "),
            ("-----BEGIN CERTIFICATE-----\n!", "unable to parse bytes as PEM block"),
            (&good, ""),
            (&format!("{broken}{key}{good}"), ""),
        ];
        for (bundle, why) in table {
            let read = add_authorities(&mut RootCertStore::empty(), bundle.as_bytes());
            let said = read.err().unwrap_or_default();
            assert!(said.starts_with(why) && said.is_empty() == why.is_empty(), "{bundle}: {said}");
        }
    }
}
