//! Hop-by-hop headers, and the headers that a proxy adds. Pure.

use std::net::IpAddr;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request;

use super::links::Links;

/// Hop-by-hop headers (RFC 9110, 7.6.1), besides those that `Connection` names.
const HOP: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// CORS headers: a backend does not decide which sites may use the apiserver.
const CROSS_ORIGIN: [&str; 5] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-expose-headers",
];
/// Prefix of the WebSocket protocol that carries a browser's token.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The headers to send to the server, whose pages are rewritten. `upgrade` keeps the request for
/// another protocol.
pub fn request(
    parts: &request::Parts,
    prefix: &str,
    peer: Option<IpAddr>,
    upgrade: bool,
) -> HeaderMap {
    let mut headers = forwarded(parts, prefix, peer, upgrade);
    // Links in compressed pages could not be rewritten. What pages load may be compressed.
    let accepts = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        headers.remove(ACCEPT_ENCODING);
    }
    headers
}

/// The headers of a forwarded request: without hop-by-hop headers and the client's credentials,
/// which are for the apiserver alone.
pub fn forwarded(
    parts: &request::Parts,
    path: &str,
    peer: Option<IpAddr>,
    upgrade: bool,
) -> HeaderMap {
    let mut headers = parts.headers.clone();
    let wish = headers.get(UPGRADE).cloned();
    remove_hop(&mut headers);
    headers.remove(AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    remove_token_protocol(&mut headers);
    if let Some(wish) = wish.filter(|_| upgrade) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, wish);
    }
    // HTTP/2 has the host in its URI.
    if !headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = authority.as_str().parse()
    {
        headers.insert(HOST, host);
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("x-forwarded-proto", "https");
    set("x-forwarded-uri", path);
    if let Some(host) = parts.headers.get(HOST).and_then(|host| host.to_str().ok()) {
        set("x-forwarded-host", host);
    }
    if let Some(peer) = peer {
        let before = parts.headers.get("x-forwarded-for");
        let before = before.and_then(|value| value.to_str().ok());
        let whole = before.map_or(peer.to_string(), |before| format!("{before}, {peer}"));
        set("x-forwarded-for", &whole);
    }
    headers
}

/// Removes what a server says to this one alone.
pub fn answered(headers: &mut HeaderMap) {
    remove_hop(headers);
    for name in CROSS_ORIGIN {
        headers.remove(name);
    }
}

/// Turns the server's headers into the client's.
pub fn response(headers: &mut HeaderMap, links: &Links) {
    answered(headers);
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(rewritten) = location.and_then(|location| links.rewrite(location))
        && let Ok(value) = HeaderValue::from_str(&rewritten)
    {
        headers.insert(LOCATION, value);
    }
}

/// Whether a body is HTML whose links can be rewritten, which changes its length.
pub fn take_html(headers: &mut HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let html = content_type.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("text/html")
    });
    let readable = html && !headers.contains_key(CONTENT_ENCODING);
    if readable {
        headers.remove(CONTENT_LENGTH);
    }
    readable
}

fn remove_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

fn remove_token_protocol(headers: &mut HeaderMap) {
    let Some(text) = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.contains(TOKEN_PROTOCOL))
    else {
        return;
    };
    let rest: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL))
        .collect();
    match HeaderValue::from_str(&rest.join(", ")) {
        Ok(value) if !value.is_empty() => {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        _ => {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get("/api/v1/x/proxy/a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn credentials_and_hop_headers_stay_here() {
        let parts = parts(&[
            ("host", "apiserver:6443"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "jane"),
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("accept", "text/plain"),
            ("x-forwarded-for", "192.0.2.1"),
            ("sec-websocket-protocol", "chat, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
        ]);
        let peer = Some("192.0.2.9".parse().unwrap());
        let sent = request(&parts, "/p", peer, false);
        let get = |name: &str| sent.get(name).map(|value| value.to_str().unwrap());
        for gone in ["authorization", "impersonate-user", "connection", "x-mine", "te"] {
            assert_eq!(get(gone), None, "{gone}");
        }
        assert_eq!(get("accept"), Some("text/plain"));
        assert_eq!(get("sec-websocket-protocol"), Some("chat"));
        assert_eq!(get("x-forwarded-for"), Some("192.0.2.1, 192.0.2.9"));
        assert_eq!(get("x-forwarded-host"), Some("apiserver:6443"));
    }

    #[test]
    fn an_upgrade_is_asked_for_only_when_wanted() {
        let parts = parts(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(request(&parts, "/p", None, false).get("upgrade").is_none());
        let sent = request(&parts, "/p", None, true);
        assert_eq!(sent["upgrade"], "websocket");
        assert_eq!(sent["connection"], "Upgrade");
    }
}
