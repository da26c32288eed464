//! What a kubelet asks for, and what the signers of kubelets' certificates refuse.

use super::{
    CLIENT_AUTH, DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KUBELET_CLIENT_SIGNER,
    KUBELET_SERVING_SIGNER, Request, SERVER_AUTH,
};

/// The group of nodes.
const NODES: &str = "system:nodes";
/// What the name of a kubelet's user starts with.
pub const USER_PREFIX: &str = "system:node:";

/// Why a request is not one of a kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node: ")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NameRequired,
    #[error("DNS subjectAltNames are not allowed")]
    DnsName,
    #[error("Email subjectAltNames are not allowed")]
    EmailAddress,
    #[error("IP subjectAltNames are not allowed")]
    IpAddress,
    #[error("URI subjectAltNames are not allowed")]
    Uri,
    #[error("usages did not match [client auth digital signature key encipherment]")]
    ClientUsages,
    #[error("usages did not match [digital signature key encipherment server auth]")]
    ServingUsages,
}

/// Checks a request for a kubelet's client certificate.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_client(request: &Request, usages: &[String]) -> Result<(), Mismatch> {
    first([
        (request.organizations != [NODES], Mismatch::Organization),
        (!request.dns_names.is_empty(), Mismatch::DnsName),
        (!request.email_addresses.is_empty(), Mismatch::EmailAddress),
        (!request.ip_addresses.is_empty(), Mismatch::IpAddress),
        (!request.uris.is_empty(), Mismatch::Uri),
        (!request.common_name.starts_with(USER_PREFIX), Mismatch::CommonName),
        (!are_for(CLIENT_AUTH, usages), Mismatch::ClientUsages),
    ])
}

/// Checks a request for a kubelet's serving certificate.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_serving(request: &Request, usages: &[String]) -> Result<(), Mismatch> {
    let nameless = request.dns_names.is_empty() && request.ip_addresses.is_empty();
    first([
        (request.organizations != [NODES], Mismatch::Organization),
        (nameless, Mismatch::NameRequired),
        (!request.email_addresses.is_empty(), Mismatch::EmailAddress),
        (!request.uris.is_empty(), Mismatch::Uri),
        (!are_for(SERVER_AUTH, usages), Mismatch::ServingUsages),
        (!request.common_name.starts_with(USER_PREFIX), Mismatch::CommonName),
    ])
}

/// Checks a request by the rules of a kubelet's signer; others have none here.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(signer: &str, request: &Request, usages: &[String]) -> Result<(), Mismatch> {
    match signer {
        KUBELET_CLIENT_SIGNER => check_client(request, usages),
        KUBELET_SERVING_SIGNER => check_serving(request, usages),
        _ => Ok(()),
    }
}

fn first<const N: usize>(checks: [(bool, Mismatch); N]) -> Result<(), Mismatch> {
    let found = checks.into_iter().find(|(wrong, _)| *wrong);
    found.map_or(Ok(()), |(_, mismatch)| Err(mismatch))
}

/// Whether the usages are those of a TLS client or server. Key encipherment is for RSA keys only.
fn are_for(purpose: &str, usages: &[String]) -> bool {
    let has = |name: &str| usages.iter().any(|usage| usage == name);
    let known = [DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, purpose];
    has(purpose)
        && has(DIGITAL_SIGNATURE)
        && usages.iter().all(|usage| known.contains(&usage.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn request(change: impl Fn(&mut Request)) -> Request {
        let mut request = Request {
            common_name: "system:node:a".to_owned(),
            organizations: vec![NODES.to_owned()],
            ..Request::default()
        };
        change(&mut request);
        request
    }

    #[test]
    fn client_certificates_name_a_node_and_nothing_else() {
        let client = usages(&[CLIENT_AUTH, DIGITAL_SIGNATURE]);
        let of = |change: &dyn Fn(&mut Request)| check_client(&request(change), &client);
        assert_eq!(of(&|_| {}), Ok(()));
        assert_eq!(of(&|it| it.organizations.clear()), Err(Mismatch::Organization));
        assert_eq!(
            of(&|it| it.organizations.push("system:masters".to_owned())),
            Err(Mismatch::Organization)
        );
        assert_eq!(of(&|it| it.common_name = "admin".to_owned()), Err(Mismatch::CommonName));
        assert_eq!(of(&|it| it.dns_names.push("a".to_owned())), Err(Mismatch::DnsName));
        assert_eq!(of(&|it| it.ip_addresses.push([1, 2, 3, 4].into())), Err(Mismatch::IpAddress));
        assert_eq!(of(&|it| it.uris.push("a:b".to_owned())), Err(Mismatch::Uri));
        let node = request(|_| {});
        for wrong in [
            usages(&[CLIENT_AUTH]),
            usages(&[DIGITAL_SIGNATURE]),
            usages(&[CLIENT_AUTH, DIGITAL_SIGNATURE, SERVER_AUTH]),
            usages(&[CLIENT_AUTH, DIGITAL_SIGNATURE, "cert sign"]),
        ] {
            assert_eq!(check_client(&node, &wrong), Err(Mismatch::ClientUsages), "{wrong:?}");
        }
    }

    #[test]
    fn serving_certificates_have_a_name() {
        let serving = usages(&[SERVER_AUTH, KEY_ENCIPHERMENT, DIGITAL_SIGNATURE]);
        let of = |change: &dyn Fn(&mut Request)| check_serving(&request(change), &serving);
        assert_eq!(of(&|_| {}), Err(Mismatch::NameRequired));
        assert_eq!(of(&|it| it.ip_addresses.push([1, 2, 3, 4].into())), Ok(()));
        let named = request(|it| it.dns_names.push("a".to_owned()));
        assert_eq!(check_serving(&named, &serving), Ok(()));
        let client = usages(&[CLIENT_AUTH, DIGITAL_SIGNATURE]);
        assert_eq!(check_serving(&named, &client), Err(Mismatch::ServingUsages));
    }
}
