//! A control plane in this process: the real apiserver on the embedded store, the real scheduler,
//! and the controllers, with hollow nodes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use apiserver::server::Running;
use clap::Parser;
use client::{Api, Client};
use controller_manager::config::Flags;
use controller_manager::wire;
use k8s_openapi::api::core::v1::ConfigMap;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rpc::tls::Dial;
use runtime::health::Health;
use testkit::hollow::HollowNode;
use testkit::wait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Plane {
    pub client: Client,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    apiserver: Option<Running>,
    address: SocketAddr,
    authority: Authority,
    controllers: Mutex<Vec<Controllers>>,
}

/// Running controllers, and the token that ends them.
struct Controllers {
    task: JoinHandle<()>,
    end: CancellationToken,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Plane {
    /// Starts the apiserver and the scheduler.
    pub async fn start() -> anyhow::Result<Self> {
        runtime::init("warn");
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        authority.issue(folder.path(), "apiserver", "kube-apiserver", None, &["127.0.0.1"])?;
        let proxy = "front-proxy-client";
        authority.issue(folder.path(), proxy, proxy, None, &[])?;
        let token_key = KeyPair::generate()?;
        std::fs::write(folder.path().join("sa.key"), token_key.serialize_pem())?;
        std::fs::write(folder.path().join("sa.pub"), token_key.public_key_pem())?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = apiserver::config::Config::try_parse_from([
            "apiserver",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--advertise-address=127.0.0.1",
            &format!("--embedded-store={}", path("store")),
            &format!("--tls-cert-file={}", path("apiserver.crt")),
            &format!("--tls-private-key-file={}", path("apiserver.key")),
            &format!("--client-ca-file={}", path("ca.crt")),
            &format!("--service-account-signing-key-file={}", path("sa.key")),
            &format!("--service-account-key-file={}", path("sa.pub")),
            // The authority of clients is that of front proxies too.
            &format!("--proxy-client-cert-file={}", path("front-proxy-client.crt")),
            &format!("--proxy-client-key-file={}", path("front-proxy-client.key")),
        ])?;
        let stop = CancellationToken::new();
        let running = apiserver::wire::start(&config, stop.clone()).await?;
        let address = running.address;
        let mut plane = Self {
            client: authority.client(
                folder.path(),
                address,
                "kubernetes-admin",
                Some("system:masters"),
            )?,
            folder,
            stop,
            apiserver: Some(running),
            address,
            authority,
            controllers: Mutex::default(),
        };
        plane.schedule()?;
        Ok(plane)
    }

    fn schedule(&mut self) -> anyhow::Result<()> {
        let client = self.identity("system:kube-scheduler")?;
        let (stop, clock) = (self.stop.clone(), clock::system());
        let health = Health::new(&["synced"]);
        tokio::spawn(async move {
            let (lead, leading) = tokio::sync::oneshot::channel();
            lead.send(()).expect("the receiver is here");
            let setup = scheduler::drive::Setup::unasked(clock, health, leading);
            scheduler::drive::run(client, setup, stop).await;
        });
        Ok(())
    }

    /// A file of the authority or of the servers.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What is stored under a key.
    pub async fn stored(&self, key: &str) -> anyhow::Result<serde_json::Value> {
        let running = self.apiserver.as_ref().context("it runs")?;
        let store = running.embedded.as_ref().context("it is embedded")?.store().await?;
        let found = store.get(key.as_bytes().to_vec().into()).await?.entry;
        Ok(serde_json::from_slice(&found.context("it is stored")?.value)?)
    }

    /// The authority of all certificates, in PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority.pem
    }

    pub fn identity(&self, name: &str) -> anyhow::Result<Client> {
        self.authority.client(self.folder.path(), self.address, name, None)
    }

    /// A client of a user in a group.
    pub fn identity_in(&self, name: &str, group: &str) -> anyhow::Result<Client> {
        self.authority.client(self.folder.path(), self.address, name, Some(group))
    }

    /// Starts the controllers.
    pub fn control(&self, flags: &[&str]) -> anyhow::Result<()> {
        let client = self.identity("system:kube-controller-manager")?;
        let end = self.stop.child_token();
        let task = self.run(client, flags, end.clone())?;
        self.started().push(Controllers { task, end });
        Ok(())
    }

    /// Starts the controllers on a connection; aborting the task kills them.
    pub fn control_through(
        &self,
        client: Client,
        flags: &[&str],
    ) -> anyhow::Result<JoinHandle<()>> {
        self.run(client, flags, self.stop.child_token())
    }

