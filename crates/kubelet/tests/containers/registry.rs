//! A real registry on loopback.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, LOCATION};

use crate::testimage::{self, MANIFEST_TYPE};

const BLOB_TYPE: &str = "application/octet-stream";
/// bcrypt of "secret".
const PASSWORD_HASH: &str = "$2b$05$HdsBvW7QAQ4nOhv6x1oCleYZH3Xglv9CgVVGTEAiUi/JVdAPbs58S";
pub const USER: &str = "robot";
pub const PASSWORD: &str = "secret";

pub struct Registry {
    pub address: String,
    with_auth: bool,
    with_tls: bool,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Registry {
    pub async fn start(with_auth: bool) -> Registry {
        Self::launch(with_auth, false).await
    }

    /// A registry with a self-signed certificate.
    pub async fn start_tls() -> Registry {
        Self::launch(false, true).await
    }

    async fn launch(with_auth: bool, with_tls: bool) -> Registry {
        rustls::crypto::ring::default_provider().install_default().ok();
        let directory =
            tempfile::Builder::new().prefix("skiff-registry-").tempdir_in("/tmp").unwrap();
        let root = directory.path().display();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: \"{address}\"}}\n"
        );
        if with_auth {
            fs::write(directory.path().join("htpasswd"), format!("{USER}:{PASSWORD_HASH}\n"))
                .unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n");
        }
        if with_tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
            fs::write(directory.path().join("cert"), made.cert.pem()).unwrap();
            fs::write(directory.path().join("key"), made.signing_key.serialize_pem()).unwrap();
            let tls = format!("http: {{tls: {{certificate: {root}/cert, key: {root}/key}}, addr:");
            config = config.replace("http: {addr:", &tls);
        }
        fs::write(directory.path().join("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &format!("{root}/config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Registry { address, with_auth, with_tls, process, _directory: directory };
        let listening = async {
            while tokio::net::TcpStream::connect(&registry.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::node::PATIENCE, listening).await.expect("the registry listens");
        registry
    }

    /// Pushes the test image and returns its manifest's digest.
    pub async fn push(&self, repository: &str, tag: &str) -> String {
        let image = testimage::registry_image();
        let client =
            reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        let scheme = if self.with_tls { "https" } else { "http" };
        let base = format!("{scheme}://{}/v2/{repository}", self.address);
        let send = async |method, url: String, content_type, body: Vec<u8>| {
            let mut request = client.request(method, url).header(CONTENT_TYPE, content_type);
            if self.with_auth {
                request = request.basic_auth(USER, Some(PASSWORD));
            }
            request.body(body).send().await.unwrap().error_for_status().unwrap()
        };
        for blob in image.layers.iter().chain([&image.config]) {
            let uploads = format!("{base}/blobs/uploads/");
            let begun = send(Method::POST, uploads, BLOB_TYPE, Vec::new()).await;
            // The location has the state of the upload in its query.
            let location = begun.headers()[LOCATION].to_str().unwrap();
            let url = format!("{location}&digest={}", testimage::digest(blob));
            send(Method::PUT, url, BLOB_TYPE, blob.clone()).await;
        }
        let url = format!("{base}/manifests/{tag}");
        send(Method::PUT, url, MANIFEST_TYPE, image.manifest.clone()).await;
        testimage::digest(&image.manifest)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
