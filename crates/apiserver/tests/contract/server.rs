//! A server for each test, and requests to it as any user.

use std::path::PathBuf;

use apiserver::config::Config;
use apiserver::server::Running;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Parser;
use http_body_util::BodyExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rpc::api_v1::resources_client::ResourcesClient;
use rpc::tls::Dial;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A connection of a client.
pub type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// A running server with its authority and directory.
pub struct Server {
    pub folder: tempfile::TempDir,
    pub port: u16,
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
    /// The authority of front proxies, and its certificate.
    pub proxies: Issuer<'static, KeyPair>,
    pub proxy_ca_pem: String,
    shutdown: CancellationToken,
    running: Option<Running>,
    /// The server's process, if it is not this one.
    process: Option<std::process::Child>,
    arguments: Vec<String>,
}

/// An answer of the REST front end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The body if the code is `code`; otherwise panics with the answer.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.body
    }
}

/// One user of the REST front end.
#[derive(Clone)]
pub struct Rest(kube::Client);

/// An authority that the server does not trust.
pub struct UntrustedAuthority(Issuer<'static, KeyPair>);

impl UntrustedAuthority {
    /// The server's REST front end, with a certificate of this authority.
    pub fn rest(&self, server: &Server) -> Rest {
        server.rest_with(issue(&self.0, "kubernetes-admin", &["system:masters"], None))
    }
}

impl Server {
    /// Starts on the embedded store.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with further flags; those of a store replace the own one.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::try_start(flags).await.unwrap()
    }

    /// The same, or why it does not start.
    pub async fn try_start(flags: &[&str]) -> anyhow::Result<Self> {
        let (mut server, arguments) = Self::prepare(flags);
        let config = Config::parse_from([arguments, vec!["--secure-port=0".to_owned()]].concat());
        let running = apiserver::wire::start(&config, server.shutdown.clone()).await?;
        server.port = running.address.port();
        server.running = Some(running);
        Ok(server)
    }

    /// Why it does not start with these flags.
    pub async fn refusal(flags: &[&str]) -> String {
        let (server, arguments) = Self::prepare(flags);
        let config = Config::parse_from([arguments, vec!["--secure-port=0".to_owned()]].concat());
        let started = apiserver::wire::start(&config, server.shutdown.clone()).await;
        server.shutdown.cancel();
        format!("{:#}", started.err().expect("it starts"))
    }

    /// Starts in a process of its own, whose memory is its own.
    pub async fn spawn(flags: &[&str]) -> Self {
        let (mut server, arguments) = Self::prepare(flags);
        server.arguments = arguments;
        server.launch().await;
        server
    }

    /// Kills the process of a spawned server, and starts it again.
    pub async fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        self.launch().await;
    }

    async fn launch(&mut self) {
        // Another process may take the port before the server does; then it ends at once.
        loop {
            self.port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|free| free.local_addr())
                .unwrap()
                .port();
            let process = std::process::Command::new(env!("CARGO_BIN_EXE_skiff-apiserver"))
                .args(&self.arguments[1..])
                .args([format!("--secure-port={}", self.port), "--log-level=error".to_owned()])
                .spawn();
            self.process = Some(process.unwrap());
            while self.process.as_mut().unwrap().try_wait().unwrap().is_none() {
                if self.tls().await.is_some() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }

    /// The process of a spawned server.
    pub fn id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// What the process of a spawned server has allocated, in bytes.
    pub fn allocated(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    fn prepare(flags: &[&str]) -> (Self, Vec<String>) {
        runtime::init("error");
        let folder = tempfile::tempdir().unwrap();
        let (issuer, ca_pem) = authority(None);
        let write = |name: &str, text: &str| -> String {
            let path: PathBuf = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (certificate, key) = issue(&issuer, "kube-apiserver", &[], None);
        let (client_certificate, client_key) = issue(&issuer, "kube-apiserver", &[], None);
        let (proxies, proxy_ca_pem) = authority(Some("front-proxy-ca"));
        let (proxy_certificate, proxy_key) = issue(&proxies, "front-proxy-client", &[], None);
        let accounts = KeyPair::generate().unwrap();
        let store = folder.path().join("store").display().to_string();
        let mut arguments: Vec<String> = [
            "skiff-apiserver",
            "--bind-address=127.0.0.1",
            &format!("--tls-cert-file={}", write("apiserver.crt", &certificate)),
            &format!("--tls-private-key-file={}", write("apiserver.key", &key)),
            &format!("--client-ca-file={}", write("ca.crt", &ca_pem)),
            &format!(
                "--service-account-signing-key-file={}",
                write("sa.key", &accounts.serialize_pem())
            ),
            &format!("--service-account-key-file={}", write("sa.pub", &accounts.public_key_pem())),
            &format!("--kubelet-certificate-authority={}", write("kubelet-ca.crt", &ca_pem)),
            &format!("--kubelet-client-certificate={}", write("client.crt", &client_certificate)),
            &format!("--kubelet-client-key={}", write("client.key", &client_key)),
            &format!("--requestheader-client-ca-file={}", write("proxy-ca.crt", &proxy_ca_pem)),
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-uid-headers=X-Remote-Uid",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            &format!("--proxy-client-cert-file={}", write("proxy.crt", &proxy_certificate)),
            &format!("--proxy-client-key-file={}", write("proxy.key", &proxy_key)),
        ]
        .map(str::to_owned)
        .to_vec();
        let stores = ["--etcd-servers", "--embedded-store"];
        if !flags.iter().any(|flag| stores.iter().any(|store| flag.starts_with(store))) {
            arguments.push(format!("--embedded-store={store}"));
        }
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let server = Self {
            port: 0,
            folder,
            issuer,
            ca_pem,
            proxies,
            proxy_ca_pem,
            shutdown: CancellationToken::new(),
            running: None,
            process: None,
            arguments: Vec::new(),
        };
        (server, arguments)
    }

    /// Certificate and key of a user, in PEM.
    pub fn identity(&self, user: &str, groups: &[&str]) -> (String, String) {
        issue(&self.issuer, user, groups, None)
    }

    /// The authority that the server trusts.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// Another authority, which the server does not trust.
    pub fn untrusted_authority(&self) -> UntrustedAuthority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        UntrustedAuthority(Issuer::new(params, KeyPair::generate().unwrap()))
    }

    /// The state of the server.
    pub fn core(&self) -> &apiserver::core::Core {
        &self.running.as_ref().unwrap().core
    }

    /// The server's own store.
    pub fn embedded(&self) -> &store::embedded::Embedded {
        self.running.as_ref().unwrap().embedded.as_ref().unwrap()
    }

    /// The REST front end as a user with a certificate.
    pub fn rest_as(&self, user: &str, groups: &[&str]) -> Rest {
        self.rest_with(self.identity(user, groups))
    }

    /// The REST front end with an administrator's certificate that has expired.
    pub fn rest_expired(&self) -> Rest {
        let long_ago = rcgen::date_time_ymd(2021, 1, 1);
        self.rest_until(long_ago.unix_timestamp())
    }

    /// The REST front end with an administrator's certificate that expires at a second since 1970.
    pub fn rest_until(&self, seconds: i64) -> Rest {
        let admin = ("kubernetes-admin", &["system:masters"][..]);
        self.rest_with(issue(&self.issuer, admin.0, admin.1, Some(seconds)))
    }

    /// The REST front end with a certificate of the front proxies' authority.
    pub fn rest_as_proxy(&self, name: &str, groups: &[&str]) -> Rest {
        self.rest_with(issue(&self.proxies, name, groups, None))
    }

    /// Certificate and key of a front proxy, in PEM.
    pub fn proxy_identity(&self, name: &str) -> (String, String) {
        issue(&self.proxies, name, &[], None)
    }

    fn rest_with(&self, (certificate, key): (String, String)) -> Rest {
        let mut config = self.config();
        config.auth_info.client_certificate_data = Some(BASE64.encode(certificate));
        config.auth_info.client_key_data = Some(BASE64.encode(key).into());
        Rest(kube::Client::try_from(config).unwrap())
    }

    /// The REST front end without any credentials.
    pub fn rest_anonymous(&self) -> Rest {
        Rest(kube::Client::try_from(self.config()).unwrap())
    }

    /// The REST front end as the administrator.
    pub fn admin(&self) -> Rest {
        self.rest_as("kubernetes-admin", &["system:masters"])
    }

    fn config(&self) -> kube::Config {
        let url = format!("https://127.0.0.1:{}", self.port);
        let mut config = kube::Config::new(url.parse().unwrap());
        // Refusals are what is tested.
        config.default_retry = false;
        let der = self.ca_pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        config.root_cert = Some(vec![BASE64.decode(der).unwrap()]);
        config
    }

    /// The gRPC front end as the administrator.
    pub fn grpc(&self) -> ResourcesClient<Channel> {
        self.grpc_as("kubernetes-admin", &["system:masters"])
    }

    /// The gRPC front end as a user with a certificate.
    pub fn grpc_as(&self, user: &str, groups: &[&str]) -> ResourcesClient<Channel> {
        let (certificate, key) = self.identity(user, groups);
        self.grpc_with(Some(rpc::tls::KeyPair {
            certificate_pem: certificate.into_bytes(),
            key_pem: key.into_bytes(),
        }))
    }

    /// The gRPC front end without a certificate.
    pub fn grpc_anonymous(&self) -> ResourcesClient<Channel> {
        self.grpc_with(None)
    }

    fn grpc_with(&self, key_pair: Option<rpc::tls::KeyPair>) -> ResourcesClient<Channel> {
        let channel = rpc::tls::channel(&Dial {
            url: format!("https://127.0.0.1:{}", self.port),
            ca_pem: Some(self.ca_pem.clone().into_bytes()),
            key_pair,
            server_name: None,
        });
        ResourcesClient::new(channel.unwrap()).max_decoding_message_size(rpc::MAX_MESSAGE_BYTES)
    }

    /// A TLS connection without a certificate, for arbitrary bytes.
    pub async fn tls(&self) -> Option<Tls> {
        self.tls_with(None).await
    }

    /// A TLS connection of a user.
    pub async fn tls_as(&self, user: &str, groups: &[&str]) -> Option<Tls> {
        self.tls_with(Some(self.identity(user, groups))).await
    }

    /// A TLS connection with a certificate and its key.
    pub async fn tls_with(&self, identity: Option<(String, String)>) -> Option<Tls> {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = "localhost".try_into().unwrap();
        connector.connect(name, self.tcp().await.ok()?).await.ok()
    }

    /// A connection that has said nothing yet.
    pub async fn tcp(&self) -> std::io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await
    }

    /// A kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        let (certificate, key) = self.identity("kubernetes-admin", &["system:masters"]);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:{}\n    \
             certificate-authority-data: {}\nusers:\n- name: u\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n\
             contexts:\n- name: c\n  context: {{cluster: c, user: u}}\n",
            self.port,
            BASE64.encode(&self.ca_pem),
            BASE64.encode(certificate),
            BASE64.encode(key)
        );
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Creates the account that pods of `namespace` run under, which a controller creates
    /// otherwise.
    pub async fn default_account(&self, namespace: &str) {
        let account = serde_json::json!({"metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.admin().post(&path, &account).await.expect(201);
    }

    /// Stops the server and waits for it.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.finished().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// An authority, and its certificate in PEM.
fn authority(name: Option<&str>) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    if let Some(name) = name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    user: &str,
    groups: &[&str],
    until: Option<i64>,
) -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = Default::default();
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(until) = until {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let start = params.not_before.unix_timestamp();
        let validity = std::time::Duration::from_secs(u64::try_from(until - start).unwrap());
        params.not_after = params.not_before + validity;
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

impl Rest {
    /// Any request.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let (parts, bytes) = self.exchange(method, path, headers, body).await;
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// A GET with headers of any bytes.
    pub async fn ask_with(
        &self,
        path: &str,
        headers: &[(&'static str, http::HeaderValue)],
    ) -> Answer {
        let mut request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.clone());
        }
        let (parts, body) = self.0.send(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Any request, answered by uninterpreted bytes.
    pub async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (http::response::Parts, bytes::Bytes) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(body)).unwrap();
        let response = self.0.send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], Vec::new()).await
    }

    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.ask(method, path, &headers, body.to_string().into_bytes()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let kind = format!("application/{kind}-patch+json");
        let headers = [("content-type", kind.as_str())];
        self.ask("PATCH", path, &headers, body.to_string().into_bytes()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], Vec::new()).await
    }

    /// The lines of a watch, as they arrive.
    pub async fn watch(&self, path: &str) -> Lines {
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        let response = self.0.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), buffer: Vec::new() }
    }
}

/// Frames of a watch.
pub struct Lines {
    body: kube::client::Body,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next frame; `None`: the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(frame.data_ref()?);
        }
    }

    /// The type of the next frame and the name of its object.
    pub async fn next_change(&mut self) -> (String, String) {
        let frame = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&frame["type"]), text(&frame["object"]["metadata"]["name"]))
    }
}
