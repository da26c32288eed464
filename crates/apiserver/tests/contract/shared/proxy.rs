//! The proxy: HTTP/2 on both sides, so that it can tell watches from transactions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::poll_fn;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

/// Which half of a transaction the store's client does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Request,
    Answer,
}

struct State {
    store: Channel,
    held: watch::Sender<bool>,
    /// The longest delay of a message of a watch.
    delay_ms: Mutex<u64>,
    /// The next transaction that contains the text is lost.
    loss: Mutex<Option<(String, Loss)>>,
}

pub struct StoreProxy {
    pub url: String,
    state: Arc<State>,
}

impl StoreProxy {
    pub async fn start(store: &str) -> Self {
        let state = Arc::new(State {
            store: Channel::from_shared(store.to_owned()).unwrap().connect_lazy(),
            held: watch::Sender::new(false),
            delay_ms: Mutex::default(),
            loss: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let state = shared.clone();
                let service = service_fn(move |request| forward(state.clone(), request));
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, state }
    }

    /// Holds all messages of watches back, or lets them go.
    pub fn hold(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    /// Delays each message of a watch by a random time.
    pub fn delay(&self, at_most: Duration) {
        *self.state.delay_ms.lock() = u64::try_from(at_most.as_millis()).unwrap();
    }

    /// Loses the next transaction that contains a text.
    pub fn lose(&self, text: &str, loss: Loss) {
        *self.state.loss.lock() = Some((text.to_owned(), loss));
    }

    /// Whether a transaction has been lost since the last call of `lose`.
    pub fn has_lost(&self) -> bool {
        self.state.loss.lock().is_none()
    }
}

impl State {
    fn loss(&self, message: &[u8]) -> Option<Loss> {
        let mut loss = self.loss.lock();
        let (text, _) = loss.as_ref()?;
        let found = message.windows(text.len()).any(|window| window == text.as_bytes());
        if found { loss.take().map(|(_, loss)| loss) } else { None }
    }

    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        let mut store = self.store.clone();
        if poll_fn(|context| store.poll_ready(context)).await.is_err() {
            return unavailable();
        }
        store.call(request).await.unwrap_or_else(|_| unavailable())
    }
}

fn unavailable() -> Response<Body> {
    tonic::Status::unavailable("lost by the test").into_http()
}

async fn forward(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path.ends_with("/Watch") {
        let (parts, body) = state.ask(request.map(Body::new)).await.into_parts();
        let held = state.held.subscribe();
        let frames = futures::stream::unfold((body, held, state), async |mut watch| {
            let frame = watch.0.frame().await?;
            let longest = *watch.2.delay_ms.lock();
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..=longest))).await;
            watch.1.wait_for(|held| !held).await.ok()?;
            Some((frame, watch))
        });
        return Ok(Response::from_parts(parts, Body::new(StreamBody::new(frames))));
    }
    if !path.ends_with("/Txn") {
        return Ok(state.ask(request.map(Body::new)).await);
    }
    let (parts, body) = request.into_parts();
    let Ok(message) = body.collect().await else { return Ok(unavailable()) };
    let message = message.to_bytes();
    let loss = state.loss(&message);
    if loss == Some(Loss::Request) {
        return Ok(unavailable());
    }
    let answer = state.ask(Request::from_parts(parts, Body::new(Full::new(message)))).await;
    if loss == Some(Loss::Answer) {
        // The store has answered once this is complete.
        let applied = answer.into_body().collect().await;
        assert!(applied.is_ok());
        return Ok(unavailable());
    }
    Ok(answer)
}
