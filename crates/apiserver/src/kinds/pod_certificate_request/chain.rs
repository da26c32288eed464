//! The certificates that a signer has issued to a pod: the first is the pod's, for the key that was
//! asked for, and the times of the status are its own.

use std::time::Duration;

use api::certificates::pod::MIN_SECONDS;
use api::certificates::{self, CERTIFICATE_LABEL};
use api::pem;
use api::status::FieldError;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

type Errors = Vec<FieldError>;

const CHAIN_BYTES_MAX: usize = 100 << 10;
const CHAIN: &str = "status.certificateChain";
const NOT_BEFORE: &str = "status.notBefore";
const NOT_AFTER: &str = "status.notAfter";
const REFRESH: &str = "status.beginRefreshAt";
/// How far the start of a certificate may be from now.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How far from both ends of a certificate's life its renewal begins.
const REFRESH_MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// Checks what is issued.
///
/// # Errors
/// What is wrong with it.
pub fn issued(
    new: &PodCertificateRequest,
    old: &PodCertificateRequest,
    now: Timestamp,
) -> Result<(), Errors> {
    let status = new.status.clone().unwrap_or_default();
    let text = status.certificate_chain.as_deref().unwrap_or_default();
    let invalid = |problem: &str| vec![FieldError::invalid(CHAIN, text, problem)];
    if text.len() > CHAIN_BYTES_MAX {
        return Err(vec![FieldError::too_long(CHAIN, CHAIN_BYTES_MAX)]);
    }
    let mut blocks = pem::blocks(text.as_bytes());
    let leaf = blocks
        .next()
        .ok_or_else(|| invalid("issued certificate chain must contain at least one certificate"))?;
    let all_certificates =
        "issued certificate chain must consist entirely of CERTIFICATE PEM blocks";
    if leaf.label != CERTIFICATE_LABEL {
        return Err(invalid(all_certificates));
    }
    let leaf = certificate(&leaf.der)
        .ok_or_else(|| invalid("leaf certificate does not parse as valid X.509"))?;
    let mut errors = names(&leaf);
    let wanted = certificates::parse_der(&old.spec.stub_pkc_s10_request.0);
    if wanted.is_ok_and(|wanted| wanted.public_key != leaf.public_key().raw) {
        errors.extend(invalid("leaf certificate was not issued to the requested public key"));
        return Err(errors);
    }
    errors.extend(times(&status, &leaf, new.spec.max_expiration_seconds.unwrap_or_default(), now));
    if !errors.is_empty() {
        return Err(errors);
    }
    for block in blocks {
        if block.label != CERTIFICATE_LABEL {
            return Err(invalid(all_certificates));
        }
        if certificate(&block.der).is_none() {
            return Err(invalid("intermediate certificate does not parse as valid X.509"));
        }
    }
    Ok(())
}

fn certificate(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|it| it.1)
}

/// What is wrong with the names that the certificate is for.
fn names(leaf: &X509Certificate<'_>) -> Errors {
    let names =
        leaf.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
    let mut errors = Errors::new();
    let mut refuse = |name: &str, wrong: bool, problem: &str| {
        if wrong {
            errors.push(FieldError::invalid(CHAIN, name, problem));
        }
    };
    for name in names.flatten() {
        match name {
            GeneralName::DNSName(name) => {
                let dots = name.starts_with('.') || name.ends_with('.');
                for (wrong, problem) in [
                    (name.is_empty(), "leaf certificate should not contain empty DNSName"),
                    (name.contains(".."), "leaf certificate's DNSName should not contain '..'"),
                    (dots, "leaf certificate's DNSName should not start or end with '.'"),
                ] {
                    refuse(name, wrong, problem);
                }
            }
            GeneralName::RFC822Name(name) => {
                let problem = "leaf certificate should not contain invalid EmailAddress";
                refuse(name, !is_mail_address(name), problem);
            }
            _ => {}
        }
    }
    errors
}

