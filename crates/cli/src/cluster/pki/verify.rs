//! Decides whether an existing certificate meets its specification.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;

use crate::cluster::files;
use crate::cluster::pki::Certificate;

/// Whether the pair on disk exists, does not expire soon, belongs together, was signed by this
/// authority, and has the wanted subject and names. A file that cannot be parsed is not valid.
///
/// # Errors
/// When a file exists and cannot be read.
pub fn is_valid(
    folder: &Path,
    wanted: &Certificate,
    authority: &str,
    now: SystemTime,
    remaining: Duration,
) -> anyhow::Result<bool> {
    let Some(pem) = files::read_if_there(&folder.join(format!("{}.crt", wanted.path)))? else {
        return Ok(false);
    };
    let Some(key) = files::read_if_there(&folder.join(format!("{}.key", wanted.path)))? else {
        return Ok(false);
    };
    Ok(lasts(&pem, now, remaining) && matches(&pem, &key, wanted, authority).unwrap_or(false))
}

/// Whether a PEM certificate parses and is valid from `now` for `remaining` longer.
pub fn lasts(pem: &str, now: SystemTime, remaining: Duration) -> bool {
    let Ok(seconds) = now.duration_since(UNIX_EPOCH).map(|age| age.as_secs() as i64) else {
        return false;
    };
    with(pem, |certificate| {
        let validity = certificate.validity();
        Some(
            validity.not_before.timestamp() <= seconds
                && seconds + remaining.as_secs() as i64 <= validity.not_after.timestamp(),
        )
    })
    .unwrap_or(false)
}

fn matches(pem: &str, key: &str, wanted: &Certificate, authority: &str) -> Option<bool> {
    let authority_key = with(authority, |certificate| Some(key_identifier(certificate)?.to_vec()))?;
    let public_key = rcgen::KeyPair::from_pem(key).ok()?.public_key_raw().to_vec();
    with(pem, |certificate| {
        let first = |mut values: Vec<String>| {
            if values.is_empty() { None } else { Some(values.remove(0)) }
        };
        let subject = certificate.subject();
        let common_name = first(texts(subject.iter_common_name()));
        let organization = first(texts(subject.iter_organization()));
        let wanted_names: BTreeSet<String> = wanted.names.iter().cloned().collect();
        Some(
            common_name.as_deref() == Some(wanted.common_name.as_str())
                && organization == wanted.organization
                && names(certificate) == wanted_names
                && issuer_key_identifier(certificate)? == authority_key.as_slice()
                && certificate.public_key().subject_public_key.data.as_ref() == public_key,
        )
    })
}

fn with<T>(pem: &str, f: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    f(&pem.parse_x509().ok()?)
}

fn texts<'a>(
    values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Vec<String> {
    values.filter_map(|value| value.as_str().ok().map(str::to_owned)).collect()
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

fn key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
        _ => None,
    })
}

fn issuer_key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => {
            identifier.key_identifier.as_ref().map(|key| key.0)
        }
        _ => None,
    })
}
