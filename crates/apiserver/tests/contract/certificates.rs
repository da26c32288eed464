//! Client certificates: one that is not valid is answered by 401 with the reason, whichever TLS
//! version and whatever is wrong with it. Only a client without the certificate's key fails in the
//! handshake.

use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    SigningKey,
};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Server;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut der = vec![tag];
    match content.len() {
        0..=0x7f => der.push(length[1]),
        0x80..=0xff => der.extend([0x81, length[1]]),
        _ => der.extend([0x82, length[0], length[1]]),
    }
    der.extend(content);
    der
}

/// The elements of a DER sequence's content, each whole.
fn elements(mut content: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !content.is_empty() {
        let (length, header) = match content[1] {
            0x81 => (usize::from(content[2]), 3),
            0x82 => (usize::from(content[2]) << 8 | usize::from(content[3]), 4),
            short => (usize::from(short), 2),
        };
        let (one, rest) = content.split_at(header + length);
        all.push(one);
        content = rest;
    }
    all
}

fn content(element: &[u8]) -> &[u8] {
    let header = match element[1] {
        0x81 => 3,
        0x82 => 4,
        _ => 2,
    };
    &element[header..]
}

/// The certificate as one of version 1: without version and extensions, signed anew.
fn version_one(der: &[u8], authority: &KeyPair) -> Vec<u8> {
    let whole = elements(content(der));
    let tbs = elements(content(whole[0]));
    let kept: Vec<u8> = tbs
        .iter()
        .filter(|part| !matches!(part[0], 0xa0 | 0xa3))
        .flat_map(|part| part.to_vec())
        .collect();
    let tbs = element(0x30, &kept);
    let mut bits = vec![0];
    bits.extend(authority.sign(&tbs).unwrap());
    element(0x30, &[tbs, whole[1].to_vec(), element(0x03, &bits)].concat())
}

/// Presents a certificate with a key, even if they do not belong together.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Code and body of a GET with a certificate; an error when the connection breaks.
async fn get(
    server: &Server,
    certificate: Vec<u8>,
    key: &KeyPair,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<(u16, Value)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem.as_bytes()).unwrap()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let presents = CertifiedKey::new(vec![CertificateDer::from(certificate)], key);
    let config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Presents(Arc::new(presents))));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The server may close without close_notify.
    if let Err(error) = stream.read_to_end(&mut answer).await
        && answer.is_empty()
    {
        return Err(error);
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok((code, serde_json::from_str(body).unwrap_or_default()))
}

/// Parameters of an administrator's certificate, valid now.
fn params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    params
}

fn without_name() -> CertificateParams {
    let mut params = params();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_certificate_is_answered() {
    let server = Server::start().await;
    let own = server.issuer();
    let mut other = CertificateParams::default();
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let same_name = Issuer::new(other.clone(), KeyPair::generate().unwrap());
    other.distinguished_name.push(DnType::CommonName, "another");
    let other = Issuer::new(other, KeyPair::generate().unwrap());
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params();
        change(&mut params);
        params
    };
    let expired = with(&|params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let early = with(&|params| params.not_before = rcgen::date_time_ymd(2080, 1, 1));
    let serving =
        with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let client =
        with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let critical = with(&|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 9], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    });
    // The second column: as version 1. The last one: the reason, empty for a valid certificate.
    let table: Vec<(&str, bool, CertificateParams, &Issuer<'static, KeyPair>, &str)> = vec![
        ("a good one", false, params(), own, ""),
        ("for clients", false, client, own, ""),
        ("version 1", true, params(), own, ""),
        ("expired", false, expired.clone(), own, "it has expired"),
        ("expired, version 1", true, expired, own, "it has expired"),
        ("early", false, early.clone(), own, "it is not valid yet"),
        ("early, version 1", true, early, own, "it is not valid yet"),
        ("another authority", false, params(), &other, "it is signed by an unknown authority"),
        ("another, version 1", true, params(), &other, "it is signed by an unknown authority"),
        ("an impostor", false, params(), &same_name, "it"),
        ("an impostor, version 1", true, params(), &same_name, "its signature does not match"),
        ("for servers", false, serving, own, "its extended key usage"),
        ("nameless", false, without_name(), own, "its subject has no common name"),
        ("nameless, version 1", true, without_name(), own, "its subject has no common name"),
        ("an unknown extension", false, critical, own, ""),
    ];
    let mut wrong = Vec::new();
    for (what, first, params, issuer, reason) in table {
        let key = KeyPair::generate().unwrap();
        let mut der = params.signed_by(&key, issuer).unwrap().der().to_vec();
        if first {
            der = version_one(&der, issuer.key());
        }
        for version in rustls::ALL_VERSIONS {
            let answer = get(&server, der.clone(), &key, version).await;
            let wanted = format!("Unauthorized: the client certificate is not valid: {reason}");
            let fits = match &answer {
                // Webpki's own words.
                Ok((401, body)) if what == "an unknown extension" => {
                    body["reason"] == "Unauthorized"
                }
                Ok((200, _)) => reason.is_empty(),
                Ok((401, body)) => {
                    !reason.is_empty()
                        && body["message"].as_str().unwrap_or_default().starts_with(&wanted)
                }
                _ => false,
            };
            if !fits {
                wrong.push(format!("{what}, {:?}: {answer:?}", version.version));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}

/// A certificate is public: who presents it must hold its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let server = Server::start().await;
    let issuer = server.issuer();
    let (key, stolen) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let three = params().signed_by(&key, issuer).unwrap().der().to_vec();
    let one = version_one(&three, issuer.key());
    for der in [three, one.clone()] {
        for version in rustls::ALL_VERSIONS {
            let (code, _) = get(&server, der.clone(), &key, version).await.unwrap();
            assert_eq!(code, 200, "{:?}", version.version);
            let answer = get(&server, der.clone(), &stolen, version).await;
            assert!(answer.is_err(), "{:?}: {answer:?}", version.version);
        }
    }
    // Nor is one that was changed after it was signed.
    let text = b"system:masters";
    let at = one.windows(text.len()).position(|window| window == text).unwrap();
    let mut forged = one;
    forged[at] = b'S';
    let (code, body) = get(&server, forged, &key, &rustls::version::TLS13).await.unwrap();
    assert_eq!(code, 401, "{body}");
    server.stop().await;
}
