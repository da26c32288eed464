//! Streaming subresources: log, exec, attach, port-forward, proxy.

use hyper::upgrade::OnUpgrade;

use crate::rest::Body;

/// An authorized stream, not yet opened.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    /// Serves the stream over HTTP.
    pub async fn serve(
        self,
        _parts: &http::request::Parts,
        _upgrade: OnUpgrade,
    ) -> http::Response<Body> {
        unreachable!("no connection is made yet")
    }
}
