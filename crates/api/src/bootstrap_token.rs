//! Bootstrap tokens: Secrets of `kube-system` that new nodes authenticate with
//! (`k8s.io/cluster-bootstrap/token`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
pub const NAMESPACE: &str = "kube-system";
/// What the name of a token's Secret starts with; its id follows.
pub const NAME_PREFIX: &str = "bootstrap-token-";
/// The group of everybody with a bootstrap token.
pub const GROUP: &str = "system:bootstrappers";
const USER_PREFIX: &str = "system:bootstrap:";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
/// Of a group, what may follow `system:bootstrappers:`, without its last character.
const GROUP_CHARS_MAX: usize = 255;

pub const FOR_AUTHENTICATION: &str = "usage-bootstrap-authentication";
pub const FOR_SIGNING: &str = "usage-bootstrap-signing";
const TOKEN_ID: &str = "token-id";
const TOKEN_SECRET: &str = "token-secret";
const EXPIRATION: &str = "expiration";
const EXTRA_GROUPS: &str = "auth-extra-groups";

/// Id and secret of a token, `abcdef.0123456789abcdef`; `None` if it is none.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    (is_of(id, ID_CHARS) && is_of(secret, SECRET_CHARS)).then_some((id, secret))
}

fn is_of(text: &str, length: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() == length && text.bytes().all(allowed)
}

/// The key of a token's Secret within its resource.
pub fn key(id: &str) -> String {
    format!("{NAMESPACE}/{NAME_PREFIX}{id}")
}

fn field<'a>(secret: &'a Secret, name: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(name));
    value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default()
}

/// When a token expires: `None` for never; one that cannot be read has expired.
pub fn expires_at(secret: &Secret) -> Option<Timestamp> {
    match field(secret, EXPIRATION) {
        "" => None,
        text => Some(text.parse().unwrap_or(Timestamp::MIN)),
    }
}

/// Id and secret of a Secret that is a token for a usage now.
pub fn usable<'a>(secret: &'a Secret, usage: &str, now: Timestamp) -> Option<(&'a str, &'a str)> {
    let (id, value) = (field(secret, TOKEN_ID), field(secret, TOKEN_SECRET));
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let valid = secret.type_.as_deref() == Some(SECRET_TYPE)
        && secret.metadata.deletion_timestamp.is_none()
        && name.strip_prefix(NAME_PREFIX) == Some(id)
        && !id.is_empty()
        && !value.is_empty()
        && field(secret, usage) == "true"
        && expires_at(secret).is_none_or(|at| now < at);
    valid.then_some((id, value))
}

/// The name of a token's user.
pub fn user_name(id: &str) -> String {
    format!("{USER_PREFIX}{id}")
}

/// The groups of a token's user; `None` when the Secret names one that it may not.
pub fn groups(secret: &Secret) -> Option<Vec<String>> {
    let extra = field(secret, EXTRA_GROUPS).split(',').filter(|group| !group.is_empty());
    let mut groups: Vec<String> = extra.map(str::to_owned).collect();
    if !groups.iter().all(|group| is_group(group)) {
        return None;
    }
    groups.push(GROUP.to_owned());
    groups.sort();
    groups.dedup();
    Some(groups)
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn is_group(group: &str) -> bool {
    let rest = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':'));
    let Some((last, rest)) = rest.and_then(|rest| rest.as_bytes().split_last()) else {
        return false;
    };
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let allowed = |byte: &u8| plain(byte) || b":-".contains(byte);
    plain(last) && rest.len() <= GROUP_CHARS_MAX && rest.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(fields: &[(&str, &str)]) -> Secret {
        let mut secret = Secret { type_: Some(SECRET_TYPE.to_owned()), ..Secret::default() };
        secret.metadata.name = Some("bootstrap-token-abcdef".to_owned());
        let all = [(TOKEN_ID, "abcdef"), (TOKEN_SECRET, "0123456789abcdef"), (FOR_SIGNING, "true")];
        let data = all
            .iter()
            .chain(fields)
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        secret
    }

    #[test]
    fn tokens_have_an_id_and_a_secret() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in [
            "",
            "abcdef",
            "abcdef.",
            "abcde.0123456789abcdef",
            "Abcdef.0123456789abcdef",
            "abcdef.0123456789abcdef.x",
            "a/cdef.0123456789abcdef",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_usable_until_it_expires_and_for_its_usages() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let usable = |secret: &Secret| super::usable(secret, FOR_SIGNING, now).is_some();
        assert!(usable(&secret(&[])));
        assert!(usable(&secret(&[(EXPIRATION, "2030-01-01T00:00:01Z")])));
        for (key, value) in [
            (EXPIRATION, "2030-01-01T00:00:00Z"),
            (EXPIRATION, "soon"),
            (FOR_SIGNING, "yes"),
            (TOKEN_ID, "other1"),
            (TOKEN_SECRET, ""),
        ] {
            assert!(!usable(&secret(&[(key, value)])), "{key} {value}");
        }
        assert!(super::usable(&secret(&[]), FOR_AUTHENTICATION, now).is_none());
        let other = Secret { type_: Some("Opaque".to_owned()), ..secret(&[]) };
        assert!(!usable(&other));
    }

    #[test]
    fn a_token_is_in_groups_of_bootstrappers_only() {
        let of = |text: &str| groups(&secret(&[(EXTRA_GROUPS, text)]));
        assert_eq!(of("").unwrap(), [GROUP]);
        assert_eq!(
            of("system:bootstrappers:a:b-c").unwrap(),
            [GROUP, "system:bootstrappers:a:b-c"]
        );
        for wrong in [
            "system:masters",
            "system:bootstrappers:",
            "system:bootstrappers:a:",
            "system:bootstrappers:a,system:nodes",
            "system:bootstrappersx:a",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
