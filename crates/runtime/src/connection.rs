//! The connection of a component to the apiserver.

use std::path::Path;

use anyhow::Context;
use client::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::files;

/// A client with the credentials of a kubeconfig. When the kubeconfig or a file that it names is
/// replaced, connections are made anew with what is there then.
///
/// # Errors
/// When a file cannot be read, or cannot be used.
pub fn connect(kubeconfig: &Path, shutdown: CancellationToken) -> anyhow::Result<Client> {
    let config = Config::from_file(kubeconfig, None)?;
    let paths = Config::files(kubeconfig)?;
    let path = kubeconfig.to_owned();
    let read = move || {
        let dial = Config::from_file(&path, None)?.dial;
        rpc::live::check(&dial)?;
        Ok(dial)
    };
    let dials = files::follow(&paths, read, shutdown).context("--kubeconfig")?;
    Ok(Client::following(&config, dials)?)
}
