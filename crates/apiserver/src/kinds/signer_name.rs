//! Names of signers: `example.com/signer`.

use api::names;

use super::at::At;

/// The length of a DNS subdomain.
const DOMAIN_CHARS_MAX: usize = 253;
/// A domain, a slash, a subdomain, a dot and a label.
const CHARS_MAX: usize = DOMAIN_CHARS_MAX + 1 + DOMAIN_CHARS_MAX + 1 + 63;

impl At<'_> {
    /// Checks the name of a signer as upstream's `ValidateSignerName`.
    pub fn signer_name(&self, name: &str) {
        if name.is_empty() {
            return self.required("");
        }
        let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/'))
        else {
            let problem =
                "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            return self.invalid(name, problem);
        };
        self.max_bytes(domain.len(), DOMAIN_CHARS_MAX);
        self.parts(domain, names::dns_label);
        if !domain.contains('.') {
            self.invalid(domain, "should be a domain with at least two segments separated by dots");
        }
        self.parts(rest, names::dns_subdomain);
        self.max_bytes(name.len(), CHARS_MAX);
    }

    /// The problems of the first part between dots that has any.
    fn parts(&self, whole: &str, problems: impl Fn(&str) -> Vec<String>) {
        let found = whole.split('.').map(|part| (part, problems(part)));
        for (part, problems) in found.filter(|(_, problems)| !problems.is_empty()).take(1) {
            for problem in problems {
                self.invalid(whole, format!("validating label {part:?}: {problem}"));
            }
        }
    }
}
