//! Requests for the tests of the controllers.

use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;
use crate::machinery::testing::at;

/// A request in PEM: a common name, an organization, and alternative names.
pub fn client_request(name: &str, group: &str, hosts: &[&str]) -> String {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

/// A request of a user for a client certificate.
pub fn asked(user: &str, signer: &str, pem: &str) -> CertificateSigningRequest {
    let mut request = CertificateSigningRequest::default();
    request.metadata.name = Some("r".to_owned());
    request.spec.username = Some(user.to_owned());
    request.spec.signer_name = signer.to_owned();
    request.spec.request = ByteString(pem.as_bytes().to_vec());
    request.spec.usages = Some(vec!["client auth".into(), "digital signature".into()]);
    request
}

/// Adds a condition as of a second.
pub fn condition(request: &mut CertificateSigningRequest, type_: &str, second: i64) {
    add_condition(request, type_, "Test", String::new(), at(second));
}
