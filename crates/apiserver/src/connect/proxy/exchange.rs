//! One request to an HTTP/1.1 server, and its response.

use api::ApiError;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::backend::{Backend, Server, unreachable};
use super::html::Rewriter;
use super::links::Links;
use super::{PeerAddress, headers};
use crate::connect::upgrade::wants_upgrade;
use crate::rest::{Body, BodyError, empty};

/// A path at the server, and its prefix at the apiserver.
pub struct ProxiedPath<'a> {
    pub prefix: &'a str,
    pub path: PathAndQuery,
}

/// Forwards the request; the response's body is streamed.
///
/// # Errors
/// 503 when the server does not answer.
pub async fn send(
    backend: &Backend,
    proxied: &ProxiedPath<'_>,
    parts: &Parts,
    body: Body,
    client: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let Backend::Server(server) = backend else {
        return Err(ApiError::internal("a kubelet is no HTTP server"));
    };
    let upgrade = wants_upgrade(&parts.headers);
    let mut response = round_trip(server, proxied, parts, body, upgrade).await?;
    let links = links(server, proxied, parts);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrade {
            return Err(ApiError::service_unavailable(
                "error trying to reach service: it switched protocols unasked",
            ));
        }
        return Ok(switch(response, client));
    }
    headers::response(response.headers_mut(), &links);
    let rewrite = parts.method != Method::HEAD && headers::take_html(response.headers_mut());
    Ok(response.map(|body| {
        if rewrite { rewritten(body, links) } else { body.map_err(Into::into).boxed_unsync() }
    }))
}

fn links(server: &Server, proxied: &ProxiedPath<'_>, parts: &Parts) -> Links {
    let asked = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = asked.or(parts.uri.authority().map(Authority::as_str));
    let mut hosts = vec![server.authority()];
    hosts.extend(asked.map(str::to_owned));
    Links { prefix: proxied.prefix.to_owned(), hosts }
}

/// A page with its links rewritten, streamed.
fn rewritten(body: Incoming, links: Links) -> Body {
    let state = Some((body.into_data_stream(), Rewriter::new(links)));
    let frames = stream::unfold(state, |state| async {
        let (mut body, mut rewriter) = state?;
        let (bytes, state) = match body.next().await {
            Some(Ok(bytes)) => (rewriter.push(&bytes), Some((body, rewriter))),
            Some(Err(error)) => return Some((Err(BodyError::from(error)), None)),
            None => (rewriter.finish(), None),
        };
        Some((Ok(Frame::data(Bytes::from(bytes))), state))
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn round_trip(
    server: &Server,
    proxied: &ProxiedPath<'_>,
    parts: &Parts,
    body: Body,
    upgrade: bool,
) -> Result<Response<Incoming>, ApiError> {
    let io = TokioIo::new(server.connect().await?);
    let (mut sender, connection) =
        http1::handshake::<_, Body>(io).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(async move {
        // The error also reaches whoever waits for the response.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let peer = parts.extensions.get::<PeerAddress>();
    let peer = peer.map(|address| address.0.ip());
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers::request(parts, proxied.prefix, peer, upgrade);
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(proxied.path.clone());
    *request.uri_mut() =
        http::Uri::from_parts(uri).map_err(|error| ApiError::bad_request(error.to_string()))?;
    sender.send_request(request).await.map_err(|error| unreachable(&error))
}

/// Passes the server's new protocol through, byte by byte.
pub fn switch(mut response: Response<Incoming>, client: OnUpgrade) -> Response<Body> {
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a proxied upgrade failed"),
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!(%error, "an upgraded connection ended");
        }
    });
    let protocol = response.headers().get(UPGRADE).cloned();
    let headers = response.headers_mut();
    headers::answered(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
    response.map(|_| empty())
}
