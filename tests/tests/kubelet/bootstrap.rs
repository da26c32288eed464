//! A kubelet that has been given a bootstrap token and nothing else.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::suite::Fixture;
use testkit::{manifest, wait};

const NODE: &str = "newcomer";
/// The place of another node on the network of the cluster.
const NUMBER: &str = "node-9";
const HOST: &str = "node-1";

/// A second kubelet in the namespace of a node, with an address of its own.
struct Newcomer<'a> {
    fixture: &'a Fixture,
    folder: PathBuf,
    address: String,
    running: Option<Child>,
}

impl Newcomer<'_> {
    fn start(&mut self) -> anyhow::Result<()> {
        let cluster = &self.fixture.cluster;
        let path = |name: &str| self.folder.join(name).display().to_string();
        let data = cluster.folder();
        let socket = data.join(format!("nodes/{HOST}/containerd/containerd.sock"));
        let flags = [
            format!("--kubeconfig={}", path("kubelet.yaml")),
            format!("--bootstrap-kubeconfig={}", path("bootstrap.yaml")),
            format!("--node-name={NODE}"),
            format!("--node-ip={}", self.address),
            format!("--bind-address={}", self.address),
            format!("--root-dir={}", path("root")),
            format!("--container-runtime-endpoint=unix://{}", socket.display()),
            format!("--containerd-namespace={NODE}"),
            "--port=10350".to_owned(),
            "--rotate-certificates".to_owned(),
            "--rotate-server-certificates".to_owned(),
            format!("--client-ca-file={}", data.join("pki/ca.crt").display()),
            format!("--cgroup-root=/{}-{NODE}", cluster.name()),
            "--eviction-nodefs-available-percent=1".to_owned(),
            "--eviction-nodefs-inodes-free-percent=1".to_owned(),
        ];
        let log = data.join(format!("logs/kubelet-{NODE}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let network = format!("--net=/run/netns/skiff.{}.{HOST}", cluster.name());
        let mut command = Command::new("nsenter");
        command.arg(network).arg(cluster.program("skiff-kubelet")).args(flags);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.running = Some(command.spawn().context("start the kubelet")?);
        Ok(())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.running.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
        let address = format!("{}/32", self.address);
        let remove = ["ip", "address", "del", &address, "dev", "lo"];
        if let Err(error) = self.fixture.cluster.on_node(HOST, &remove) {
            eprintln!("{error:#}");
        }
    }
}

fn bootstrap_kubeconfig(fixture: &Fixture) -> anyhow::Result<String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    let cluster = &fixture.cluster;
    let authority = BASE64.encode(std::fs::read(cluster.folder().join("pki/ca.crt"))?);
    Ok(serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{}:6443", cluster.gateway()),
            "certificate-authority-data": authority}}],
        "users": [{"name": "u", "user": {"token": "abc123.0123456789abcdef"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string())
}

/// The token, and that its holders are approved.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abc123, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: abc123, token-secret: 0123456789abcdef, usage-bootstrap-authentication: "true"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: newcomers-ask}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: newcomers-are-approved}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
"#;

/// The names of its requests for a signer, and whether each is issued.
async fn requests(fixture: &Fixture, signer: &str) -> anyhow::Result<Vec<(String, bool)>> {
    let all = Api::<CertificateSigningRequest>::all(fixture.cluster.client());
    let all = all.list(&Default::default()).await?.items;
    let of_newcomer = |request: &&CertificateSigningRequest| {
        let user = request.spec.username.as_deref().unwrap_or_default();
        request.spec.signer_name == signer
            && (user == "system:bootstrap:abc123" || user == format!("system:node:{NODE}"))
    };
    let issued = |request: &CertificateSigningRequest| api::certificates::issued(request).is_some();
    let name = |request: &CertificateSigningRequest| request.metadata.name.clone();
    let found = all.iter().filter(of_newcomer);
    Ok(found.map(|one| (name(one).unwrap_or_default(), issued(one))).collect())
}

pub async fn a_kubelet_joins_with_a_token_even_if_it_is_killed_meanwhile(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    manifest::create(cluster.client(), &fixture.namespace, OBJECTS).await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("bootstrap.yaml"), bootstrap_kubeconfig(fixture)?)?;
    let address = cluster.node_address(NUMBER);
    cluster.on_node(HOST, &["ip", "address", "add", &format!("{address}/32"), "dev", "lo"])?;
    let mut newcomer =
        Newcomer { fixture, folder: folder.path().to_owned(), address, running: None };

    // Nobody signs while it asks.
    let signer = Pid::from_raw(cluster.pid("controller-manager")?);
    kill(signer, Signal::SIGSTOP)?;
    newcomer.start()?;
    let client_signer = api::certificates::KUBELET_CLIENT_SIGNER;
    let asked = wait::eventually("it asks for a certificate", async || {
        let all = requests(fixture, client_signer).await?;
        ensure!(all.len() == 1 && !all[0].1, "{all:?}");
        Ok(all[0].0.clone())
    })
    .await;
    newcomer.kill()?;
    kill(signer, Signal::SIGCONT)?;
    let asked = asked?;
    wait::eventually("its request is approved and signed without it", async || {
        let all = requests(fixture, client_signer).await?;
        ensure!(all == [(asked.clone(), true)], "{all:?}");
        Ok(())
    })
    .await?;
    ensure!(!folder.path().join("kubelet.yaml").exists(), "it was killed before it had anything");

    // The next one takes what the first one asked for.
    newcomer.start()?;
    let nodes = Api::<Node>::all(cluster.client());
    wait::eventually("the node is ready", async || {
        let node = nodes.get(NODE).await?;
        let conditions = node.status.unwrap_or_default().conditions.unwrap_or_default();
        let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        ensure!(ready, "{conditions:?}");
        Ok(())
    })
    .await?;
    let all = requests(fixture, client_signer).await?;
    ensure!(all == [(asked, true)], "one request is enough: {all:?}");
    let issued = folder.path().join("root/pki/kubelet-server-current.pem");
    wait::eventually("it has a serving certificate", async || {
        let all = requests(fixture, api::certificates::KUBELET_SERVING_SIGNER).await?;
        ensure!(all.iter().any(|(_, issued)| *issued), "{all:?}");
        let pem = std::fs::read(&issued).context("it is there")?;
        ensure!(api::pem::blocks(&pem).count() == 2);
        Ok(())
    })
    .await?;
    let path = format!("/api/v1/nodes/{NODE}:10350/proxy/healthz");
    wait::eventually("it serves with its certificate", async || {
        let health = cluster.kubectl(&["get", "--raw", &path])?;
        ensure!(health.trim() == "ok", "{health}");
        Ok(())
    })
    .await?;

    // A third one has all it needs.
    newcomer.kill()?;
    std::fs::remove_file(folder.path().join("bootstrap.yaml"))?;
    std::fs::write(folder.path().join("bootstrap.yaml"), "{}")?;
    newcomer.start()?;
    wait::eventually("it serves again", async || {
        let health = cluster.kubectl(&["get", "--raw", &path])?;
        ensure!(health.trim() == "ok", "{health}");
        Ok(())
    })
    .await?;
    newcomer.kill()?;
    nodes.delete(NODE, &DeleteOptions::default()).await?;
    Ok(())
}
