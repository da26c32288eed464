//! An extension server: it answers a group version, as an APIService names it, and remembers what it
//! was asked, by whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, UPGRADE};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request, as it has arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The common name of the client's certificate, if the authority of front proxies has signed
    /// it.
    pub peer: Option<String>,
}

impl Seen {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).collect()
    }

    /// The only value of a header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }
}

/// What the server does with a request.
pub enum Reply {
    Json(u16, Value),
    /// A content type, an ETag and a body.
    Document(&'static str, &'static str, Bytes),
    Status(u16, &'static str),
    Redirect,
    /// So many bytes of JSON.
    Long(usize),
    /// Nothing, ever.
    Hang,
    /// These lines, and then nothing, ever.
    Lines(Vec<Value>),
    /// Lines as they come.
    Stream(BoxStream<'static, Value>),
    /// Another protocol, whose bytes are sent back.
    Echo(&'static str),
}

type Behaviour = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A running extension server.
#[derive(Clone)]
pub struct Extension {
    pub port: u16,
    /// Its certificate, in PEM.
    pub ca_pem: String,
    behaviour: Arc<Mutex<Behaviour>>,
    pub requests: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    /// Whether connections are answered by what is no HTTP.
    pub garbage: Arc<AtomicBool>,
}

impl Extension {
    /// A server at any port of an address, with a certificate for these names, that verifies front
    /// proxies by `proxy_ca_pem`.
    ///
    /// # Errors
    /// When the address is not this machine's.
    pub async fn start(
        address: &str,
        names: &[&str],
        proxy_ca_pem: &str,
        behave: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(proxy_ca_pem.as_bytes())?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()?;
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], key)?;
        let listener = TcpListener::bind((address, 0)).await?;
        let extension = Self {
            port: listener.local_addr()?.port(),
            ca_pem: cert.pem(),
            behaviour: Arc::new(Mutex::new(Box::new(behave))),
            requests: Arc::default(),
            connections: Arc::default(),
            garbage: Arc::default(),
        };
        tokio::spawn(extension.clone().serve(listener, TlsAcceptor::from(Arc::new(tls))));
        Ok(extension)
    }

    async fn serve(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (extension, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                if extension.garbage.load(Ordering::Relaxed) {
                    stream.write_all(b"\x00\x01garbage\r\n\r\n").await.ok();
                    return;
                }
                let certificates = stream.get_ref().1.peer_certificates();
                let own = certificates.and_then(|all| rpc::tls::certificate_identity(&all[0]).ok());
                let peer = own.map(|identity| identity.name);
                let service = service_fn(|request| extension.answer(request, peer.clone()));
                let http = hyper::server::conn::http1::Builder::new();
                let serving = http.serve_connection(TokioIo::new(stream), service);
                serving.with_upgrades().await.ok();
            });
        }
    }

    async fn answer(
        &self,
        mut request: http::Request<Incoming>,
        peer: Option<String>,
    ) -> anyhow::Result<http::Response<Body>> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let body = match parts.headers.contains_key(UPGRADE) {
            true => Bytes::new(),
            false => body.collect().await?.to_bytes(),
        };
        let seen = Seen {
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            headers: parts.headers,
            body,
            peer,
        };
        let reply = (self.behaviour.lock())(&seen);
        self.requests.lock().push(seen);
        let response = http::Response::builder();
        Ok(match reply {
            Reply::Json(code, json) => response
                .status(code)
                .header(CONTENT_TYPE, "application/json")
                .header("access-control-allow-origin", "*")
                .body(whole(json.to_string()))?,
            Reply::Document(content_type, etag, body) => {
                response.header(CONTENT_TYPE, content_type).header(ETAG, etag).body(whole(body))?
            }
            Reply::Status(code, text) => response.status(code).body(whole(text))?,
            Reply::Redirect => {
                let place = format!("https://127.0.0.1:{}/elsewhere", self.port);
                response.status(307).header(LOCATION, place).body(whole(""))?
            }
            Reply::Long(bytes) => {
                let body = format!("\"{}\"", "x".repeat(bytes));
                response.header(CONTENT_TYPE, "application/json").body(whole(body))?
            }
            Reply::Hang => std::future::pending().await,
            Reply::Lines(lines) => {
                let lines: Vec<_> = lines.iter().map(|line| format!("{line}\n")).collect();
                let frames = lines.into_iter().map(|line| Ok(Frame::data(Bytes::from(line))));
                let frames = stream::iter(frames).chain(stream::pending());
                response
                    .header(CONTENT_TYPE, "application/json")
                    .body(StreamBody::new(frames).boxed_unsync())?
            }
            Reply::Stream(lines) => {
                let frames = lines.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
                response
                    .header(CONTENT_TYPE, "application/json")
                    .body(StreamBody::new(frames).boxed_unsync())?
            }
            Reply::Echo(protocol) => {
                tokio::spawn(async move {
                    let Ok(upgraded) = upgrade.await else { return };
                    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
                response
                    .status(101)
                    .header(CONNECTION, "Upgrade")
                    .header(UPGRADE, protocol)
                    .body(whole(""))?
            }
        })
    }

    pub fn behave(&self, behave: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.behaviour.lock() = Box::new(behave);
    }

    /// The requests since the last time, of paths that contain `part`.
    pub fn take(&self, part: &str) -> Vec<Seen> {
        let all = std::mem::take(&mut *self.requests.lock());
        all.into_iter().filter(|seen| seen.path.contains(part)).collect()
    }

    /// `caBundle` of its certificate.
    pub fn ca_bundle(&self) -> String {
        BASE64.encode(&self.ca_pem)
    }
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

/// A group version with one resource, `things`, which are told in answers who has asked.
#[derive(Clone, Copy, Debug)]
pub struct Things {
    pub group: &'static str,
    pub version: &'static str,
    /// Whether discovery has the aggregated form too.
    pub aggregated: bool,
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const TAG: &str = "\"1\"";

impl Things {
    /// The path of the group version.
    pub fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// Answers a request.
    pub fn answer(&self, seen: &Seen) -> Reply {
        let path = seen.path.split('?').next().unwrap_or_default();
        let own = self.path();
        let same = seen.headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == TAG);
        match path {
            "/apis" | "/openapi/v2" if same => Reply::Status(304, ""),
            "/apis" if self.aggregated && seen.header("accept").contains(AGGREGATED) => {
                Reply::Document(AGGREGATED, TAG, self.discovery().to_string().into())
            }
            "/apis" => Reply::Json(200, json!({"kind": "APIGroupList", "groups": []})),
            "/openapi/v2" => {
                Reply::Document("application/json", TAG, self.openapi_v2().to_string().into())
            }
            "/openapi/v3" => {
                let key = own.trim_start_matches('/');
                let url = format!("/openapi/v3/{key}?hash=1");
                Reply::Json(200, json!({"paths": {key: {"serverRelativeURL": url}}}))
            }
            _ if path == format!("/openapi/v3{own}") => Reply::Json(
                200,
                json!({"openapi": "3.0.0", "info": {"title": "things", "version": "1"},
                    "paths": {format!("{own}/things"): {}}, "components": {"schemas": {}}}),
            ),
            _ if path == own => Reply::Json(200, self.resources()),
            _ if path.starts_with(&own) => self.object(seen),
            _ => Reply::Status(404, "404 page not found\n"),
        }
    }

    fn object(&self, seen: &Seen) -> Reply {
        if seen.path.contains("watch=1") {
            let event = |name: &str| json!({"type": "ADDED", "object": {"kind": "Thing", "metadata": {"name": name}}});
            return Reply::Lines(vec![event("a"), event("b")]);
        }
        if seen.headers.contains_key(UPGRADE) {
            return Reply::Echo("SPDY/3.1");
        }
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        Reply::Json(
            if seen.method == "POST" { 201 } else { 200 },
            json!({"kind": "Thing", "apiVersion": format!("{}/{}", self.group, self.version),
                "metadata": {"name": "a"}, "method": seen.method, "path": seen.path, "body": body,
                "user": seen.header("x-remote-user"), "groups": seen.all("x-remote-group"),
                "peer": seen.peer}),
        )
    }

    fn resources(&self) -> Value {
        json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": format!("{}/{}", self.group, self.version),
            "resources": [{"name": "things", "singularName": "thing", "namespaced": true,
                "kind": "Thing", "verbs": ["get", "list", "watch", "create"]}]})
    }

    fn discovery(&self) -> Value {
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {}, "items": [{"metadata": {"name": self.group}, "versions": [{
                "version": self.version, "freshness": "Current", "resources": [{
                    "resource": "things", "scope": "Namespaced", "singularResource": "thing",
                    "responseKind": {"group": self.group, "version": self.version, "kind": "Thing"},
                    "verbs": ["get", "list", "watch", "create"]}]}]}]})
    }

    fn openapi_v2(&self) -> Value {
        json!({"swagger": "2.0", "info": {"title": "things", "version": "1"},
            "paths": {format!("{}/things", self.path()): {"get": {"responses": {"200": {
                "description": "OK", "schema": {"$ref": "#/definitions/com.example.Thing"}}}}},
                "/apis/apps/v1/deployments": {}},
            "definitions": {"com.example.Thing": {"type": "object"}}})
    }
}
