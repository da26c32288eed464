//! The node's certificates: what the kubelet proves itself with to the apiserver and to those who
//! connect to it. They are requested from the cluster, and written to files that whoever uses them
//! follows, so that a new one is in force without a restart.

mod bootstrap;
mod request;
pub mod rotation;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use client::{Client, Config};
use jiff::Timestamp;
use rpc::incoming::ServerPem;
use rpc::tls::KeyPair;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Flags;
use crate::volume::mount::make_directory;
use crate::wire::read_pem;
pub use store::Store;

/// What a certificate is for: the name of its files.
pub const CLIENT: &str = "kubelet-client";
pub const SERVER: &str = "kubelet-server";

/// Mode of the directory of keys.
const PRIVATE_MODE: u32 = 0o700;

/// The certificates that the kubelet has been issued.
pub fn store(flags: &Flags, name: &'static str) -> Store {
    Store::new(flags.certificates(), name)
}

/// From when to when a certificate in PEM is valid.
pub fn validity(pair: &KeyPair) -> Option<(Timestamp, Timestamp)> {
    let mut blocks = api::pem::blocks(&pair.certificate_pem);
    let block = blocks.find(|block| block.label == api::certificates::CERTIFICATE_LABEL)?;
    let (_, certificate) = X509Certificate::from_der(&block.der).ok()?;
    let validity = certificate.validity();
    let at = |time: i64| Timestamp::from_second(time).ok();
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

/// The newest of two that is valid now; of none, the newest.
fn preferred(one: Option<KeyPair>, other: Option<KeyPair>, now: Timestamp) -> Option<KeyPair> {
    let rank =
        |pair: &KeyPair| validity(pair).map(|(from, until)| ((from..until).contains(&now), from));
    one.into_iter().chain(other).max_by_key(rank)
}

/// Connections to the apiserver with the newest certificate there is: the kubeconfig's, or one that
/// was issued since; a node that has none asks for its first one here. The second connection is for
/// watches of single objects: they are many and long-lived, and must not use up the streams of the
/// first.
///
/// # Errors
/// When the kubeconfig cannot be read, or has no certificate that can be used.
pub async fn connect(flags: &Flags, shutdown: &CancellationToken) -> anyhow::Result<[Client; 2]> {
    make_directory(&flags.certificates(), PRIVATE_MODE)?;
    bootstrap::ensure(flags, shutdown).await?;
    let config = Config::from_file(&flags.kubeconfig, None).context("read --kubeconfig")?;
    let store = store(flags, CLIENT);
    let mut paths = Config::files(&flags.kubeconfig)?;
    paths.extend(store.exists().then(|| store.current_path()));
    let kubeconfig = flags.kubeconfig.clone();
    let dial = move || {
        let mut dial = Config::from_file(&kubeconfig, None)?.dial;
        dial.key_pair = preferred(store.current(), dial.key_pair, clock::now());
        rpc::live::check(&dial)?;
        Ok(dial)
    };
    let dials = runtime::files::follow(&paths, dial, shutdown.clone())?;
    Ok([Client::following(&config, dials.clone())?, Client::following(&config, dials)?])
}

/// The certificate that the kubelet presents to the apiserver now.
pub fn client_pair(flags: &Flags) -> Option<KeyPair> {
    let configured = Config::from_file(&flags.kubeconfig, None).ok()?.dial.key_pair;
    preferred(store(flags, CLIENT).current(), configured, clock::now())
}

/// The certificate that the kubelet serves with now; `None` if it has signed it itself.
pub fn serving_pair(flags: &Flags) -> Option<KeyPair> {
    let given = flags.tls_cert_file.as_ref().zip(flags.tls_private_key_file.as_ref());
    let given = given.and_then(|(certificate, key)| {
        let (certificate_pem, key_pem) =
            (std::fs::read(certificate).ok()?, std::fs::read(key).ok()?);
        Some(KeyPair { certificate_pem, key_pem })
    });
    preferred(store(flags, SERVER).current(), given, clock::now())
}

/// What the kubelet serves with: the newest of what was issued to it and what it was given, or a
/// certificate that nobody vouches for.
///
/// # Errors
/// When a file cannot be read or used.
pub fn serving(
    flags: &Flags,
    shutdown: &CancellationToken,
) -> anyhow::Result<watch::Receiver<Arc<ServerPem>>> {
    let store = store(flags, SERVER);
    let own = if flags.tls_cert_file.is_none() { Some(self_signed(flags)?) } else { None };
    let given = flags.tls_cert_file.clone().zip(flags.tls_private_key_file.clone());
    let authority = flags.client_ca_file.clone();
    let mut paths: Vec<PathBuf> = vec![authority.clone()];
    paths.extend(given.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
    paths.extend(store.exists().then(|| store.current_path()));
    let pem = move || {
        let given = given.as_ref().map(|(certificate, key)| -> anyhow::Result<_> {
            Ok(KeyPair {
                certificate_pem: read_pem(certificate, "--tls-cert-file")?,
                key_pem: read_pem(key, "--tls-private-key-file")?,
            })
        });
        let given = given.transpose()?;
        let issued = preferred(store.current(), given, clock::now());
        let pair = issued.or_else(|| own.clone()).context("there is no serving certificate")?;
        let client_ca_pem = read_pem(&authority, "--client-ca-file")?;
        let pem = ServerPem { pair, client_ca_pem };
        pem.check()?;
        Ok(pem)
    };
    runtime::files::follow(&paths, pem, shutdown.clone())
}

fn self_signed(flags: &Flags) -> anyhow::Result<KeyPair> {
    let names = vec![flags.node_name.clone(), flags.node_ip.to_string()];
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(names)?.self_signed(&key)?;
    Ok(KeyPair {
        certificate_pem: certificate.pem().into_bytes(),
        key_pem: key.serialize_pem().into_bytes(),
    })
}
