//! A real registry (Debian's docker-registry) for tests, with basic authentication, and pushing
//! the archives of `xtask images` to it.

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The only user, and the password.
pub const USER: &str = "skiff";
pub const PASSWORD: &str = "open sesame";
/// The password's bcrypt hash, at the lowest cost.
const PASSWORD_HASH: &str = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";

/// A running registry; dropping it stops it and removes its contents. One in a static is never
/// dropped: call [`Registry::stop`].
pub struct Registry {
    running: Mutex<Option<(Child, TempDir)>>,
    port: u16,
}

impl Registry {
    /// Starts a registry on a free port of all addresses, so that the nodes reach it at the
    /// machine's address in their subnet. If `private`, it requires authentication.
    ///
    /// # Errors
    /// When docker-registry is not installed.
    pub fn start(private: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '0.0.0.0:{port}', secret: test}}\n",
            folder.path().join("data").display()
        );
        if private {
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, format!("{USER}:{PASSWORD_HASH}\n"))?;
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config)?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start docker-registry (apt-get install docker-registry)")?;
        Ok(Self { running: Mutex::new(Some((process, folder))), port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Pushes an OCI archive as `repository:tag`; returns the manifest's digest.
    ///
    /// # Errors
    /// When the archive cannot be read, or the registry rejects it.
    pub async fn push(
        &self,
        archive: &Path,
        repository: &str,
        tag: &str,
    ) -> anyhow::Result<String> {
        let files = read_archive(archive)?;
        let index: Value = serde_json::from_slice(files.get("index.json").context("no index")?)?;
        let digest = index["manifests"][0]["digest"].as_str().context("no manifest")?.to_owned();
        let manifest = blob(&files, &digest)?;
        let parsed: Value = serde_json::from_slice(manifest)?;
        let client = reqwest::Client::new();
        let base = format!("http://127.0.0.1:{}/v2/{repository}", self.port);
        crate::wait::eventually("the registry answers", async || {
            let url = format!("http://127.0.0.1:{}/v2/", self.port);
            client.get(url).send().await?;
            Ok(())
        })
        .await?;
        for reference in
            parsed["layers"].as_array().into_iter().flatten().chain([&parsed["config"]])
        {
            let digest = reference["digest"].as_str().context("a blob without a digest")?;
            let upload = client
                .post(format!("{base}/blobs/uploads/"))
                .basic_auth(USER, Some(PASSWORD))
                .send()
                .await?;
            ensure!(upload.status().is_success(), "upload of {digest}: {}", upload.status());
            let location = upload.headers().get("location").context("no location")?.to_str()?;
            let mark = if location.contains('?') { '&' } else { '?' };
            let stored = client
                .put(format!("{location}{mark}digest={digest}"))
                .basic_auth(USER, Some(PASSWORD))
                .body(blob(&files, digest)?.clone())
                .send()
                .await?;
            ensure!(stored.status().is_success(), "blob {digest}: {}", stored.status());
        }
        let media_type = parsed["mediaType"].as_str().context("no media type")?;
        let stored = client
            .put(format!("{base}/manifests/{tag}"))
            .basic_auth(USER, Some(PASSWORD))
            .header("content-type", media_type)
            .body(manifest.clone())
            .send()
            .await?;
        if !stored.status().is_success() {
            bail!("manifest {tag}: {} {}", stored.status(), stored.text().await?);
        }
        Ok(digest)
    }
}

impl Registry {
    /// Stops the registry and removes its contents.
    pub fn stop(&self) {
        let Some((mut process, folder)) = self.running.lock().take() else {
            return;
        };
        if let Err(error) = process.kill().and_then(|()| process.wait()) {
            eprintln!("cannot stop the registry: {error}");
        }
        if let Err(error) = folder.close() {
            eprintln!("cannot remove the contents of the registry: {error}");
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_archive(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let file = std::fs::File::open(path)
        .with_context(|| format!("{}: cargo run -p xtask -- images builds it", path.display()))?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(file).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(name, content);
    }
    Ok(files)
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, digest: &str) -> anyhow::Result<&'a Vec<u8>> {
    let name = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    files.get(&name).with_context(|| format!("the archive has no {digest}"))
}
