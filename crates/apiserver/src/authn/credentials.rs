//! What a request presents: the same headers on both front ends.
//!
//! What is there but cannot be read is never the same as what is absent: the request would go on as
//! somebody else, the anonymous user or, for impersonation, the impersonator.

use api::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderValue};

use crate::rest::percent_decode;
use crate::user::{ClientCertificate, Credentials, Proof, User};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
/// WebSocket clients in browsers send the token as a subprotocol.
const PROTOCOLS: &str = "sec-websocket-protocol";
const PROTOCOL_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// The credentials in a request's headers, beside those of its connection in its extensions.
pub fn credentials(headers: &HeaderMap, extensions: &Extensions) -> Credentials {
    Credentials {
        certificate: extensions.get::<ClientCertificate>().cloned().unwrap_or_default(),
        bearer: bearer(headers),
        impersonate: impersonation(headers).transpose(),
        proof: extensions.get::<Proof>().cloned().unwrap_or_default(),
    }
}

/// The bearer token; an empty one, which nobody accepts, for a header without any.
fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(header) = headers.get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return Some(token.map_or(String::new(), |(_, token)| token.trim().to_owned()));
    }
    let protocols = headers.get_all(PROTOCOLS).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = protocols.flat_map(|value| value.split(','));
    let token = protocols.find_map(|item| item.trim().strip_prefix(PROTOCOL_TOKEN))?;
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    Some(decoded.and_then(|decoded| String::from_utf8(decoded).ok()).unwrap_or_default())
}

/// The user that the `Impersonate-*` headers name: 400 for those that cannot be read, or name no
/// user.
fn impersonation(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let mut user = User::default();
    for (name, value) in headers {
        let name = name.as_str();
        match name {
            USER => user.name = only(name, &user.name, value)?,
            UID => user.uid = only(name, &user.uid, value)?,
            GROUP => user.groups.push(visible(name, value)?),
            _ => {
                if let Some(key) = name.strip_prefix(EXTRA) {
                    let key = percent_decode(key).to_lowercase();
                    user.extra.entry(key).or_default().push(visible(name, value)?);
                }
            }
        }
    }
    if user.name.is_empty() {
        if user == User::default() {
            return Ok(None);
        }
        let wanted = in_go(&user);
        let problem = format!("requested {wanted} without impersonating a user name");
        return Err(ApiError::bad_request(problem));
    }
    Ok(Some(user))
}

/// A user without a name, as upstream prints it (Go's `%#v`).
fn in_go(user: &User) -> String {
    let list = |texts: &[String]| {
        let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
        format!("[]string{{{}}}", texts.join(", "))
    };
    let groups = Some(&user.groups).filter(|groups| !groups.is_empty());
    let groups = groups.map_or("[]string(nil)".to_owned(), |groups| list(groups));
    let extra: Vec<_> =
        user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
    let extra = Some(extra.join(", ")).filter(|extra| !extra.is_empty());
    let extra = extra.map_or("(nil)".to_owned(), |extra| format!("{{{extra}}}"));
    format!(
        "&user.DefaultInfo{{Name:\"\", UID:{:?}, Groups:{groups}, Extra:map[string][]string{extra}}}",
        user.uid
    )
}

/// The value of a header that may be there once: of two, one is not meant.
fn only(name: &str, before: &str, value: &HeaderValue) -> Result<String, ApiError> {
    if !before.is_empty() {
        return Err(ApiError::bad_request(format!("the header {name:?} is there twice")));
    }
    let text = visible(name, value)?;
    if text.is_empty() {
        return Err(ApiError::bad_request(format!("the header {name:?} is empty")));
    }
    Ok(text)
}

fn visible(name: &str, value: &HeaderValue) -> Result<String, ApiError> {
    let text = value.to_str().map(str::to_owned);
    text.map_err(|_| {
        ApiError::bad_request(format!(
            "the header {name:?} has other than visible ASCII characters"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &[u8])]) -> Credentials {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        credentials(&map, &Extensions::new())
    }

    fn impersonated(headers: &[(&'static str, &[u8])]) -> Result<User, ApiError> {
        of(headers).impersonate.unwrap()
    }

    #[test]
    fn a_header_that_cannot_be_read_is_not_absent() {
        let bob = ("impersonate-user", &b"bob"[..]);
        for name in [USER, UID, GROUP, "impersonate-extra-scopes"] {
            for value in [&b"b\xc3\xb6b"[..], b"\xff", b"a\tb\x80"] {
                let other = if name == USER { ("x", &b""[..]) } else { bob };
                let refused = impersonated(&[other, (name, value)]).unwrap_err();
                assert_eq!(refused.code(), 400, "{name} {value:?}");
            }
        }
        assert_eq!(impersonated(&[(USER, b"")]).unwrap_err().code(), 400);
        assert_eq!(impersonated(&[(USER, b"a"), (USER, b"b")]).unwrap_err().code(), 400);
        for (headers, shown) in [
            (
                &[(GROUP, &b"a"[..])][..],
                r#"UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)"#,
            ),
            (
                &[(UID, b"1"), ("impersonate-extra-k", b"v"), ("impersonate-extra-k", b"w")],
                r#"UID:"1", Groups:[]string(nil), Extra:map[string][]string{"k":[]string{"v", "w"}}"#,
            ),
        ] {
            let refused = impersonated(headers).unwrap_err();
            let expected = format!(
                r#"requested &user.DefaultInfo{{Name:"", {shown}}} without impersonating a user name"#
            );
            assert_eq!((refused.code(), refused.message()), (400, &*expected));
        }
        let read =
            impersonated(&[bob, (GROUP, b"a"), (GROUP, b"b"), ("impersonate-extra-a%2fb", b"c")]);
        let user = read.unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("bob", vec!["a".into(), "b".into()]));
        assert_eq!(user.extra["a/b"], ["c"]);
    }

    #[test]
    fn an_authorization_header_without_a_token_is_an_invalid_token() {
        let table: &[(&'static str, &[u8], Option<&str>)] = &[
            ("authorization", b"Bearer a.b.c", Some("a.b.c")),
            ("authorization", b"bearer  a.b.c ", Some("a.b.c")),
            ("authorization", b"Bearer", Some("")),
            ("authorization", b"Basic YTpi", Some("")),
            ("authorization", b"Bearer \xff", Some("")),
            ("authorization", b"", Some("")),
            (PROTOCOLS, b"v4.channel.k8s.io", None),
            (PROTOCOLS, b"base64url.bearer.authorization.k8s.io.YQ, x", Some("a")),
            (PROTOCOLS, b"x, base64url.bearer.authorization.k8s.io.!", Some("")),
            ("accept", b"x", None),
        ];
        for (name, value, token) in table {
            let found = of(&[(name, value)]).bearer;
            assert_eq!(found.as_deref(), *token, "{name} {:?}", String::from_utf8_lossy(value));
        }
    }
}
