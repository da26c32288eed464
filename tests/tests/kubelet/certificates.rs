//! Certificates that the cluster issues: to users, and to kubelets while they run.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use testkit::suite::Fixture;
use testkit::wait;

const NODE: &str = "node-1";

fn params(name: &str, group: &str, hosts: &[String]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// A certificate of the cluster's authority that is about to expire, and its key.
fn expiring(folder: &Path, mut params: CertificateParams) -> anyhow::Result<(String, String)> {
    let read = |name: &str| std::fs::read_to_string(folder.join("pki").join(name));
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt")?, KeyPair::from_pem(&read("ca.key")?)?)?;
    let now = SystemTime::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(clock::now().as_millisecond())?);
    params.not_before = (now - Duration::from_secs(10 * 3_600)).into();
    params.not_after = (now + Duration::from_secs(1_800)).into();
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

fn replace(path: &Path, content: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, content)?;
    std::fs::rename(&new, path).with_context(|| format!("replace {}", path.display()))
}

pub async fn a_kubelet_renews_its_certificates(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let folder = cluster.folder();
    let user = format!("system:node:{NODE}");
    let (certificate, key) = expiring(&folder, params(&user, "system:nodes", &[])?)?;
    let path = folder.join(format!("kubeconfig/kubelet-{NODE}.yaml"));
    let kubeconfig = std::fs::read_to_string(&path)?;
    let mut changed = kubeconfig.clone();
    for (field, pem) in [("client-certificate-data", certificate), ("client-key-data", key)] {
        let expression =
            regex::Regex::new(&format!(r#"("?{field}"?: *(?:>-)?\s*"?)[A-Za-z0-9+/=]+"#))?;
        let encoded = BASE64.encode(pem);
        changed = expression.replace(&changed, format!("${{1}}{encoded}")).into_owned();
    }
    ensure!(changed != kubeconfig, "the kubeconfig has no certificate");
    replace(&path, &changed)?;
    let hosts = [NODE.to_owned(), cluster.node_address(NODE)];
    let (certificate, key) = expiring(&folder, params(&user, "system:nodes", &hosts)?)?;
    let serving = folder.join(format!("pki/nodes/{NODE}"));
    replace(&serving.join("kubelet-server.key"), &key)?;
    replace(&serving.join("kubelet-server.crt"), &certificate)?;
    // What is due is decided when a kubelet starts.
    kill(Pid::from_raw(cluster.pid(&format!("kubelet-{NODE}"))?), Signal::SIGKILL)?;
    let issued = folder.join(format!("nodes/{NODE}/kubelet/pki"));
    wait::eventually("the kubelet has new certificates", async || {
        for name in ["kubelet-client-current.pem", "kubelet-server-current.pem"] {
            let pem = std::fs::read(issued.join(name)).with_context(|| name.to_owned())?;
            ensure!(api::pem::blocks(&pem).count() == 2, "{name}");
        }
        let requests = cluster.kubectl(&["get", "csr", "--no-headers"])?;
        let of_node = requests.lines().filter(|line| line.contains(&user));
        let done = of_node.filter(|line| line.ends_with("Approved,Issued")).count();
        ensure!(done >= 2, "{requests}");
        // The apiserver verifies the kubelet, and the kubelet the apiserver.
        let health =
            cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy/healthz")])?;
        ensure!(health.trim() == "ok", "{health}");
        Ok(())
    })
    .await?;
    // It goes on although the old ones are gone.
    replace(&path, &kubeconfig)?;
    let health =
        cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy/healthz")])?;
    ensure!(health.trim() == "ok", "{health}");
    Ok(())
}

pub async fn requests_are_approved_and_denied_by_both_tools(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let object = |name: &str| -> anyhow::Result<String> {
        let key = KeyPair::generate()?;
        let request = params("someone", "people", &[])?.serialize_request(&key)?.pem()?;
        Ok(serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "expirationSeconds": 3600,
                "usages": ["client auth"], "request": BASE64.encode(request)},
        })
        .to_string())
    };
    for name in ["first", "second", "third"] {
        let path = cluster.folder().join(format!("{name}.json"));
        std::fs::write(&path, object(name)?)?;
        cluster.kubectl(&["create", "-f", &path.to_string_lossy()])?;
    }
    let said = "certificatesigningrequest.certificates.k8s.io";
    let approved = cluster.kubectl(&["certificate", "approve", "first"])?;
    ensure!(approved.trim() == format!("{said}/first approved"), "{approved}");
    let approved = cluster.skiff(&["certificate", "approve", "second"])?;
    ensure!(approved.trim() == format!("{said}/second approved"), "{approved}");
    let denied = cluster.skiff(&["certificate", "deny", "third"])?;
    ensure!(denied.trim() == format!("{said}/third denied"), "{denied}");
    let again = cluster.try_skiff(&["certificate", "approve", "third"])?;
    ensure!(
        again.stderr.contains("certificate signing request \"third\" is already Denied"),
        "{}",
        again.stderr
    );
    wait::eventually("the approved requests are signed", async || {
        let requests = cluster.kubectl(&["get", "csr", "first", "second", "--no-headers"])?;
        let issued = requests.lines().filter(|line| line.ends_with("Approved,Issued")).count();
        ensure!(issued == 2, "{requests}");
        Ok(())
    })
    .await?;
    let shown = cluster.skiff(&["get", "csr", "third", "--no-headers"])?;
    ensure!(shown.trim_end().ends_with("Denied"), "{shown}");
    let described = ["describe", "csr", "first"];
    let (one, other) = (cluster.kubectl(&described)?, cluster.skiff(&described)?);
    ensure!(one == other, "kubectl:\n{one}\nskiff:\n{other}");
    Ok(())
}
