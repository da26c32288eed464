//! How a webhook is reached: a file in the format of kubeconfigs, of which the current context counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::time::Instant;

use crate::configuration::{Unusable, read};

/// Where a pod finds the credentials of its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    users: Vec<Named<Login>>,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    current_context: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Login {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

#[derive(Clone, Default, Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}

/// How long what files say is used before they are looked at again.
const LIFE: Duration = Duration::from_secs(60);

/// A server and the credentials for it, which follow their files.
pub struct Connection {
    /// `None`: the cluster that this process is a pod of.
    path: Option<PathBuf>,
    current: ArcSwap<Credentials>,
    /// When the files are looked at again.
    next: Mutex<Instant>,
}

/// How a server is reached now.
#[derive(Clone)]
pub struct Credentials {
    pub url: String,
    pub tls: Arc<ClientConfig>,
    pub bearer: Option<String>,
    /// What these were made from.
    source: Vec<u8>,
}

impl Connection {
    /// The cluster that this process is a pod of.
    ///
    /// # Errors
    /// When it is none, or the pod has no token.
    pub fn in_cluster() -> Result<Self, Unusable> {
        Self::new(None)
    }

    /// What a file says.
    ///
    /// # Errors
    /// When it names no server over TLS, or something in it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Unusable> {
        Self::new(Some(path.to_owned()))
    }

    fn new(path: Option<PathBuf>) -> Result<Self, Unusable> {
        let current = ArcSwap::from_pointee(Credentials::read(path.as_deref())?);
        Ok(Self { path, current, next: Mutex::new(clock::instant() + LIFE) })
    }

    /// How the server is reached now; as before, if the files cannot be used.
    pub fn current(&self) -> Arc<Credentials> {
        self.at(clock::instant())
    }

    fn at(&self, now: Instant) -> Arc<Credentials> {
        let mut next = self.next.lock();
        if now >= *next {
            *next = now + LIFE;
            match Credentials::read(self.path.as_deref()) {
                // Connections are shared by those who have the same settings.
                Ok(read) if read.source == self.current.load().source => {}
                Ok(read) => self.current.store(Arc::new(read)),
                Err(error) => tracing::warn!(%error, "the former settings of a webhook are kept"),
            }
        }
        self.current.load_full()
    }
}

impl Credentials {
    fn read(path: Option<&Path>) -> Result<Self, Unusable> {
        path.map_or_else(Self::in_cluster, Self::load)
    }

    fn in_cluster() -> Result<Self, Unusable> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(host), Some(port)) =
            (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
        else {
            return Err(Unusable("unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined".to_owned()));
        };
        let part = |name: &str| {
            let path = Path::new(ACCOUNT).join(name);
            std::fs::read(&path).map_err(|error| Unusable(format!("{}: {error}", path.display())))
        };
        let authority = part("ca.crt")?;
        let tls =
            tls(Some(authority.clone()), None).map_err(|error| Unusable(error.to_string()))?;
        let token = String::from_utf8_lossy(&part("token")?).trim().to_owned();
        let source = [authority.as_slice(), token.as_bytes()].concat();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("https://{host}:{port}");
        Ok(Self { url, tls: Arc::new(tls), bearer: Some(token), source })
    }

    fn load(path: &Path) -> Result<Self, Unusable> {
        let problem = |why: &dyn std::fmt::Display| Unusable(format!("{}: {why}", path.display()));
        let text = read(path).map_err(|error| problem(&error))?;
        // A parser's own message shows the text around an error.
        let file: File = serde_saphyr::from_str(&text).map_err(|_| problem(&"no kubeconfig"))?;
        let context = named(&file.contexts, &file.current_context);
        let (cluster, user) = match context {
            Some(context) => {
                (named(&file.clusters, &context.cluster), named(&file.users, &context.user))
            }
            None => (None, None),
        };
        let cluster = cluster
            .ok_or_else(|| problem(&"invalid configuration: no configuration has been provided"))?;
        if !cluster.server.starts_with("https://") {
            return Err(problem(&"the server's URL must begin with https://"));
        }
        if cluster.insecure_skip_tls_verify {
            return Err(problem(&"insecure-skip-tls-verify is not supported"));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let part = |data: &Option<String>, file: &Option<PathBuf>| match (data, file) {
            (Some(data), _) => BASE64
                .decode(data.trim())
                .map(Some)
                .map_err(|_| problem(&"data that is not base64")),
            (None, Some(file)) => {
                let read = std::fs::read(folder.join(file));
                read.map(Some).map_err(|error| problem(&format!("{}: {error}", file.display())))
            }
            (None, None) => Ok(None),
        };
        let authority = part(&cluster.certificate_authority_data, &cluster.certificate_authority)?;
        let user = user.unwrap_or_default();
        let certificate = part(&user.client_certificate_data, &user.client_certificate)?;
        let key = part(&user.client_key_data, &user.client_key)?;
        let token = match (&user.token, part(&None, &user.token_file)?) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(bytes)) => Some(String::from_utf8_lossy(&bytes).trim().to_owned()),
            (None, None) => None,
        };
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(problem(
                    &"a client certificate needs its key, and the other way round",
                ));
            }
        };
        let parts = [authority.as_deref(), token.as_deref().map(str::as_bytes)];
        let of_pair = identity.iter().flat_map(|(certificate, key)| [&**certificate, &**key]);
        let mut source = text.clone().into_bytes();
        for part in parts.into_iter().flatten().chain(of_pair) {
            source.extend_from_slice(part);
        }
        let tls = tls(authority, identity).map_err(|error| problem(&error))?;
        Ok(Self { url: cluster.server, tls: Arc::new(tls), bearer: token, source })
    }
}

