//! A hostile registry on loopback, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response as HttpResponse};
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, WWW_AUTHENTICATE};
use tokio::net::TcpListener;

use super::*;
use crate::image::manifest::sha256_digest;

/// What more may be sent than is accepted: what is in the sockets' buffers.
const BUFFERED_BYTES: u64 = 16 << 20;
const PIECE: &[u8] = &[b' '; 64 << 10];
const GOOD: &[u8] = b"{\"schemaVersion\":2}";

/// How the hostile registry behaves in one answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trick {
    /// An endless body.
    Endless,
    /// A body that says it is endless.
    LongAnnounced,
    /// A body that begins, and then nothing.
    Stalls,
    /// One byte after the other.
    Drips,
    /// No answer.
    Silent,
    /// A redirection to itself.
    Circle,
}

/// The request that the trick is played on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Manifest,
    Blob,
    Token,
    Error,
}

struct Hostile {
    address: SocketAddr,
    target: Target,
    trick: Trick,
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicUsize>,
}

impl Hostile {
    async fn start(target: Target, trick: Trick) -> Arc<Hostile> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, requests) = Default::default();
        let hostile = Arc::new(Hostile { address, target, trick, sent, requests });
        let router = Router::new().fallback(answer).with_state(hostile.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        hostile
    }

    fn registry(&self) -> Registry {
        let reference = format!("{}/app:1", self.address);
        let reference = crate::image::reference::parse(&reference).unwrap();
        let mut registry = Registry::new(&reference, None, Protocol::Http).unwrap();
        // Only what is waited for in vain is waited for shortly.
        let soon = |tricks: &[Trick]| {
            if tricks.contains(&self.trick) { Duration::from_millis(300) } else { PATIENCE.period }
        };
        registry.patience = Patience {
            answer: soon(&[Trick::Silent]),
            period: soon(&[Trick::Stalls, Trick::Drips]),
            ..PATIENCE
        };
        registry
    }

    async fn play(&self, uri: String) -> HttpResponse {
        let sent = self.sent.clone();
        let pieces = |piece: &'static [u8]| {
            futures::stream::repeat(piece).map(move |piece| {
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(piece)
            })
        };
        match self.trick {
            Trick::Endless => HttpBody::from_stream(pieces(PIECE)).into_response(),
            Trick::LongAnnounced => {
                let body = HttpBody::from_stream(pieces(PIECE));
                ([(CONTENT_LENGTH, u64::MAX >> 2)], body).into_response()
            }
            Trick::Stalls => {
                let body = pieces(b"{").take(1).chain(futures::stream::pending());
                HttpBody::from_stream(body).into_response()
            }
            Trick::Drips => {
                let slowly = pieces(b" ").then(|piece| async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    piece
                });
                HttpBody::from_stream(slowly).into_response()
            }
            Trick::Silent => std::future::pending().await,
            Trick::Circle => Redirect::temporary(&uri).into_response(),
        }
    }
}

async fn answer(State(hostile): State<Arc<Hostile>>, request: Request) -> HttpResponse {
    hostile.requests.fetch_add(1, Ordering::Relaxed);
    let uri = request.uri().to_string();
    let kind = match uri.split('/').nth(if uri.starts_with("/v2/") { 3 } else { 1 }) {
        Some("manifests") => Target::Manifest,
        Some("blobs") => Target::Blob,
        _ => Target::Token,
    };
    match hostile.target {
        Target::Error => {
            let mut answer = hostile.play(uri).await;
            if answer.status().is_success() {
                *answer.status_mut() = http::StatusCode::NOT_FOUND;
            }
            answer
        }
        Target::Token if kind != Target::Token => {
            let challenge = format!("Bearer realm=\"http://{}/token\"", hostile.address);
            let unauthorized = http::StatusCode::UNAUTHORIZED;
            (unauthorized, [(WWW_AUTHENTICATE, challenge)]).into_response()
        }
        target if target == kind => hostile.play(uri).await,
        _ => GOOD.into_response(),
    }
}

fn blob(size: u64) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: sha256_digest(GOOD),
        size,
        platform: None,
        annotations: Default::default(),
    }
}

