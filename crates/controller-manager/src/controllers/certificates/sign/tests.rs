use api::certificates::{
    APPROVED, CERTIFICATE_LABEL, DENIED, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER,
};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::UnixTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::authority::AuthorityError;
use super::super::tests::{asked, client_request, condition};
use super::*;

/// An authority in a directory, valid for years.
fn authority(folder: &std::path::Path, until: i32) -> AuthorityFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the authority");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let files = AuthorityFiles { certificate: folder.join("ca.crt"), key: folder.join("ca.key") };
    std::fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn settings(authority: AuthorityFiles) -> SigningSettings {
    let signers = [CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER];
    let signers = signers.map(|signer| (signer, authority.clone())).to_vec();
    SigningSettings { signers, life: Duration::from_secs(86_400) }
}

fn now() -> Timestamp {
    "2030-06-01T00:00:00Z".parse().unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    let block = api::pem::blocks(pem.as_bytes()).next().unwrap();
    assert_eq!(block.label, CERTIFICATE_LABEL);
    block.der
}

#[test]
fn only_approved_requests_for_own_signers_are_signed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(authority(folder.path(), 2040));
    let pem = client_request("someone", "people", &[]);
    let mut request = asked("someone", CLIENT_SIGNER, &pem);
    assert_eq!(plan(&request, &settings), Plan::Nothing);
    condition(&mut request, APPROVED, 0);
    assert!(matches!(plan(&request, &settings), Plan::Sign { .. }));
    for type_ in [DENIED, FAILED] {
        let mut refused = request.clone();
        condition(&mut refused, type_, 0);
        assert_eq!(plan(&refused, &settings), Plan::Nothing);
    }
    let mut signed = request.clone();
    signed.status.as_mut().unwrap().certificate = Some(ByteString(b"x".to_vec()));
    assert_eq!(plan(&signed, &settings), Plan::Nothing);
    request.spec.signer_name = "example.com/signer".to_owned();
    assert_eq!(plan(&request, &settings), Plan::Nothing);
}

#[test]
fn what_a_signer_does_not_sign_fails() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(authority(folder.path(), 2040));
    let fails = |signer: &str, pem: &str, usages: &[&str]| {
        let mut request = asked("someone", signer, pem);
        condition(&mut request, APPROVED, 0);
        request.spec.usages = Some(usages.iter().map(|usage| (*usage).to_owned()).collect());
        match plan(&request, &settings) {
            Plan::Fail(problem) => problem,
            other => panic!("{other:?}"),
        }
    };
    let pem = client_request("someone", "people", &[]);
    let client = ["client auth", "digital signature"];
    assert_eq!(
        fails(CLIENT_SIGNER, &pem, &["client auth", "server auth"]),
        "invalid usage for client certificate: server auth"
    );
    assert_eq!(
        fails(CLIENT_SIGNER, &pem, &["client auth", "cert sign"]),
        "invalid usage for client certificate: cert sign"
    );
    assert_eq!(
        fails(CLIENT_SIGNER, &pem, &["digital signature"]),
        "missing required usage for client certificate: client auth"
    );
    assert_eq!(
        fails(KUBELET_CLIENT_SIGNER, &pem, &client),
        "subject organization is not system:nodes"
    );
    let node = client_request("system:node:a", "system:nodes", &["a"]);
    assert_eq!(fails(KUBELET_CLIENT_SIGNER, &node, &client), "DNS subjectAltNames are not allowed");
    assert_eq!(
        fails(KUBELET_SERVING_SIGNER, &node, &client),
        "usages did not match [digital signature key encipherment server auth]"
    );
}

#[test]
fn a_life_has_bounds() {
    let day = Duration::from_secs(86_400);
    assert_eq!(life(None, day), day);
    assert_eq!(life(Some(3_600), day), Duration::from_secs(3_600));
    assert_eq!(life(Some(i32::MAX), day), day);
    assert_eq!(life(Some(-1), day), LIFE_MIN);
}

#[test]
fn certificates_are_valid_for_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let files = authority(folder.path(), 2040);
    let names = ["a.example.com", "10.0.0.1", "fd00::1"];
    let pem = client_request("system:node:a", "system:nodes", &names);
    let request = certificates::parse(pem.as_bytes()).unwrap();
    let usages = ["server auth", "digital signature", "key encipherment"].map(str::to_owned);
    let signed = files.load().unwrap().sign(&request, &usages, 9 * LIFE_MIN, now()).unwrap();
    let der = der(&signed);
    let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty() && !certificate.is_ca());
    assert_eq!(certificate.subject().as_raw(), request.subject);
    assert_eq!(certificate.tbs_certificate.subject_pki.raw, request.public_key);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
    assert!(!usage.value.key_cert_sign());
    // Short lives are not shortened.
    let validity = certificate.validity();
    assert_eq!(validity.not_before.timestamp(), now().as_second() - 300);
    assert_eq!(validity.not_after.timestamp(), now().as_second() + 5_400);
    // As those see it who connect.
    let anchor = std::fs::read_to_string(&files.certificate).unwrap();
    let anchor = self::der(&anchor);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(anchor.into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now().as_second() as u64));
    let leaf = der.clone().into();
    let verify = |name: &str| {
        use rustls::client::danger::ServerCertVerifier;
        let name = name.to_owned().try_into().unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], at).map(|_| ())
    };
    for name in names {
        verify(name).unwrap();
    }
    assert!(verify("b.example.com").is_err() && verify("10.0.0.2").is_err());
}

#[test]
fn every_kind_of_key_signs() {
    let folder = tempfile::tempdir().unwrap();
    let pem = client_request("someone", "people", &[]);
    let request = certificates::parse(pem.as_bytes()).unwrap();
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
    {
        let files = authority(folder.path(), 2040);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, own.pem()).unwrap();
        assert!(matches!(files.load(), Err(AuthorityError::Mismatch { .. })));
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let usages = ["client auth".to_owned()];
        let signed = files.load().unwrap().sign(&request, &usages, LIFE_MIN, now()).unwrap();
        let der = der(&signed);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let (_, own) = X509Certificate::from_der(own.der()).unwrap();
        certificate.verify_signature(Some(own.public_key())).unwrap();
    }
}

#[test]
fn nothing_outlives_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    let pem = client_request("someone", "people", &[]);
    let request = certificates::parse(pem.as_bytes()).unwrap();
    let usages = ["client auth".to_owned()];
    let life = Duration::from_secs(86_400 * 3_650);
    let files = authority(folder.path(), 2031);
    let der = der(&files.load().unwrap().sign(&request, &usages, life, now()).unwrap());
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let end: Timestamp = "2031-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(certificate.validity().not_after.timestamp(), end.as_second());
    let files = authority(folder.path(), 2030);
    let refused = files.load().unwrap().sign(&request, &usages, life, now());
    assert!(matches!(refused, Err(AuthorityError::Expired)));
}
