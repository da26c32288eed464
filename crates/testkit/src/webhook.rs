//! A webhook's server, which answers as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the webhook does with a request.
pub enum Reply {
    Json(Value),
    Status(u16, &'static str),
    Redirect,
    /// A body of so many bytes.
    Long(usize),
    Hang,
}

type Behaviour = Box<dyn Fn(&Value) -> Reply + Send + Sync>;

/// A running webhook.
#[derive(Clone)]
pub struct Webhook {
    pub port: u16,
    /// Its certificate, in PEM.
    pub ca_pem: String,
    behaviour: Arc<Mutex<Behaviour>>,
    /// The requests received.
    pub requests: Arc<Mutex<Vec<Value>>>,
    pub connections: Arc<AtomicUsize>,
}

impl Webhook {
    /// A webhook at any port of an address, with a certificate for these names.
    ///
    /// # Errors
    /// When the address is not this machine's.
    pub async fn start(
        address: &str,
        names: &[&str],
        behave: impl Fn(&Value) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let listener = TcpListener::bind((address, 0)).await?;
        let webhook = Self {
            port: listener.local_addr()?.port(),
            ca_pem: cert.pem(),
            behaviour: Arc::new(Mutex::new(Box::new(behave))),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        tokio::spawn(webhook.clone().serve(listener, TlsAcceptor::from(Arc::new(tls))));
        Ok(webhook)
    }

    async fn serve(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (webhook, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request| webhook.answer(request));
                let http = hyper::server::conn::http1::Builder::new();
                http.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    }

    async fn answer(
        &self,
        request: http::Request<Incoming>,
    ) -> anyhow::Result<http::Response<Full<Bytes>>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let review: Value = match body.len() {
            // A request for a document.
            0 => json!({ "path": path }),
            _ => serde_json::from_slice(&body)?,
        };
        let reply = (self.behaviour.lock())(&review);
        self.requests.lock().push(review);
        let response = http::Response::builder();
        let (response, body) = match reply {
            Reply::Json(json) => (response, json.to_string().into()),
            Reply::Status(code, text) => (response.status(code), text.into()),
            Reply::Redirect => {
                let place = format!("https://127.0.0.1:{}/", self.port);
                (response.status(307).header("location", place), Bytes::new())
            }
            Reply::Long(bytes) => (response, vec![b' '; bytes].into()),
            Reply::Hang => std::future::pending().await,
        };
        Ok(response.body(Full::new(body))?)
    }

    pub fn behave(&self, behave: impl Fn(&Value) -> Reply + Send + Sync + 'static) {
        *self.behaviour.lock() = Box::new(behave);
    }

    /// How an object names this webhook, by its own address.
    pub fn client_config(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/convert", self.port),
            "caBundle": self.ca_bundle()})
    }

    /// `caBundle` of its certificate.
    pub fn ca_bundle(&self) -> String {
        BASE64.encode(&self.ca_pem)
    }
}
