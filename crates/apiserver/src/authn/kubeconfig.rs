//! How a webhook is reached: a file in the format of kubeconfigs, of which the current context counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

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
    users: Vec<Named<Credentials>>,
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
struct Credentials {
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

/// A server and the credentials for it.
#[derive(Clone)]
pub struct Connection {
    pub url: String,
    pub tls: Arc<ClientConfig>,
    pub bearer: Option<String>,
}

impl Connection {
    /// The cluster that this process is a pod of.
    ///
    /// # Errors
    /// When it is none, or the pod has no token.
    pub fn in_cluster() -> Result<Self, Unusable> {
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
        let tls = tls(Some(part("ca.crt")?), None).map_err(|error| Unusable(error.to_string()))?;
        let token = String::from_utf8_lossy(&part("token")?).trim().to_owned();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Self { url: format!("https://{host}:{port}"), tls: Arc::new(tls), bearer: Some(token) })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it names no server over TLS, or something in it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Unusable> {
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
        let tls = tls(authority, identity).map_err(|error| problem(&error))?;
        Ok(Self { url: cluster.server, tls: Arc::new(tls), bearer: token })
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
                .map(|one| (one.url, one.bearer))
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
}
