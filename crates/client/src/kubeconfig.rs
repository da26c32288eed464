//! Kubeconfig files: the parts that a connection needs
//! (<https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/>).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// One file, or several merged: the first one that defines something wins.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    current_context: Option<String>,
    clusters: Option<Vec<Named<Cluster>>>,
    contexts: Option<Vec<Named<Context>>>,
    users: Option<Vec<Named<User>>>,
}

/// An entry of one of the three lists.
#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    value: Option<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Context {
    pub cluster: String,
    pub user: String,
    pub namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    pub server: Option<String>,
    pub tls_server_name: Option<String>,
    pub insecure_skip_tls_verify: bool,
    pub certificate_authority: Option<PathBuf>,
    pub certificate_authority_data: Option<String>,
}

/// Credentials; `Debug` does not print them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    pub client_certificate: Option<PathBuf>,
    pub client_certificate_data: Option<String>,
    pub client_key: Option<PathBuf>,
    pub client_key_data: Option<String>,
    pub token: Option<String>,
    #[serde(rename = "tokenFile")]
    pub token_file: Option<PathBuf>,
    pub username: Option<String>,
    pub exec: Option<serde::de::IgnoredAny>,
    pub auth_provider: Option<serde::de::IgnoredAny>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

impl Kubeconfig {
    /// Reads one file; relative paths in it are resolved against its directory.
    ///
    /// # Errors
    /// When it cannot be read or is not a kubeconfig.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong =
            |error: &dyn std::fmt::Display| Error::Config(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        Self::parse(&text, path)
    }

    /// Reads the files of `$KUBECONFIG`, or else `~/.kube/config`. Files of a list that do not
    /// exist are skipped.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and when neither `$KUBECONFIG` nor `$HOME` is set.
    pub fn infer() -> Result<Self, Error> {
        let Some(paths) = listed_paths() else {
            return Self::read(&default_path()?);
        };
        let paths = paths.into_iter().filter(|path| path.exists());
        paths.map(|path| Self::read(&path)).try_fold(Self::default(), |all, one| Ok(all.or(one?)))
    }

    /// # Errors
    /// When `text`, the contents of `path`, is not a kubeconfig.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut config: Self = serde_saphyr::from_str(text)
            .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let clusters =
            config.clusters.iter_mut().flatten().filter_map(|entry| entry.value.as_mut());
        let users = config.users.iter_mut().flatten().filter_map(|entry| entry.value.as_mut());
        let authorities = clusters.map(|cluster| &mut cluster.certificate_authority);
        let files = users.flat_map(|user| {
            [&mut user.client_certificate, &mut user.client_key, &mut user.token_file]
        });
        for file in authorities.chain(files).flatten() {
            *file = folder.join(&*file);
        }
        Ok(config)
    }

    fn or(mut self, other: Self) -> Self {
        self.current_context =
            self.current_context.filter(|name| !name.is_empty()).or(other.current_context);
        self.clusters.get_or_insert_default().extend(other.clusters.into_iter().flatten());
        self.contexts.get_or_insert_default().extend(other.contexts.into_iter().flatten());
        self.users.get_or_insert_default().extend(other.users.into_iter().flatten());
        self
    }

    pub fn current_context(&self) -> Option<&str> {
        self.current_context.as_deref().filter(|name| !name.is_empty())
    }

    pub fn context(&self, name: &str) -> Option<&Context> {
        find(&self.contexts, name)
    }

    pub fn cluster(&self, name: &str) -> Option<&Cluster> {
        find(&self.clusters, name)
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        find(&self.users, name)
    }
}

/// The files that make up the kubeconfig, the first that names something wins: those of
/// `$KUBECONFIG`, or else `~/.kube/config`. They need not exist.
///
/// # Errors
/// When neither `$KUBECONFIG` nor `$HOME` is set.
pub fn paths() -> Result<Vec<PathBuf>, Error> {
    match listed_paths() {
        Some(paths) => Ok(paths),
        None => Ok(vec![default_path()?]),
    }
}

fn listed_paths() -> Option<Vec<PathBuf>> {
    let list = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty())?;
    Some(std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
}

fn default_path() -> Result<PathBuf, Error> {
    let home = std::env::var_os("HOME")
        .ok_or_else(|| Error::Config("neither $KUBECONFIG nor $HOME is set".into()))?;
    Ok(Path::new(&home).join(".kube/config"))
}

fn find<'a, T>(entries: &'a Option<Vec<Named<T>>>, name: &str) -> Option<&'a T> {
    entries.iter().flatten().find(|entry| entry.name == name)?.value.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Kubeconfig {
        Kubeconfig::parse(text, Path::new("/etc/skiff/a.conf")).unwrap()
    }

    #[test]
    fn relative_paths_are_resolved_against_the_files_directory() {
        let config = parse(
            "clusters: [{name: c, cluster: {certificate-authority: ca.crt}}]\n\
             users: [{name: u, user: {client-key: /k, tokenFile: ../t, exec: {command: x}}}]\n\
             contexts: null\n",
        );
        let cluster = config.cluster("c").unwrap();
        assert_eq!(cluster.certificate_authority.as_deref(), Some(Path::new("/etc/skiff/ca.crt")));
        let user = config.user("u").unwrap();
        assert_eq!(user.client_key.as_deref(), Some(Path::new("/k")));
        assert_eq!(user.token_file.as_deref(), Some(Path::new("/etc/skiff/../t")));
        assert!(user.exec.is_some() && user.auth_provider.is_none());
    }

    #[test]
    fn the_first_file_that_defines_something_wins() {
        let first = parse("contexts: [{name: a, context: {cluster: one}}]\n");
        let second = parse(
            "current-context: a\ncontexts: [{name: a, context: {cluster: two}}, {name: b, context: {cluster: two}}]\n",
        );
        let all = first.or(second);
        assert_eq!(all.current_context(), Some("a"));
        assert_eq!(all.context("a").unwrap().cluster, "one");
        assert_eq!(all.context("b").unwrap().cluster, "two");
    }

    #[test]
    fn an_empty_file_is_a_kubeconfig_and_a_list_is_not() {
        assert!(Kubeconfig::parse("- 1\n", Path::new("a")).is_err());
        assert!(parse("").current_context().is_none());
    }
}
