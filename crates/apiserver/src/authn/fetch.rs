//! Documents of other servers: bounded in time and size, over TLS, without redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document.
const MAX_BYTES: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Gets a document.
///
/// # Errors
/// When the server cannot be reached, is not who it should be, answers anything but 200, too much or too
/// late.
pub async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Bytes, String> {
    let failed = |cause: &dyn std::fmt::Display| format!("Get {url:?}: {cause}");
    match tokio::time::timeout(TIMEOUT, exchange(url, tls)).await {
        Err(_) => Err(failed(&"context deadline exceeded")),
        Ok(Err(error)) => Err(failed(&runtime::errors::root_cause(&*error))),
        Ok(Ok(body)) => Ok(body),
    }
}

async fn exchange(url: &str, tls: &Arc<ClientConfig>) -> Result<Bytes, Failure> {
    let uri: Uri = url.parse()?;
    if uri.scheme_str() != Some("https") {
        return Err("the URL scheme must be https".into());
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::net::TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with the exchange, whatever becomes of it.
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(connection);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, uri.authority().map(ToString::to_string).unwrap_or_default())
        .header(USER_AGENT, "skiff-apiserver")
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("the server answered {}", response.status()).into());
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await?;
    Ok(body.to_bytes())
}
