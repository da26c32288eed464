//! How a webhook is reached: a file in the format of kubeconfigs, of which the current context counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use parking_lot::Mutex;
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde::de::IgnoredAny;
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
    users: Vec<Named<User>>,
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
    tls_server_name: Option<String>,
    #[serde(rename = "proxy-url")]
    proxy: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
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
pub struct Source {
    /// `None`: the cluster that this process is a pod of.
    path: Option<PathBuf>,
    /// Whether the server has to be verified, since its answers decide something.
    verified: bool,
    current: ArcSwap<Connection>,
    /// When the files are looked at again.
    next: Mutex<Instant>,
}

impl Source {
    /// The cluster that this process is a pod of.
    ///
    /// # Errors
    /// When it is none, or the pod has no token.
    pub fn in_cluster() -> Result<Self, Unusable> {
        Self::new(None, true)
    }

    /// A file of a webhook whose answer decides something: it has to be verified.
    ///
    /// # Errors
    /// When it names no server over TLS, or something in it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Unusable> {
        Self::new(Some(path.to_owned()), true)
    }

    /// A file of a server that may be one that is not verified.
    ///
    /// # Errors
    /// When it names no server, asks for what there is not, or something in it cannot be read.
    pub fn load_any(path: &Path) -> Result<Self, Unusable> {
        Self::new(Some(path.to_owned()), false)
    }

    fn new(path: Option<PathBuf>, verified: bool) -> Result<Self, Unusable> {
        let current = ArcSwap::from_pointee(Connection::of(path.as_deref(), verified)?);
        Ok(Self { path, verified, current, next: Mutex::new(clock::instant() + LIFE) })
    }

    /// How the server is reached now; as before, if the files cannot be used. It is another `Arc` only
    /// if they say something else.
    pub fn current(&self) -> Arc<Connection> {
        self.at(clock::instant())
    }

    fn at(&self, now: Instant) -> Arc<Connection> {
        let mut next = self.next.lock();
        if now >= *next {
            *next = now + LIFE;
            match Connection::of(self.path.as_deref(), self.verified) {
                Ok(read) if read.contents == self.current.load().contents => {}
                Ok(read) => self.current.store(Arc::new(read)),
                Err(error) => tracing::warn!(%error, "the former settings of a webhook are kept"),
            }
        }
        self.current.load_full()
    }
}

/// A server and the credentials for it, beside its client certificate.
#[derive(Clone)]
pub struct Connection {
    pub url: String,
    /// `None`: it is reached without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name that its certificate must have, if not that of its URL.
    pub server_name: Option<String>,
    pub credentials: Credentials,
    /// Of the files that this was made from, except that of the token.
    contents: Vec<u8>,
}

/// What a request proves in its `Authorization`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    token: Option<String>,
    /// Read for each request: tokens of accounts are replaced before they expire.
    token_file: Option<PathBuf>,
    basic: Option<(String, String)>,
}

