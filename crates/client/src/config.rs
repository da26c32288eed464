//! The apiserver's address and the credentials, from a kubeconfig.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rpc::tls::{Dial, KeyPair};

use crate::Error;
use crate::kubeconfig::{Cluster, Kubeconfig, User};

/// Everything a connection needs.
#[derive(Clone, Debug)]
pub struct Config {
    pub dial: Dial,
    pub token: Option<String>,
    /// Where the token is, if it may change.
    pub token_file: Option<PathBuf>,
    pub namespace: String,
}

impl Config {
    /// From one kubeconfig file; `None`: its current context.
    ///
    /// # Errors
    /// When a file cannot be read, or the kubeconfig uses something that Skiff does not support.
    pub fn from_file(path: &Path, context: Option<&str>) -> Result<Self, Error> {
        Self::from_kubeconfig(&Kubeconfig::read(path)?, context)
    }

    /// The files that [`from_file`](Self::from_file) reads for the current context.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
        let kubeconfig = Kubeconfig::read(path)?;
        let context = kubeconfig.current_context().and_then(|name| kubeconfig.context(name));
        let cluster = context.and_then(|context| kubeconfig.cluster(&context.cluster));
        let user = context.and_then(|context| kubeconfig.user(&context.user));
        let authority = cluster.and_then(|cluster| cluster.certificate_authority.clone());
        let pair = user.map(|user| [user.client_certificate.clone(), user.client_key.clone()]);
        let named = authority.into_iter().chain(pair.into_iter().flatten().flatten());
        Ok(std::iter::once(path.to_owned()).chain(named).collect())
    }

    /// From `$KUBECONFIG` (a list of files, merged) or `~/.kube/config`.
    ///
    /// # Errors
    /// As for [`from_file`](Self::from_file).
    pub fn infer(context: Option<&str>) -> Result<Self, Error> {
        Self::from_kubeconfig(&Kubeconfig::infer()?, context)
    }

    fn from_kubeconfig(kubeconfig: &Kubeconfig, context: Option<&str>) -> Result<Self, Error> {
        let wrong = |text: String| Error::Config(text);
        let name = context
            .or(kubeconfig.current_context())
            .ok_or_else(|| wrong("no context is given and there is no current-context".into()))?;
        let context = kubeconfig
            .context(name)
            .ok_or_else(|| wrong(format!("context {name:?} does not exist")))?;
        let cluster = kubeconfig
            .cluster(&context.cluster)
            .ok_or_else(|| wrong(format!("cluster {:?} does not exist", context.cluster)))?;
        let anonymous = User::default();
        let user = match context.user.as_str() {
            "" => &anonymous,
            user => kubeconfig
                .user(user)
                .ok_or_else(|| wrong(format!("user {user:?} does not exist")))?,
        };
        Ok(Self {
            dial: dial(cluster, user)?,
            token: token(user)?,
            token_file: user.token_file.clone().filter(|_| user.token.is_none()),
            namespace: context.namespace.clone().unwrap_or_else(|| "default".into()),
        })
    }
}

fn dial(cluster: &Cluster, user: &User) -> Result<Dial, Error> {
    let url =
        cluster.server.clone().ok_or_else(|| Error::Config("the cluster has no server".into()))?;
    if cluster.insecure_skip_tls_verify {
        return Err(Error::Config(
            "insecure-skip-tls-verify is not supported: give the cluster's certificate-authority"
                .into(),
        ));
    }
    if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() {
        return Err(Error::Config(
            "only client certificates and tokens are supported as credentials".into(),
        ));
    }
    let ca_pem = pem(
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
    )?;
    let certificate_pem =
        pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
    let key_pem = pem(user.client_key_data.as_deref(), user.client_key.as_deref())?;
    let key_pair = certificate_pem
        .zip(key_pem)
        .map(|(certificate_pem, key_pem)| KeyPair { certificate_pem, key_pem });
    Ok(Dial { url, ca_pem, key_pair, server_name: cluster.tls_server_name.clone() })
}

/// Inline base64 data, or the contents of a file.
fn pem(data: Option<&str>, file: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    match (data, file) {
        (Some(data), _) => BASE64
            .decode(data)
            .map(Some)
            .map_err(|error| Error::Config(format!("invalid base64 data: {error}"))),
        (None, Some(file)) => read(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn token(user: &User) -> Result<Option<String>, Error> {
    if let Some(token) = &user.token {
        return Ok(Some(token.clone()));
    }
    let Some(file) = &user.token_file else {
        return Ok(None);
    };
    token_in(file).map(Some)
}

/// The token in a file.
///
/// # Errors
/// When it cannot be read, or is empty.
pub(crate) fn token_in(file: &Path) -> Result<String, Error> {
    let problem = |what: &str| Error::Config(format!("{}: {what}", file.display()));
    let text = String::from_utf8(read(file)?).map_err(|_| problem("not text"))?;
    let text = text.trim();
    if text.is_empty() { Err(problem("no token")) } else { Ok(text.to_owned()) }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| Error::Config(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: &str) -> Kubeconfig {
        let text = format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u, namespace: n}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://h:1', certificate-authority-data: QQ==}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        );
        Kubeconfig::parse(&text, Path::new("/etc/a.conf")).unwrap()
    }

    #[test]
    fn a_context_becomes_a_connection() {
        let config = Config::from_kubeconfig(
            &kubeconfig("{token: t, client-certificate-data: Qg==, client-key-data: Qw==}"),
            None,
        )
        .unwrap();
        assert_eq!((config.dial.url.as_str(), config.namespace.as_str()), ("https://h:1", "n"));
        assert_eq!(config.dial.ca_pem.as_deref(), Some(&b"A"[..]));
        assert_eq!(config.dial.key_pair.unwrap().key_pem, b"C");
        assert_eq!(config.token.as_deref(), Some("t"));
    }

    #[test]
    fn errors_name_what_is_missing() {
        let error = Config::from_kubeconfig(&kubeconfig("{}"), Some("b")).unwrap_err();
        assert_eq!(error.to_string(), "kubeconfig: context \"b\" does not exist");
        let error =
            Config::from_kubeconfig(&kubeconfig("{username: x, password: y}"), None).unwrap_err();
        assert!(error.to_string().contains("only client certificates and tokens"));
    }
}
