//! The flags of every verb that describe the connection.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use client::{Client, Config};
use parking_lot::Mutex;

/// Which server, which user, which namespace.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The kubeconfig file; default: $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The kubeconfig context
    #[arg(long, global = true)]
    pub context: Option<String>,

    /// The namespace
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,

    /// The apiserver's address, instead of the kubeconfig's
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,

    /// A bearer token, instead of the kubeconfig's credentials
    #[arg(long, global = true)]
    pub token: Option<String>,

    /// Impersonate this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,

    /// Impersonate a member of this group, repeatable
    #[arg(long, global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,

    /// Impersonate the user with this uid
    #[arg(long, global = true, value_name = "UID")]
    pub as_uid: Option<String>,
}

impl Connection {
    /// The kubeconfig, overridden by the flags.
    pub fn config(&self) -> anyhow::Result<Config> {
        let context = self.context.as_deref();
        let mut config = match &self.kubeconfig {
            Some(path) if !path.exists() => {
                bail!("stat {}: no such file or directory", path.display())
            }
            Some(path) => Config::from_file(path, context)?,
            None => Config::infer(context)?,
        };
        if let Some(namespace) = self.namespace.as_ref().filter(|name| !name.is_empty()) {
            config.namespace.clone_from(namespace);
        }
        if let Some(server) = &self.server {
            config.dial.url.clone_from(server);
        }
        if let Some(token) = &self.token {
            config.token = Some(token.clone());
            config.token_file = None;
            config.dial.key_pair = None;
        }
        Ok(config)
    }

    /// The impersonation headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        headers.extend(self.as_user.clone().map(|user| ("impersonate-user", user)));
        headers.extend(self.as_group.iter().map(|group| ("impersonate-group", group.clone())));
        headers.extend(self.as_uid.clone().map(|uid| ("impersonate-uid", uid)));
        headers
    }

    /// A client; its default namespace is the one that the flags name.
    pub fn client(&self) -> anyhow::Result<Client> {
        let client = Client::impersonating(&self.config()?, &self.headers())?;
        Ok(client.with_warnings(show_warning))
    }
}

/// Prints a warning of the server once, on standard error, as kubectl does.
fn show_warning(text: &str) {
    static SHOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SHOWN.lock().insert(text.to_owned()) {
        eprintln!("Warning: {text}");
    }
}