/// Everything that a pull asks a registry for, and the most that it accepts.
const CALLS: [(&str, Target, u64); 6] = [
    ("manifest", Target::Manifest, MAX_MANIFEST_BYTES),
    ("entry", Target::Manifest, 1000),
    ("config", Target::Blob, 1000),
    ("large config", Target::Blob, MAX_CONFIG_BYTES),
    ("layer", Target::Blob, 1_000_000),
    ("rest of a layer", Target::Blob, 1_000_000),
];

async fn call(registry: &Registry, name: &str, declared: u64) -> Result<()> {
    match name {
        "manifest" => registry.target().await.map(drop),
        "entry" => registry.entry(&blob(declared)).await.map(drop),
        "config" | "large config" => registry.config(&blob(declared)).await.map(drop),
        "layer" => read(registry.layer(&blob(declared), 0).await?.1, declared).await,
        _ => read(registry.layer(&blob(declared), 10).await?.1, declared).await,
    }
}

/// Reads a layer as a pull does.
async fn read(mut body: Body, declared: u64) -> Result<()> {
    let mut received = 0;
    while let Some(piece) = body.next().await? {
        received += piece.len() as u64;
        assert!(received <= declared, "a layer is counted at the stream");
    }
    Ok(())
}

const TRICKS: [Trick; 6] = [
    Trick::Endless,
    Trick::LongAnnounced,
    Trick::Stalls,
    Trick::Drips,
    Trick::Silent,
    Trick::Circle,
];

#[tokio::test]
async fn no_answer_is_read_without_bound() {
    for (name, target, limit) in CALLS {
        let cases = [target, Target::Token, Target::Error]
            .into_iter()
            .flat_map(|target| TRICKS.map(|trick| ends(name, target, limit, trick)));
        futures::future::join_all(cases).await;
    }
}

async fn ends(name: &str, target: Target, limit: u64, trick: Trick) {
    let hostile = Hostile::start(target, trick).await;
    let error = call(&hostile.registry(), name, limit).await.unwrap_err();
    let text = error.to_string();
    let what = format!("{name} {target:?} {trick:?}: {text}");
    let sent = hostile.sent.load(Ordering::Relaxed);
    assert!(sent <= limit + BUFFERED_BYTES, "{sent} bytes were sent: {what}");
    assert!(hostile.requests.load(Ordering::Relaxed) <= 13, "{what}");
    assert!(text.len() < 1000, "{what}");
    let expected = match (trick, target) {
        (Trick::Circle, _) => "redirect",
        (Trick::Silent, _) => "has not answered",
        // What was read of it is enough.
        (_, Target::Error) => "404 Not Found",
        (Trick::Endless | Trick::LongAnnounced, _) => "is larger than",
        _ => "bytes have arrived in",
    };
    assert!(text.contains(expected), "expected {expected}: {what}");
}

#[tokio::test]
async fn what_is_declared_too_large_is_not_asked_for() {
    let hostile = Hostile::start(Target::Error, Trick::Endless).await;
    let registry = hostile.registry();
    for (size, digest) in [
        (MAX_CONFIG_BYTES + 1, sha256_digest(GOOD)),
        (u64::MAX, sha256_digest(GOOD)),
        (1, "sha256:../../../token".to_owned()),
        (1, String::new()),
    ] {
        let descriptor = Descriptor { digest, ..blob(size) };
        assert!(registry.config(&descriptor).await.is_err(), "{descriptor:?}");
        assert!(registry.entry(&descriptor).await.is_err(), "{descriptor:?}");
    }
    assert_eq!(hostile.requests.load(Ordering::Relaxed), 0);
}