impl Credentials {
    /// The header's value, if there is one.
    ///
    /// # Errors
    /// When the file of the token cannot be read, and there is no other token.
    pub async fn authorization(&self) -> std::io::Result<Option<HeaderValue>> {
        let mut token = self.token.clone();
        if let Some(file) = &self.token_file {
            match tokio::fs::read_to_string(file).await {
                Ok(text) => token = Some(text.trim().to_owned()),
                Err(_) if token.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        let value = match (token, &self.basic) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, Some((name, password))) => {
                format!("Basic {}", BASE64.encode(format!("{name}:{password}")))
            }
            (None, None) => return Ok(None),
        };
        let mut value = HeaderValue::try_from(value).map_err(std::io::Error::other)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Connection {
    fn of(path: Option<&Path>, verified: bool) -> Result<Self, Unusable> {
        path.map_or_else(Self::in_cluster, |path| Self::read(path, verified))
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
        let contents = authority.clone();
        let tls = tls(Some(authority), None).map_err(|error| Unusable(error.to_string()))?;
        part("token")?;
        let token_file = Some(Path::new(ACCOUNT).join("token"));
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Self {
            url: format!("https://{host}:{port}"),
            tls: Some(Arc::new(tls)),
            server_name: None,
            credentials: Credentials { token_file, ..Credentials::default() },
            contents,
        })
    }

    fn read(path: &Path, verified: bool) -> Result<Self, Unusable> {
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
        let plain = cluster.server.starts_with("http://");
        if !cluster.server.starts_with("https://") && (verified || !plain) {
            return Err(problem(&"the server's URL must begin with https://"));
        }
        if cluster.insecure_skip_tls_verify && verified {
            return Err(problem(&"insecure-skip-tls-verify is not supported"));
        }
        let user = user.unwrap_or_default();
        for (is_there, name) in [
            (cluster.proxy.is_some(), "proxy-url"),
            (user.exec.is_some(), "exec"),
            (user.auth_provider.is_some(), "auth-provider"),
            (user.impersonate.is_some(), "as"),
        ] {
            if is_there {
                return Err(problem(&format!("{name} is not supported")));
            }
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
        let certificate = part(&user.client_certificate_data, &user.client_certificate)?;
        let key = part(&user.client_key_data, &user.client_key)?;
        let token = user.token.filter(|token| !token.is_empty());
        let token_file = user.token_file.map(|file| folder.join(file));
        if token.is_none() {
            part(&None, &token_file)?;
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(problem(
                    &"a client certificate needs its key, and the other way round",
                ));
            }
        };
        if cluster.insecure_skip_tls_verify && authority.is_some() {
            return Err(problem(
                &"specifying a root certificates file with the insecure flag is not allowed",
            ));
        }
        let of_pair = identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let mut contents = text.clone().into_bytes();
        authority.iter().chain(of_pair).for_each(|part| contents.extend_from_slice(part));
        let settings = if cluster.insecure_skip_tls_verify {
            crate::connect::unverified().map_err(|error| problem(&error)).and_then(|builder| {
                with_identity(builder, identity).map_err(|error| problem(&error))
            })
        } else {
            tls(authority, identity).map_err(|error| problem(&error))
        };
        let tls = if plain { None } else { Some(Arc::new(settings?)) };
        let basic = user.username.map(|name| (name, user.password.unwrap_or_default()));
        Ok(Self {
            url: cluster.server,
            tls,
            server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            credentials: Credentials { token, token_file, basic },
            contents,
        })
    }
}

fn named<T: Clone>(all: &[Named<T>], name: &str) -> Option<T> {
    all.iter().find(|one| one.name == name).map(|one| one.value.clone())
}

/// Settings that verify a server by these authorities, or by the machine's.
fn tls(
    authority: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<ClientConfig, crate::webhook::Failure> {
    let roots = crate::webhook::roots(&authority.unwrap_or_default())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    with_identity(builder, identity)
}

fn with_identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<ClientConfig, crate::webhook::Failure> {
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
            builder.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(&key)?)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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
            let read = |read: fn(&Path) -> Result<Source, Unusable>| {
                read(&path).map(|one| one.current()).map_err(|error| error.to_string())
            };
            (read(Source::load), read(Source::load_any))
        };
        let (Ok(found), Ok(_)) = load("https://h/x", ", tls-server-name: n", "c") else { panic!() };
        assert_eq!((found.url.as_str(), found.server_name.as_deref()), ("https://h/x", Some("n")));
        assert_eq!(found.credentials.token.as_deref(), Some("t"));
        // What only those may do whose answer decides nothing.
        for (server, more) in [("http://h", ""), ("https://h", ", insecure-skip-tls-verify: true")]
        {
            let (verified, any) = load(server, more, "c");
            assert!(verified.is_err() && any.is_ok(), "{server}{more}");
            assert_eq!(any.unwrap().tls.is_some(), !more.is_empty());
        }
        for (server, more, current) in [
            ("ftp://h", "", "c"),
            ("https://h", ", proxy-url: 'http://proxy'", "c"),
            ("https://h", "", "other"),
            ("https://h", ", certificate-authority-data: '!'", "c"),
            ("https://h", ", certificate-authority: nowhere.pem", "c"),
        ] {
            let (verified, any) = load(server, more, current);
            assert!(verified.is_err() && any.is_err(), "{server}{more} {current}");
        }
    }

    #[tokio::test]
    async fn tokens_are_read_again_and_passwords_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhook.yaml");
        let load = |user: &str| {
            let text = format!(
                "clusters: [{{name: a, cluster: {{server: 'https://h'}}}}]\nusers: [{{name: u, user: {user}}}]\n\
                 contexts: [{{name: c, context: {{cluster: a, user: u}}}}]\ncurrent-context: c\n"
            );
            std::fs::write(&path, text).unwrap();
            Source::load_any(&path).map(|one| one.current()).map_err(|error| error.to_string())
        };
        std::fs::write(folder.path().join("token"), "one\n").unwrap();
        let credentials = load("{tokenFile: token}").unwrap().credentials.clone();
        let sent = || async { credentials.authorization().await.unwrap().unwrap() };
        assert_eq!(sent().await, "Bearer one");
        std::fs::write(folder.path().join("token"), "two").unwrap();
        assert_eq!(sent().await, "Bearer two");
        let basic = load("{username: u, password: p}").unwrap().credentials.clone();
        assert_eq!(basic.authorization().await.unwrap().unwrap(), "Basic dTpw");
        let fixed = load("{token: t}").unwrap().credentials.clone();
        assert_eq!(fixed.authorization().await.unwrap().unwrap(), "Bearer t");
        for user in
            ["{exec: {command: x}}", "{auth-provider: {name: x}}", "{as: bob}", "{tokenFile: none}"]
        {
            assert!(load(user).is_err(), "{user}");
        }
    }

    #[tokio::test]
    async fn what_the_files_say_now_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhook.yaml");
        let write = |server: &str| {
            let text = format!(
                "clusters: [{{name: a, cluster: {{server: '{server}'}}}}]\n\
                contexts: [{{name: c, context: {{cluster: a}}}}]\ncurrent-context: c\n"
            );
            std::fs::write(&path, text).unwrap();
        };
        write("https://one");
        let source = Source::load(&path).unwrap();
        let start = clock::instant();
        let first = source.at(start);
        assert!(Arc::ptr_eq(&first, &source.at(start + LIFE * 2)));
        write("https://two");
        assert_eq!(source.at(start + LIFE * 2).url, "https://one");
        assert_eq!(source.at(start + LIFE * 4).url, "https://two");
        write("ftp://nothing");
        assert_eq!(source.at(start + LIFE * 6).url, "https://two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.at(start + LIFE * 8).url, "https://two");
    }
}
