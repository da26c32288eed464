//! Certificates and authorities are replaced while the server runs, without an outage.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rpc::api_v1::resources_client::ResourcesClient;
use rpc::live::Dials;
use rpc::tls::Dial;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::server::Server;

/// How long the server may take to see new files.
const PATIENCE: Duration = Duration::from_secs(10);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the next authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str, group: &str) -> rpc::tls::KeyPair {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().unwrap();
        rpc::tls::KeyPair {
            certificate_pem: params.signed_by(&key, &self.issuer).unwrap().pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        }
    }
}

fn client(dials: Dials) -> ResourcesClient<Channel> {
    ResourcesClient::new(rpc::live::channel(dials, true).unwrap())
}

async fn ask(client: &mut ResourcesClient<Channel>) -> Result<(), Status> {
    let list = rpc::api_v1::ListRequest {
        target: Some(rpc::api_v1::Target {
            version: "v1".to_owned(),
            resource: "namespaces".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut pages = client.list(list).await?.into_inner();
    while pages.message().await?.is_some() {}
    Ok(())
}

/// Asks through new connections until the answer is as expected.
async fn eventually(dial: &Dial, expected: impl Fn(&Result<(), Status>) -> bool) {
    let asked = async {
        loop {
            let answer = ask(&mut client(rpc::live::fixed(dial.clone()))).await;
            if expected(&answer) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the new files are in force");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_rotated_without_an_outage() {
    let server = Server::start().await;
    let next = Authority::new();
    let url = format!("https://127.0.0.1:{}", server.port);
    let (certificate, key) = server.identity("kubernetes-admin", &["system:masters"]);
    let first = Dial {
        url,
        ca_pem: Some(server.ca_pem.clone().into_bytes()),
        key_pair: Some(rpc::tls::KeyPair {
            certificate_pem: certificate.into(),
            key_pem: key.into(),
        }),
        server_name: None,
    };
    let write = |name: &str, content: &[u8]| {
        let temporary = server.folder.path().join("new");
        std::fs::write(&temporary, content).unwrap();
        std::fs::rename(&temporary, server.folder.path().join(name)).unwrap();
    };
    let (sender, dials) = tokio::sync::watch::channel(Arc::new(first.clone()));
    let (mut follower, mut old) = (client(dials), client(rpc::live::fixed(first.clone())));
    ask(&mut follower).await.unwrap();
    ask(&mut old).await.unwrap();

    // Both authorities are trusted.
    let bundle = format!("{}{}", server.ca_pem, next.pem);
    let admin = next.issue("kubernetes-admin", "system:masters");
    let second =
        Dial { ca_pem: Some(bundle.clone().into()), key_pair: Some(admin), ..first.clone() };
    let refused = ask(&mut client(rpc::live::fixed(second.clone()))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    write("ca.crt", bundle.as_bytes());
    eventually(&second, Result::is_ok).await;
    ask(&mut follower).await.unwrap();

    // Clients get their new certificates, then the server; a certificate without its key is none.
    sender.send_replace(Arc::new(second.clone()));
    eventually(&second, Result::is_ok).await;
    ask(&mut follower).await.unwrap();
    let serving = next.issue("kube-apiserver", "none");
    write("apiserver.crt", &serving.certificate_pem);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ask(&mut follower).await.unwrap();
    eventually(&second, Result::is_ok).await;
    write("apiserver.key", &serving.key_pem);
    let third = Dial { ca_pem: Some(next.pem.clone().into()), ..second.clone() };
    eventually(&third, Result::is_ok).await;
    ask(&mut follower).await.unwrap();
    ask(&mut old).await.unwrap();

    // The old authority is trusted no longer, on open connections neither.
    sender.send_replace(Arc::new(third.clone()));
    write("ca.crt", next.pem.as_bytes());
    let distrusted = Dial { ca_pem: Some(bundle.into()), ..first };
    eventually(&distrusted, |answer| {
        answer.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    assert_eq!(ask(&mut old).await.unwrap_err().code(), Code::Unauthenticated);
    eventually(&third, Result::is_ok).await;
    ask(&mut follower).await.unwrap();
}
