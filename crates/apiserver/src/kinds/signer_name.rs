//! Names of signers: `example.com/signer`.

use api::names;
use api::status::FieldError;

use super::check::Errors;
use super::path::Path;

/// The length of a DNS subdomain.
const DOMAIN_CHARS_MAX: usize = 253;
/// A domain, a slash, a subdomain, a dot and a label.
const CHARS_MAX: usize = DOMAIN_CHARS_MAX + 1 + DOMAIN_CHARS_MAX + 1 + 63;

/// Checks a name as upstream's `ValidateSignerName`.
pub fn check(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let problem =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, problem));
        return;
    };
    if domain.len() > DOMAIN_CHARS_MAX {
        errors.push(FieldError::too_long(path, DOMAIN_CHARS_MAX));
    }
    parts(domain, names::dns_label, path, errors);
    if !domain.contains('.') {
        let problem = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, problem));
    }
    parts(rest, names::dns_subdomain, path, errors);
    if name.len() > CHARS_MAX {
        errors.push(FieldError::too_long(path, CHARS_MAX));
    }
}

/// The problems of the first part between dots that has any.
fn parts(whole: &str, problems: impl Fn(&str) -> Vec<String>, path: &Path, errors: &mut Errors) {
    let found = whole.split('.').map(|part| (part, problems(part)));
    for (part, problems) in found.filter(|(_, problems)| !problems.is_empty()).take(1) {
        errors.extend(problems.into_iter().map(|problem| {
            FieldError::invalid(path, whole, format!("validating label {part:?}: {problem}"))
        }));
    }
}
