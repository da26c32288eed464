//! Documents of other servers: bounded in time and size, over TLS, without redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document.
const MAX_BYTES: usize = 1 << 20;

/// How often a webhook is asked, and the pause before the second time, which grows.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer.
struct Failed {
    why: String,
    /// Whether another attempt may succeed.
    may_pass: bool,
}

/// A document that is sent.
pub struct Post<'a> {
    pub url: &'a str,
    pub tls: &'a Arc<ClientConfig>,
    pub bearer: Option<&'a str>,
    pub body: Bytes,
    pub timeout: Duration,
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
    let answer = bounded(request, Bytes::new(), tls, TIMEOUT).await;
    let answer = answer.map_err(|error| format!("Get {url:?}: {error}"))?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(format!("Get {url:?}: the server answered {status}")),
    }
}

/// Sends a document, again if need be, and returns the one that is the answer.
///
/// # Errors
/// As [`get`]; any success will do.
pub async fn ask(document: &Post<'_>) -> Result<Bytes, String> {
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        match post(document).await {
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

async fn post(post: &Post<'_>) -> Result<Bytes, Failed> {
    let mut request = Request::post(post.url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json");
    if let Some(bearer) = post.bearer {
        request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
    }
    let answer = bounded(request, post.body.clone(), post.tls, post.timeout).await;
    let failed =
        |why: String, may_pass| Failed { why: format!("Post {:?}: {why}", post.url), may_pass };
    let answer = answer.map_err(|why| failed(why, true))?;
    match answer.status() {
        status if status.is_success() => Ok(answer.into_body()),
        status => {
            let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            Err(failed(format!("the server answered {status}"), passing))
        }
    }
}

async fn bounded(
    request: http::request::Builder,
    body: Bytes,
    tls: &Arc<ClientConfig>,
    timeout: Duration,
) -> Result<Response<Bytes>, String> {
    match tokio::time::timeout(timeout, exchange(request, body, tls)).await {
        Err(_) => Err("context deadline exceeded".to_owned()),
        Ok(answer) => answer.map_err(|error| runtime::errors::root_cause(&*error).to_string()),
    }
}

async fn exchange(
    request: http::request::Builder,
    body: Bytes,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, Failure> {
    let mut request = request.header(USER_AGENT, "skiff-apiserver").body(Full::new(body))?;
    let uri = request.uri().clone();
    if uri.scheme_str() != Some("https") {
        return Err("the URL scheme must be https".into());
    }
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    request.headers_mut().insert(HOST, authority.parse()?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::net::TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with the exchange, whatever becomes of it.
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_BYTES).collect().await?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
