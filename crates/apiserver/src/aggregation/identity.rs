//! The headers by which a front proxy says whose request it forwards: `X-Remote-User` and its like
//! (`k8s.io/client-go/transport`, `k8s.io/apiserver/pkg/authentication/request/headerrequest`).
//! Pure.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};

use crate::rest::percent_decode;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Why a user cannot be named in headers.
#[derive(Debug, thiserror::Error)]
pub enum Unnameable {
    #[error("the user cannot be named in a header: {0}")]
    Value(#[from] InvalidHeaderValue),
    #[error("the user cannot be named in a header: {0}")]
    Name(#[from] InvalidHeaderName),
}

/// Says whose request it is, and removes what its client has said about that.
///
/// # Errors
/// When a name has characters that no header can have.
pub fn set(headers: &mut HeaderMap, user: &User) -> Result<(), Unnameable> {
    remove(headers);
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::from_bytes(format!("{EXTRA}{}", escaped(key)).as_bytes())?;
        for one in values {
            headers.append(name.clone(), value(one)?);
        }
    }
    Ok(())
}

/// Removes all headers that name a user.
pub fn remove(headers: &mut HeaderMap) {
    let ours = |name: &&HeaderName| {
        matches!(name.as_str(), USER | UID | GROUP) || name.as_str().starts_with(EXTRA)
    };
    let names: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn value(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_bytes(text.as_bytes())
}

/// A key as a part of a header's name.
fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    key.bytes().map(one).collect()
}

/// The names of the headers that a front proxy may send to this server, and of who may be one.
#[derive(Clone, Debug, Default)]
pub struct RequestHeaders {
    /// Common names of the proxies' certificates; none: any that the authority has signed.
    pub allowed_names: Vec<String>,
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl RequestHeaders {
    /// Whether a certificate of this name may speak for others.
    pub fn allows(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// The user that a proxy names; `None` if it names none.
    pub fn user(&self, headers: &HeaderMap) -> Option<Arc<User>> {
        let texts = |name: &str| {
            let values = headers.get_all(name).iter();
            let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            texts.filter(|text| !text.is_empty()).collect::<Vec<_>>()
        };
        let first = |names: &[String]| names.iter().find_map(|name| texts(name).into_iter().next());
        let mut user = User { name: first(&self.username)?, ..User::default() };
        user.uid = first(&self.uid).unwrap_or_default();
        user.groups = self.group.iter().flat_map(|name| texts(name)).collect();
        for prefix in &self.extra_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for name in headers.keys() {
                if let Some(key) = name.as_str().strip_prefix(&prefix) {
                    let key = percent_decode(key);
                    user.extra.entry(key).or_default().extend(texts(name.as_str()));
                }
            }
        }
        let known = [AUTHENTICATED, UNAUTHENTICATED];
        if user.name != ANONYMOUS && !user.groups.iter().any(|group| known.contains(&&**group)) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Some(Arc::new(user))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn usual() -> RequestHeaders {
        RequestHeaders {
            username: vec!["X-Remote-User".to_owned()],
            uid: vec!["X-Remote-Uid".to_owned()],
            group: vec!["X-Remote-Group".to_owned()],
            extra_prefixes: vec!["X-Remote-Extra-".to_owned()],
            ..RequestHeaders::default()
        }
    }

    #[test]
    fn what_a_client_says_about_itself_is_removed() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-uid", "x-remote-extra-a%2fb"] {
            headers.append(name, "admin".parse().unwrap());
            headers.append(name, "root".parse().unwrap());
        }
        headers.insert("x-remote", "kept".parse().unwrap());
        set(&mut headers, &User { name: "jane".to_owned(), ..User::default() }).unwrap();
        let left: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(
            (&headers[USER], &headers["x-remote"]),
            (&"jane".parse().unwrap(), &"kept".parse().unwrap())
        );
        let wrong = User { name: "a\nb".to_owned(), ..User::default() };
        assert!(set(&mut headers, &wrong).is_err());
    }

    #[test]
    fn whoever_is_named_is_authenticated_unless_anonymous() {
        let of = |name: &str, groups: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER, name.parse().unwrap());
            for group in groups {
                headers.append(GROUP, group.parse().unwrap());
            }
            usual().user(&headers).map(|user| user.groups.clone())
        };
        assert_eq!(of("jane", &["a"]).unwrap(), ["a", AUTHENTICATED]);
        assert_eq!(of("jane", &[AUTHENTICATED]).unwrap(), [AUTHENTICATED]);
        assert_eq!(of(ANONYMOUS, &[UNAUTHENTICATED]).unwrap(), [UNAUTHENTICATED]);
        assert_eq!(of("", &["a"]), None);
        assert_eq!(RequestHeaders::default().user(&HeaderMap::new()), None);
    }

    proptest! {
        /// What one server says, another understands.
        #[test]
        fn a_user_survives_the_headers(
            name in "[ -~]{1,20}[!-~]", uid in "[a-z0-9-]{0,9}",
            groups in proptest::collection::vec("[!-~]{1,12}", 0..4),
            extra in proptest::collection::btree_map("[a-z0-9/:%&=._-]{1,12}", proptest::collection::vec("[!-~]{1,9}", 1..3), 0..3),
        ) {
            let name = name.trim().to_owned();
            let mut user = User::authenticated(name, groups);
            user.uid = uid;
            user.extra = extra.into_iter().collect::<BTreeMap<_, _>>();
            let mut headers = HeaderMap::new();
            set(&mut headers, &user).unwrap();
            prop_assert_eq!(&*usual().user(&headers).unwrap(), &user);
        }
    }
}
