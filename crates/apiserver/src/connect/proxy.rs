//! `pods/proxy`, `services/proxy` and `nodes/proxy`: a client's HTTP request, forwarded to the
//! named backend. Bodies are streamed in both directions; an `Upgrade` is passed through.
//!
//! Redirects and links in HTML pages are rewritten, so that they stay within the proxy.
//!
//! Pods are reached through the kubelet's port forwarding, so that this works wherever exec does,
//! even where the apiserver has no route to pods. A kubelet's own pages are read over the
//! connection that the apiserver has to it anyway ([`node`]). Nothing here authorizes: the pipeline
//! has done that.
//!
//! Sources: `k8s.io/kubernetes/pkg/registry/core/{pod,service,node}`,
//! `k8s.io/apimachinery/pkg/util/proxy`.

mod address;
mod backend;
mod endpoints;
mod exchange;
mod headers;
mod html;
mod links;
mod node;
mod target;
mod tls;

use std::net::SocketAddr;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use hyper::upgrade::OnUpgrade;

use backend::Backend;

use super::upgrade::wants_upgrade;
use crate::rest::{Accept, Body, empty, render_error};

pub use backend::{Io, unreachable};
pub use endpoints::{Destination, Pool, is_ready, read_slices, slices};
pub use exchange::switch;
pub use headers::{answered, forwarded};
pub use target::{destinations, dial, find};
pub use tls::unverified;

/// The client's address, added to a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// Where an authorized request is forwarded to.
#[derive(Debug)]
pub struct Proxy {
    backend: Backend,
    /// What follows `proxy` in the request's path, as the client encoded it: empty, or starting
    /// with a slash.
    path: String,
}

impl Proxy {
    /// Forwards the request, and returns the backend's answer.
    pub async fn serve(
        self,
        parts: &Parts,
        body: Body,
        upgrade: OnUpgrade,
    ) -> http::Response<Body> {
        if self.path.is_empty()
            && matches!(parts.method, Method::GET | Method::HEAD)
            && !wants_upgrade(&parts.headers)
        {
            return redirect(parts);
        }
        let own = parts.uri.path();
        let prefix = own.strip_suffix(&self.path).unwrap_or(own);
        let path = if self.path.is_empty() { "/" } else { &self.path };
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let answered = match format!("{path}{query}").parse::<PathAndQuery>() {
            Err(error) => Err(api::ApiError::bad_request(error.to_string())),
            Ok(path) => match self.backend {
                Backend::Kubelet(kubelet) => node::answer(kubelet, parts, &path).await,
                backend => {
                    let proxied = exchange::ProxiedPath { prefix, path };
                    exchange::send(&backend, &proxied, parts, body, upgrade).await
                }
            },
        };
        answered.unwrap_or_else(|error| render_error(&error, &Accept::default()))
    }
}

/// Relative links need the trailing slash.
fn redirect(parts: &Parts) -> http::Response<Body> {
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", parts.uri.path());
    let mut response = http::Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(http::header::LOCATION, location);
    }
    response
}
