//! Certificates are issued, whoever dies meanwhile.

use anyhow::ensure;
use api::certificates::{is_approved, issued};
use client::Api;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use testkit::wait;

use super::alone::ask;
use super::plane::Plane;

const FLAGS: [&str; 1] = [
    "--controllers=certificatesigningrequest-approving-controller,certificatesigningrequest-signing-controller",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_request_is_signed_by_whoever_comes_next() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let (key, away) = (plane.file("ca.key"), plane.file("away"));
    let requests = Api::<CertificateSigningRequest>::all(&plane.client);
    let connection = plane.identity("system:kube-controller-manager")?;
    let first = plane.control_through(connection.clone(), &FLAGS)?;
    // It can approve, but not sign.
    std::fs::rename(&key, &away)?;
    ask(&plane, "node", "new", &[]).await?;
    wait::eventually("the request is approved", async || {
        ensure!(is_approved(&requests.get("node").await?));
        Ok(())
    })
    .await?;
    first.abort();
    ensure!(issued(&requests.get("node").await?).is_none(), "there was no key");
    std::fs::rename(&away, &key)?;
    let second = plane.control_through(connection, &FLAGS)?;
    let pem = wait::eventually("the request is signed", async || {
        let request = requests.get("node").await?;
        let pem = issued(&request).map(<[u8]>::to_vec);
        pem.ok_or_else(|| anyhow::anyhow!("{request:?}"))
    })
    .await?;
    ensure!(api::pem::blocks(&pem).count() == 1);
    second.abort();
    plane.finish(Vec::new()).await
}
