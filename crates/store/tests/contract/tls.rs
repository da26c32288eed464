//! Mutual TLS: which clients each server accepts.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use store::{
    ClientIdentity, Error, EtcdConfig, Store,
    embedded::{Embedded, EmbeddedConfig},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::backend::Etcd;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for the loopback address, with its key, in PEM.
fn issued(authority: &Authority) -> (String, String) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn identity(authority: &Authority) -> ClientIdentity {
    let (certificate, key) = issued(authority);
    ClientIdentity { certificate_pem: certificate.into_bytes(), key_pem: key.into_bytes() }
}

/// Tries valid, invalid and unusable credentials with a server whose certificate authority this is.
async fn accepts_only_valid_credentials(url: &str, authority: &Authority) {
    let right = EtcdConfig {
        endpoints: vec![url.to_owned()],
        ca_pem: Some(authority.pem().into_bytes()),
        identity: Some(identity(authority)),
    };
    let store = Store::connect(&right).await.unwrap();
    assert_eq!(store.current_revision().await.unwrap().get(), 1);

    let other = self::authority();
    for wrong in [
        EtcdConfig { identity: None, ..right.clone() },
        EtcdConfig { identity: Some(identity(&other)), ..right.clone() },
        EtcdConfig { ca_pem: Some(other.pem().into_bytes()), ..right.clone() },
    ] {
        let store = Store::connect(&wrong).await.unwrap();
        let answer = store.current_revision().await;
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    }
    for unusable in [
        EtcdConfig::default(),
        EtcdConfig::plain(["127.0.0.1:1"]),
        EtcdConfig { endpoints: vec!["http://127.0.0.1:1".to_owned()], ..right.clone() },
        EtcdConfig { ca_pem: Some(b"no certificate".to_vec()), ..right },
    ] {
        let refused = Store::connect(&unusable).await.err();
        assert!(matches!(refused, Some(Error::Configuration { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn etcd() {
    let authority = authority();
    let files = TempDir::with_prefix("skiff-store-tls-").unwrap();
    let (certificate, key) = issued(&authority);
    let write = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let etcd = Etcd::start_with(
        "https",
        &[
            format!("--cert-file={}", write("server.crt", &certificate)),
            format!("--key-file={}", write("server.key", &key)),
            format!("--trusted-ca-file={}", write("ca.crt", &authority.pem())),
            "--client-cert-auth".to_owned(),
        ],
    );
    accepts_only_valid_credentials(&etcd.url, &authority).await;
}

#[tokio::test]
async fn embedded() {
    let authority = authority();
    let (certificate, key) = issued(&authority);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    let directory = TempDir::with_prefix("skiff-store-tls-").unwrap();
    let server = Embedded::open(EmbeddedConfig::new(directory.path())).await.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let serving = server.clone();
    tokio::spawn(
        async move { serving.serve_tcp(listener, Some(tls), std::future::pending()).await },
    );
    accepts_only_valid_credentials(&url, &authority).await;
    server.stop().await.unwrap();
}