/// `local@domain`, both of atoms between dots (RFC 5322 without quotes and comments).
fn is_mail_address(text: &str) -> bool {
    let atom = |part: &str| {
        let allowed = |char: char| {
            char.is_ascii_alphanumeric() || !char.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(char)
        };
        !part.is_empty() && part.chars().all(allowed)
    };
    text.split_once('@')
        .is_some_and(|(local, domain)| local.split('.').all(atom) && domain.split('.').all(atom))
}

/// The times of the status against those of the certificate, and both against the limits.
fn times(
    status: &PodCertificateRequestStatus,
    leaf: &X509Certificate<'_>,
    max_seconds: i32,
    now: Timestamp,
) -> Errors {
    let consistent = "must be present and consistent with the issued certificate";
    let mut missing = Errors::new();
    for (field, time, problem) in [
        (NOT_BEFORE, &status.not_before, consistent),
        (NOT_AFTER, &status.not_after, consistent),
        (
            REFRESH,
            &status.begin_refresh_at,
            "must be present and in the range [notbefore+10min, notafter-10min]",
        ),
    ] {
        if time.is_none() {
            missing.push(FieldError::required(field, problem));
        }
    }
    let (Some(Time(not_before)), Some(Time(not_after)), Some(Time(refresh))) =
        (&status.not_before, &status.not_after, &status.begin_refresh_at)
    else {
        return missing;
    };
    let time = |field: &str, time: &Timestamp, problem: &str| {
        // As Go prints a time.
        let shown = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
        vec![FieldError { value: shown, ..FieldError::invalid(field, "", problem) }]
    };
    let is = |time: &Timestamp, of: &ASN1Time| {
        time.subsec_nanosecond() == 0 && time.as_second() == of.timestamp()
    };
    let validity = leaf.validity();
    if !is(not_before, &validity.not_before) {
        let problem = "must be set to the NotBefore time encoded in the leaf certificate";
        return time(NOT_BEFORE, not_before, problem);
    }
    if not_before.duration_since(now).abs() >= SKEW {
        let problem = "must be set to within 5 minutes of kube-apiserver's current time";
        return time(NOT_BEFORE, not_before, problem);
    }
    if !is(not_after, &validity.not_after) {
        let problem = "must be set to the NotAfter time encoded in the leaf certificate";
        return time(NOT_AFTER, not_after, problem);
    }
    let life = not_after.duration_since(*not_before).as_secs();
    let lifetime = |problem: String| {
        let sign = if life < 0 { "-" } else { "" };
        let shown = api::duration::go(Duration::from_secs(life.unsigned_abs()));
        let shown = format!("{sign}{shown}");
        vec![FieldError { value: shown, ..FieldError::invalid(CHAIN, "", problem) }]
    };
    if life < i64::from(MIN_SECONDS) {
        return lifetime("leaf certificate lifetime must be >= 1 hour".to_owned());
    }
    if life > i64::from(max_seconds) {
        return lifetime(format!(
            "leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max_seconds})"
        ));
    }
    if refresh.duration_since(*not_before) < REFRESH_MARGIN {
        return time(REFRESH, refresh, "must be at least 10 minutes after status.notBefore");
    }
    if not_after.duration_since(*refresh) < REFRESH_MARGIN {
        return time(REFRESH, refresh, "must be at least 10 minutes before status.notAfter");
    }
    Errors::new()
}

#[cfg(test)]
mod tests {
    use super::is_mail_address;

    #[test]
    fn mail_addresses() {
        for (text, expected) in [
            ("a@b", true),
            ("a.b+c@d.example", true),
            ("é@b", true),
            ("", false),
            ("a", false),
            ("a@", false),
            ("@b", false),
            ("a@@b", false),
            ("a b@c", false),
            ("a..b@c", false),
            ("a@b.", false),
        ] {
            assert_eq!(is_mail_address(text), expected, "{text:?}");
        }
    }
}