    fn run(
        &self,
        client: Client,
        flags: &[&str],
        end: CancellationToken,
    ) -> anyhow::Result<JoinHandle<()>> {
        let ca = self.folder.path().join("ca.crt").display().to_string();
        let mut all = vec!["cm", "--kubeconfig=none", "--root-ca-file", &ca];
        all.extend(["--cluster-cidr", "10.244.0.0/16"]);
        let key = self.folder.path().join("ca.key").display().to_string();
        all.extend(["--cluster-signing-cert-file", &ca, "--cluster-signing-key-file", &key]);
        all.extend(flags);
        let settings = Flags::try_parse_from(all)?.settings(&end)?;
        let running = wire::run(client, settings, clock::system(), end);
        let running = async { running.await.expect("no controller ends unexpectedly") };
        Ok(tokio::spawn(running))
    }

    fn started(&self) -> std::sync::MutexGuard<'_, Vec<Controllers>> {
        self.controllers.lock().expect("nothing panics while it holds the lock")
    }

    /// Ends the controllers that [`control`](Self::control) started, and waits for them.
    pub async fn stop_controllers(&self) -> anyhow::Result<()> {
        let all = std::mem::take(&mut *self.started());
        for Controllers { task, end } in all {
            end.cancel();
            task.await?;
        }
        Ok(())
    }

    /// Waits until the requests that were sent through a connection have been carried out, or
    /// dropped with whoever sent them.
    pub async fn landed(&self, dead: &Client) -> anyhow::Result<()> {
        for _ in 0..2 {
            // A connection delivers in order: the server has read what was sent before.
            dead.get_path("/livez", "").await?;
            wait::eventually("no write is in progress", async || {
                let metrics = self.client.get_path("/metrics", "").await?;
                let writes = "apiserver_current_inflight_requests{request_kind=\"mutating\"} ";
                let text = String::from_utf8_lossy(&metrics).into_owned();
                let count = text.lines().find_map(|line| line.strip_prefix(writes));
                anyhow::ensure!(count == Some("0"), "{count:?} writes are in progress");
                Ok(())
            })
            .await?;
        }
        // The store applies in order what is in its queue.
        let mut last = ConfigMap::default();
        last.metadata.generate_name = Some("landed-".to_owned());
        Api::<ConfigMap>::namespaced(&self.client, "kube-public").create(&last).await?;
        Ok(())
    }

    pub async fn nodes(&self, names: &[&str]) -> anyhow::Result<Vec<HollowNode>> {
        let mut nodes = Vec::new();
        for name in names {
            let period = Duration::from_millis(500);
            let clock = clock::system();
            nodes.push(HollowNode::start(&self.client, clock, name, period).await?);
        }
        Ok(nodes)
    }

    /// Ends everything: controllers, nodes, then the apiserver.
    ///
    /// # Errors
    /// When a controller has failed.
    pub async fn finish(mut self, nodes: Vec<HollowNode>) -> anyhow::Result<()> {
        self.stop_controllers().await?;
        drop(nodes);
        self.stop.cancel();
        if let Some(running) = self.apiserver.take() {
            running.finished().await;
        }
        Ok(())
    }
}

impl Authority {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        std::fs::write(folder.join("ca.crt"), &pem)?;
        std::fs::write(folder.join("ca.key"), key.serialize_pem())?;
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    fn issue(
        &self,
        folder: &Path,
        file: &str,
        common_name: &str,
        organization: Option<&str>,
        names: &[&str],
    ) -> anyhow::Result<(String, String)> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        std::fs::write(folder.join(format!("{file}.crt")), &certificate)?;
        std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem())?;
        Ok((certificate, key.serialize_pem()))
    }

    fn client(
        &self,
        folder: &Path,
        address: SocketAddr,
        name: &str,
        group: Option<&str>,
    ) -> anyhow::Result<Client> {
        let (certificate, key) = self.issue(folder, name, name, group, &[])?;
        Ok(Client::new(&client::Config {
            dial: Dial {
                url: format!("https://{address}"),
                ca_pem: Some(self.pem.clone().into_bytes()),
                key_pair: Some(rpc::tls::KeyPair {
                    certificate_pem: certificate.into_bytes(),
                    key_pem: key.into_bytes(),
                }),
                server_name: None,
            },
            token: None,
            token_file: None,
            namespace: "default".into(),
        })?)
    }
}