/// A registry that answers with what it was asked, and challenges who sends no credentials.
async fn strict(realm: Option<String>) -> (SocketAddr, Arc<Mutex<Vec<(String, String)>>>) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let log = seen.clone();
    let router = Router::new().fallback(move |request: Request| {
        let (log, realm) = (log.clone(), realm.clone());
        async move {
            let header = request.headers().get(AUTHORIZATION);
            let header = header.map(|value| value.to_str().unwrap().to_owned());
            let path = request.uri().to_string();
            log.lock().push((path.clone(), header.clone().unwrap_or_default()));
            if path.starts_with("/token") {
                return r#"{"access_token":"abc"}"#.into_response();
            }
            if header.is_some() {
                return GOOD.into_response();
            }
            let challenge = match realm {
                Some(realm) => format!("Bearer realm=\"{realm}\",service=\"s\""),
                None => format!("Bearer realm=\"http://{address}/token\",service=\"s\""),
            };
            (http::StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

fn robot() -> RegistryCredential {
    let (username, password) = ("me".into(), "pw".into());
    RegistryCredential { username, password, ..RegistryCredential::default() }
}

#[tokio::test]
async fn credentials_go_to_the_token_server_and_tokens_to_the_registry() {
    let (address, seen) = strict(None).await;
    let reference = crate::image::reference::parse(&format!("{address}/team/app:1")).unwrap();
    let registry = Registry::new(&reference, Some(&robot()), Protocol::Http).unwrap();
    assert_eq!(registry.target().await.unwrap().digest, sha256_digest(GOOD));
    registry.config(&blob(100)).await.unwrap();
    let config = format!("/v2/team/app/blobs/{}", sha256_digest(GOOD));
    let expected = [
        ("/v2/team/app/manifests/1", ""),
        ("/token?service=s&scope=repository%3Ateam%2Fapp%3Apull", "Basic bWU6cHc="),
        ("/v2/team/app/manifests/1", "Bearer abc"),
        (config.as_str(), "Bearer abc"),
    ];
    let seen = seen.lock().clone();
    let seen: Vec<(&str, &str)> = seen.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn token_servers_that_are_not_asked() {
    for (realm, protocol) in
        [("file:///etc/passwd", Protocol::Http), ("/token", Protocol::Http), ("", Protocol::Http)]
    {
        let (address, seen) = strict(Some(realm.to_owned())).await;
        let reference = crate::image::reference::parse(&format!("{address}/app:1")).unwrap();
        let registry = Registry::new(&reference, Some(&robot()), protocol).unwrap();
        let error = registry.target().await.err().unwrap().to_string();
        assert!(error.contains("token server"), "{error}");
        assert_eq!(seen.lock().len(), 1);
    }
    // A registry with TLS does not make us send a password without.
    let reference = crate::image::reference::parse("registry.example.com/app:1").unwrap();
    let registry = Registry::new(&reference, Some(&robot()), Protocol::Https).unwrap();
    let challenge = "Bearer realm=\"http://127.0.0.1:1/token\"".parse().unwrap();
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)]);
    let error = registry.authorize(&headers).await.unwrap_err().to_string();
    assert!(error.contains("does not use TLS"), "{error}");
}

#[tokio::test]
async fn a_redirection_takes_no_credentials_along() {
    let (elsewhere, seen) = strict(None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(move |request: Request| async move {
        let to = format!("http://{elsewhere}{}", request.uri());
        match request.headers().contains_key(AUTHORIZATION) {
            true => Redirect::temporary(&to).into_response(),
            false => (http::StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"r\"")])
                .into_response(),
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let reference = crate::image::reference::parse(&format!("{address}/app:1")).unwrap();
    let registry = Registry::new(&reference, Some(&robot()), Protocol::Http).unwrap();
    let error = registry.target().await.err().unwrap();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    assert_eq!(*seen.lock(), [("/v2/app/manifests/1".to_owned(), String::new())]);
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_refused() {
    let (address, _) = strict(None).await;
    let image = format!("{address}/app@{}", sha256_digest(b"other"));
    let reference = crate::image::reference::parse(&image).unwrap();
    let registry = Registry::new(&reference, Some(&robot()), Protocol::Http).unwrap();
    let error = registry.target().await.err().unwrap().to_string();
    assert!(error.contains("has the digest"), "{error}");
    let other = Descriptor { digest: sha256_digest(b"other"), ..blob(100) };
    assert!(registry.config(&other).await.is_err());
}
