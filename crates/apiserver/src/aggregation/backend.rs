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
use rustls::client::WantsClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::documents::Documents;
use super::identity;
use crate::connect::{Destination, Pool, destinations, dial, unverified};
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
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The same as its files are now.
pub type Identities = watch::Receiver<Arc<Identity>>;

impl Identity {
    /// From PEM.
    ///
    /// # Errors
    /// When they are no certificate and key, or do not belong together.
    pub fn new(certificate_pem: &[u8], key_pem: &[u8]) -> anyhow::Result<Self> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)?.keys_match()?;
        Ok(Self { chain, key })
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

/// How connections are made, and what they prove that this server is.
struct Connector {
    identity: Option<Arc<Identity>>,
    /// Or why the server's authorities cannot be used.
    tls: Result<TlsConnector, String>,
}

/// An unused connection.
struct Idle {
    sender: Sender,
    since: Instant,
    identity: Option<Arc<Identity>>,
}

/// One backend.
pub struct Backend {
    pub address: Address,
    identities: Option<Identities>,
    verified: Mutex<Option<Connector>>,
    any: Mutex<Option<Connector>>,
    idle: Pool<Idle>,
    /// What it has said about its resources.
    pub documents: ArcSwap<Documents>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.address.authority())
    }
}

impl Backend {
    pub fn new(address: Address, identities: Option<Identities>) -> Self {
        Self {
            address,
            identities,
            verified: Mutex::default(),
            any: Mutex::default(),
            idle: Pool::default(),
            documents: ArcSwap::default(),
        }
    }

    fn identity(&self) -> Option<Arc<Identity>> {
        self.identities.as_ref().map(|identities| identities.borrow().clone())
    }

    /// How connections are made now. A session that an earlier certificate began is not resumed.
    fn connector(&self, trust: Trust) -> Result<TlsConnector, String> {
        let identity = self.identity();
        let mut known = if trust == Trust::Any { &self.any } else { &self.verified }.lock();
        match &*known {
            Some(known) if known.identity == identity => return known.tls.clone(),
            _ => {}
        }
        let builder = if trust == Trust::Any || self.address.insecure {
            unverified().map_err(|error| error.to_string())
        } else {
            verifying(&self.address.ca_pem)
        };
        let config = builder.and_then(|builder| {
            with_identity(builder, identity.as_deref()).map_err(|error| error.to_string())
        });
        let tls = config.map(|config| TlsConnector::from(Arc::new(config)));
        known.insert(Connector { identity, tls }).tls.clone()
    }

    /// Why no request can be sent: the `caBundle` is not one.
    pub fn unusable(&self) -> Option<String> {
        self.connector(Trust::Verified).err()
    }

    async fn connect(
        &self,
        core: &Core,
        to: &Destination,
        trust: Trust,
    ) -> Result<Sender, Failure> {
        let connector = self.connector(trust)?;
        let io = dial(core, &self.address.namespace, to).await?;
        let io = connector.connect(ServerName::try_from(self.address.host())?, io).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            // The error also reaches whoever waits for the response.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection to an extension server ended");
            }
        });
        Ok(sender)
    }

    /// A kept connection that is still good. `ready`: where the server is now.
    async fn kept(&self, ready: &[Destination], to: &Destination) -> Option<Sender> {
        loop {
            let Idle { mut sender, since, identity } = self.idle.take(ready, to)?;
            let is_current = since.elapsed() < IDLE && identity == self.identity();
            if is_current && !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, to: Destination, sender: Sender, identity: Option<Arc<Identity>>) {
        self.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE);
        if !sender.is_closed() {
            let idle = Idle { sender, since: clock::instant(), identity };
            self.idle.keep(to, idle, IDLE_MAX);
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
        let Address { namespace, name, port, .. } = &self.address;
        let ready = destinations(core, namespace, name, *port).await?;
        let to = &ready[rand::random_range(0..ready.len())];
        let mut request = request;
        let (response, sender, identity) = loop {
            let identity = self.identity();
            let kept = if keeps { self.kept(&ready, to).await } else { None };
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect(core, to, trust).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => break (response, sender, identity),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        };
        let back = keeps.then(|| Back { to: to.clone(), sender, identity, backend: self.clone() });
        let mut response = response.map(|body| Answer { body, back });
        response.body_mut().give_back();
        Ok(response)
    }

    /// Sends a request as `user`, and returns the head of its answer.
    ///
    /// # Errors
    /// Those of [`Self::send`].
    pub async fn open(
        self: &Arc<Self>,
        core: &Core,
        user: &User,
        asked: Asked<'_>,
    ) -> Result<Response<Answer>, Failure> {
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
            request = request.header(CONTENT_TYPE, asked.content_type);
        }
        let mut request = request.body(full(asked.body))?;
        identity::set(request.headers_mut(), user)?;
        self.send(core, request, Trust::Verified).await
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
        let (parts, body) = self.open(core, user, asked).await?.into_parts();
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
    pub content_type: &'a str,
    pub body: Bytes,
}

impl<'a> Asked<'a> {
    /// A document.
    pub fn document(path: &'a str, accept: &'a str, etag: &'a str) -> Self {
        let (content_type, body) = ("application/json", Bytes::new());
        Self { method: Method::GET, path, accept, etag, content_type, body }
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
    back: Option<Back>,
}

/// A connection in use, and where it is kept afterwards.
struct Back {
    to: Destination,
    sender: Sender,
    identity: Option<Arc<Identity>>,
    backend: Arc<Backend>,
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
        if let Some(Back { to, sender, identity, backend }) = self.back.take() {
            backend.keep(to, sender, identity);
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

fn with_identity(
    builder: Builder,
    identity: Option<&Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key())?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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

    fn identity() -> Arc<Identity> {
        let made = rcgen::generate_simple_self_signed(["proxy".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        Arc::new(Identity::new(made.cert.pem().as_bytes(), key.as_bytes()).unwrap())
    }

    #[test]
    fn connections_prove_the_current_certificate() {
        let (sender, identities) = watch::channel(identity());
        let address = Address {
            namespace: "n".to_owned(),
            name: "s".to_owned(),
            port: 443,
            ca_pem: Vec::new(),
            insecure: true,
        };
        let backend = Backend::new(address, Some(identities));
        let proves = |backend: &Backend| {
            let connector = backend.connector(Trust::Verified).unwrap();
            let known = backend.verified.lock();
            (connector.config().clone(), known.as_ref().unwrap().identity.clone())
        };
        let (first, second) = (proves(&backend), proves(&backend));
        assert!(Arc::ptr_eq(&first.0, &second.0), "sessions are resumed");
        let new = identity();
        sender.send(new.clone()).unwrap();
        let third = proves(&backend);
        assert!(!Arc::ptr_eq(&first.0, &third.0));
        assert_eq!(third.1, Some(new));
        // While files are replaced, a certificate may be beside the key of another one.
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let made = rcgen::generate_simple_self_signed(["proxy".to_owned()]).unwrap();
        assert!(Identity::new(made.cert.pem().as_bytes(), other.as_bytes()).is_err());
    }

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