fn named<T: Clone>(all: &[Named<T>], name: &str) -> Option<T> {
    all.iter().find(|one| one.name == name).map(|one| one.value.clone())
}

fn tls(
    authority: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<ClientConfig, crate::webhook::Failure> {
    let Some((certificate, key)) = identity else {
        return crate::webhook::tls(&authority.unwrap_or_default());
    };
    let mut roots = RootCertStore::empty();
    match &authority {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
        }
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(&key)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhook.yaml");
        let load = |server: &str, more: &str, current: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: '{server}'{more}}}}}]\n\
                 users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: c, context: {{cluster: a, user: u}}}}]\n\
                 current-context: {current}\n"
            );
            std::fs::write(&path, text).unwrap();
            Connection::load(&path)
                .map(|one| (one.current().url.clone(), one.current().bearer.clone()))
                .map_err(|error| error.to_string())
        };
        let found = load("https://h/x", "", "c").unwrap();
        assert_eq!(found, ("https://h/x".to_owned(), Some("t".to_owned())));
        for (server, more, current) in [
            ("http://h", "", "c"),
            ("https://h", ", insecure-skip-tls-verify: true", "c"),
            ("https://h", "", "other"),
            ("https://h", ", certificate-authority-data: '!'", "c"),
            ("https://h", ", certificate-authority: nowhere.pem", "c"),
        ] {
            assert!(load(server, more, current).is_err(), "{server}{more} {current}");
        }
    }

    #[tokio::test]
    async fn what_the_files_say_now_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (path, token) = (folder.path().join("webhook.yaml"), folder.path().join("token"));
        let text = "clusters: [{name: a, cluster: {server: 'https://h'}}]\n\
            users: [{name: u, user: {tokenFile: token}}]\n\
            contexts: [{name: c, context: {cluster: a, user: u}}]\ncurrent-context: c\n";
        std::fs::write(&path, text).unwrap();
        std::fs::write(&token, "one").unwrap();
        let connection = Connection::load(&path).unwrap();
        let start = clock::instant();
        let bearer = |now: Instant| connection.at(now).bearer.clone().unwrap();
        let before = connection.at(start);
        std::fs::write(&token, "two").unwrap();
        assert_eq!(bearer(start), "one");
        assert_eq!(bearer(start + LIFE * 2), "two");
        std::fs::remove_file(&token).unwrap();
        assert_eq!(bearer(start + LIFE * 4), "two");
        std::fs::write(&token, "two").unwrap();
        let after = connection.at(start + LIFE * 6);
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&after, &connection.at(start + LIFE * 8)), "nothing has changed");
    }
}
