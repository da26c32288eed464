//! Documents of other servers: bounded in time and size, over TLS, without redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::kubeconfig::{Connection, Source};
use crate::connect::Io;

/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document.
const MAX_BYTES: usize = 1 << 20;

/// How often a webhook is asked, and the pause before the second time, which grows.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Unused connections that are kept to one server, and for how long.
const IDLE_MAX: usize = 8;
const IDLE: Duration = Duration::from_secs(60);

type Sender = SendRequest<Full<Bytes>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer.
pub struct Failed {
    pub why: String,
    /// Whether another attempt may succeed.
    may_pass: bool,
}

/// A server that documents are posted to, with the credentials of a kubeconfig file. Connections
/// are kept alive.
pub struct Client {
    source: Source,
    idle: Mutex<Vec<Idle>>,
}

/// A connection that nobody uses.
struct Idle {
    sender: Sender,
    since: Instant,
    /// How it was made.
    by: Arc<Connection>,
}

impl Client {
    pub fn new(source: Source) -> Self {
        Self { source, idle: Mutex::default() }
    }

    /// Sends a document, again if need be, and returns the one that is the answer.
    ///
    /// # Errors
    /// As [`get`]; any success will do.
    pub async fn ask(&self, body: Bytes, timeout: Duration) -> Result<Bytes, String> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            match self.post(body.clone(), timeout).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.may_pass && attempt < ATTEMPTS => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    attempt += 1;
                }
                Err(failure) => return Err(failure.why),
            }
        }
    }

    /// Sends a document once.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn post(&self, body: Bytes, timeout: Duration) -> Result<Bytes, Failed> {
        let connection = self.source.current();
        let answer = match tokio::time::timeout(timeout, self.exchange(&connection, body)).await {
            Err(_) => Err("context deadline exceeded".to_owned()),
            Ok(answer) => answer.map_err(|error| runtime::errors::root_cause(&*error).to_string()),
        };
        let url = &connection.url;
        let failed =
            |why: String, may_pass| Failed { why: format!("Post {url:?}: {why}"), may_pass };
        let answer = answer.map_err(|why| failed(why, true))?;
        match answer.status() {
            status if status.is_success() => Ok(answer.into_body()),
            status => {
                let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                Err(failed(format!("the server answered {status}"), passing))
            }
        }
    }

    async fn exchange(
        &self,
        by: &Arc<Connection>,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let Connection { url, tls, server_name, credentials, .. } = &**by;
        let request = Request::post(url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json");
        let request = match credentials.authorization().await? {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let (mut request, server) = prepare(request, body)?;
        let (response, sender) = loop {
            let kept = self.idle.lock().pop();
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(kept) if !kept.is_good(by) => continue,
                Some(kept) => kept.sender,
                None => {
                    let (sender, connection) =
                        server.connect(tls.as_ref(), server_name.as_deref()).await?;
                    tokio::spawn(async move {
                        // The error also reaches whoever waits for the response.
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "the connection to a webhook ended");
                        }
                    });
                    sender
                }
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
        let answer = whole(response).await?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(Idle { sender, since: clock::instant(), by: by.clone() });
        }
        Ok(answer)
    }
}

impl Idle {
    /// Whether it can carry another request.
    fn is_good(&self, by: &Arc<Connection>) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < IDLE && Arc::ptr_eq(&self.by, by)
    }
}

/// Gets a document.
///
/// # Errors
/// When the server cannot be reached, is not who it should be, answers anything but 200, too much or too
/// late.
pub async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Bytes, String> {
    get_with(url, tls, None).await
}

/// As [`get`], with a bearer token.
///
/// # Errors
/// As [`get`].
pub async fn get_with(
    url: &str,
    tls: &Arc<ClientConfig>,
    bearer: Option<&str>,
) -> Result<Bytes, String> {
    let mut request = Request::get(url).header(ACCEPT, "application/json");
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
    }
    let answer = bounded(request, tls).await;
    let answer = answer.map_err(|error| format!("Get {url:?}: {error}"))?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(format!("Get {url:?}: the server answered {status}")),
    }
}

async fn bounded(
    request: http::request::Builder,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, String> {
    match tokio::time::timeout(TIMEOUT, exchange(request, tls)).await {
        Err(_) => Err("context deadline exceeded".to_owned()),
        Ok(answer) => answer.map_err(|error| runtime::errors::root_cause(&*error).to_string()),
    }
}

/// An exchange with which its connection ends, whatever becomes of it.
async fn exchange(
    request: http::request::Builder,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, Failure> {
    let (request, server) = prepare(request, Bytes::new())?;
    let (mut sender, connection) = server.connect(Some(tls), None).await?;
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(connection);
    whole(sender.send_request(request).await?).await
}

/// Where a request goes.
struct Server {
    host: String,
    port: Option<u16>,
    scheme: String,
}

/// A request as it is sent, and where it goes.
fn prepare(
    request: http::request::Builder,
    body: Bytes,
) -> Result<(Request<Full<Bytes>>, Server), Failure> {
    let mut request = request.header(USER_AGENT, "skiff-apiserver").body(Full::new(body))?;
    let uri = request.uri().clone();
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    request.headers_mut().insert(HOST, authority.parse()?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let scheme = uri.scheme_str().unwrap_or_default().to_owned();
    Ok((request, Server { host: host.to_owned(), port: uri.port_u16(), scheme }))
}

type Driving = http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>;

impl Server {
    /// Over TLS, unless there are no settings for it.
    async fn connect(
        &self,
        tls: Option<&Arc<ClientConfig>>,
        name: Option<&str>,
    ) -> Result<(Sender, Driving), Failure> {
        let (scheme, port) = if tls.is_some() { ("https", 443) } else { ("http", 80) };
        if self.scheme != scheme {
            return Err(format!("the URL scheme must be {scheme}").into());
        }
        let port = self.port.unwrap_or(port);
        let stream = tokio::net::TcpStream::connect((self.host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Io> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(name.unwrap_or(&self.host).to_owned())?;
                Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?)
            }
        };
        Ok(http1::handshake(TokioIo::new(stream)).await?)
    }
}

async fn whole(response: Response<Incoming>) -> Result<Response<Bytes>, Failure> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BYTES).collect().await?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
