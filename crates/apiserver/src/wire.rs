//! Builds the server from the flags, its parts in the order of their dependencies.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rpc::incoming::ServerPem;
use rpc::tls::KeyPair;
use store::embedded::{Embedded, EmbeddedConfig};
use store::{ClientIdentity, EtcdConfig, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, policies, webhooks};
use crate::aggregation::{self, Aggregator, Identities, Identity, RequestHeaders};
use crate::allocate::Allocator;
use crate::authn::{Authentication, ServiceAccountTokens, TokenConfig};
use crate::authz::{Authorizers, Rbac};
use crate::bootstrap::{self, endpoints::Advertised};
use crate::cache::Cache;
use crate::component_statuses::Components;
use crate::config::Config;
use crate::core::Core;
use crate::definitions;
use crate::encryption::Encryption;
use crate::flowcontrol::{self, FlowControl};
use crate::inflight::Inflight;
use crate::kubelet::{self, KubeletTls, Kubelets};
use crate::metrics::Metrics;
use crate::paths::StoreProbe;
use crate::pipeline::Pipelines;
use crate::resource_metrics::Sampler;
use crate::scheduler::Schedulers;
use crate::server::{self, CurrentTls, Running, Tls};
use crate::webhook::Webhooks;

/// The most seats that can be divided.
const SEATS_MAX: u32 = 1_000_000;

/// Starts the server and returns once it serves.
///
/// # Errors
/// When a file cannot be read, the store cannot be reached, or the port cannot be bound.
pub async fn start(config: &Config, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let tls = serving_tls(config, &shutdown)?;
    let listener = server::bind(SocketAddr::new(config.bind_address, config.secure_port)).await?;
    let (store, embedded) = open_store(config, &shutdown).await?;
    let metrics = Metrics::default();
    let encryption = encryption(config, &metrics, &shutdown).await?;
    let store = match &encryption {
        Some(encryption) => store.transformed(encryption.clone()),
        None => store,
    };
    let clock = clock::system();
    let advertised = SocketAddr::new(advertised(config)?, listener.local_addr()?.port());
    let admission = Admission::start(&config.admission).context("admission")?;
    let tokens = tokens(config)?;
    let authentication = Authentication::start(config, &shutdown).context("authentication")?;
    let authorizers = Authorizers::start(config, metrics.authorization.clone(), &shutdown)
        .context("authorization")?;
    let kubelet_tls = kubelet_tls(config, &shutdown)?;
    let identities = identities(config, &shutdown)?;
    let flow_control = flow_control(config, &metrics)?;
    let audit = config.audit.start(&metrics.audit, &clock)?;
    let inflight = match &flow_control {
        Some(_) => Inflight::unlimited(),
        None => Inflight::new(config.max_requests_inflight, config.max_mutating_requests_inflight),
    };
    let core = Arc::new_cyclic(|itself| Core {
        cache: Cache::start(store.clone(), config.watch_cache_bytes(), shutdown.clone()),
        allocator: Allocator::new(
            store.clone(),
            config.service_cluster_ip_range,
            config.service_node_port_range,
        ),
        store,
        encryption,
        clock,
        rbac: Rbac::default(),
        authorizers,
        admission,
        aggregator: Aggregator::new(identities, metrics.aggregator.clone()),
        tokens,
        authentication,
        bootstrap_tokens: config.enable_bootstrap_token_auth,
        profiling: config.profiling,
        kubelets: Kubelets::new(kubelet_tls.clone()),
        sampler: Sampler::default(),
        schedulers: Schedulers::new(kubelet_tls),
        webhooks: Webhooks::default(),
        metrics,
        advertised,
        inflight,
        audit,
        flow_control,
        probe: StoreProbe::default(),
        components: Components::new(config),
        itself: itself.clone(),
        shares_store: embedded.is_none() || config.embedded_store_listen.is_some(),
    });
    core.cache.loaded().await;
    bootstrap::reconcile(&core).await.context("cannot write the system's own objects")?;
    bootstrap::authentication::keep(&core, tls.clone(), shutdown.clone())
        .await
        .context("cannot write how extension servers authenticate")?;
    let own = Advertised { address: core.advertised.ip(), port: core.advertised.port() };
    bootstrap::keep(&core, own, embedded.is_some(), shutdown.clone())
        .await
        .context("cannot write the kubernetes Service")?;
    // The first request is authorized by the roles above.
    core.cache.fresh().await.context("cannot read the system's own objects")?;
    webhooks::configuration::keep(&core, &shutdown);
    flowcontrol::configuration::keep(&core, &shutdown);
    policies::compiled::keep(&core, &shutdown);
    Allocator::keep_repaired(&core, shutdown.clone());
    definitions::keep(&core, shutdown.clone());
    aggregation::keep(&core, shutdown.clone()).await.context("cannot register APIServices")?;
    let pipelines = Pipelines::new(&core);
    server::serve(listener, tls, core, pipelines, embedded, shutdown)
}

fn flow_control(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<FlowControl>> {
    if !config.enable_priority_and_fairness {
        return Ok(None);
    }
    let (reads, writes) = (config.max_requests_inflight, config.max_mutating_requests_inflight);
    let total = u32::try_from(reads.saturating_add(writes)).unwrap_or(u32::MAX).min(SEATS_MAX);
    anyhow::ensure!(
        total > 0,
        "invalid configuration: MaxRequestsInFlight={reads} and MaxMutatingRequestsInFlight={writes}; they must add up to something positive"
    );
    Ok(Some(FlowControl::new(total, metrics.flow_control.clone())))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Who may speak for others.
fn proxies(config: &Config) -> Option<(PathBuf, RequestHeaders)> {
    let path = config.requestheader_client_ca_file.clone()?;
    let names = |names: &[String]| -> Vec<String> {
        let trimmed = names.iter().map(|name| name.trim().to_owned());
        trimmed.filter(|name| !name.is_empty()).collect()
    };
    let headers = RequestHeaders {
        allowed_names: names(&config.requestheader_allowed_names),
        username: names(&config.requestheader_username_headers),
        uid: names(&config.requestheader_uid_headers),
        group: names(&config.requestheader_group_headers),
        extra_prefixes: names(&config.requestheader_extra_headers_prefix),
    };
    Some((path, headers))
}

/// What this server proves to extension servers that it is, as its files are now.
fn identities(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<Option<Identities>> {
    let (Some(certificate), Some(key)) =
        (config.proxy_client_cert_file.clone(), config.proxy_client_key_file.clone())
    else {
        return Ok(None);
    };
    let paths = [certificate.clone(), key.clone()];
    let identity = move || {
        Identity::new(&read(&certificate)?, &read(&key)?)
            .context("cannot use the certificate of --proxy-client-cert-file")
    };
    runtime::files::follow(&paths, identity, shutdown.clone()).map(Some)
}

async fn encryption(
    config: &Config,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Arc<Encryption>>> {
    let reloads = config.encryption_provider_config_automatic_reload;
    let Some(path) = config.encryption_provider_config.clone() else {
        if reloads {
            anyhow::bail!(
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
            );
        }
        return Ok(None);
    };
    let metrics = metrics.encryption.clone();
    let started = Encryption::start(path, reloads, metrics, shutdown).await;
    started.map(Some).context("--encryption-provider-config")
}

async fn open_store(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Store, Option<Embedded>)> {
    if let Some(directory) = &config.embedded_store {
        let embedded = Embedded::open(EmbeddedConfig::new(directory)).await?;
        if let Some(address) = config.embedded_store_listen {
            serve_store(config, &embedded, address, shutdown.clone()).await?;
        }
        return Ok((embedded.store().await?, Some(embedded)));
    }
    if config.etcd_servers.is_empty() {
        anyhow::bail!("--etcd-servers or --embedded-store is required");
    }
    let mut settings = etcd_settings(config, shutdown)?;
    let first = settings.borrow_and_update().clone();
    let store = Store::connect(&first).await.context("cannot connect to etcd")?;
    let (own, stop) = (store.clone(), shutdown.clone());
    let following = async move {
        while settings.changed().await.is_ok() {
            let now = settings.borrow_and_update().clone();
            if let Err(error) = own.reconnect(&now).await {
                tracing::error!(%error, "the new certificates for etcd cannot be used");
            }
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(following).await });
    Ok((store, None))
}

/// Where etcd is, and what this server proves to it that it is, as its files say now.
fn etcd_settings(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<watch::Receiver<Arc<EtcdConfig>>> {
    let endpoints = config.etcd_servers.clone();
    let authority = config.etcd_cafile.clone();
    let pair = config.etcd_certfile.clone().zip(config.etcd_keyfile.clone());
    let of_pair = pair.clone().into_iter().flat_map(|(certificate, key)| [certificate, key]);
    let paths: Vec<_> = of_pair.chain(authority.clone()).collect();
    let settings = move || {
        let identity = pair.as_ref().map(|(certificate, key)| -> anyhow::Result<_> {
            let pair = KeyPair { certificate_pem: read(certificate)?, key_pem: read(key)? };
            // Of a pair, one may be new and the other old still.
            pair.check()?;
            let KeyPair { certificate_pem, key_pem } = pair;
            Ok(ClientIdentity { certificate_pem, key_pem })
        });
        let ca_pem = authority.as_deref().map(read).transpose()?;
        let identity = identity.transpose()?;
        Ok(EtcdConfig { endpoints: endpoints.clone(), ca_pem, identity })
    };
    runtime::files::follow(&paths, settings, shutdown.clone())
}

/// Serves the embedded store on a socket. Its clients can read and write everything, so they must
/// present a certificate of the store's own authority, not of the cluster's.
async fn serve_store(
    config: &Config,
    embedded: &Embedded,
    address: SocketAddr,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (Some(authority), Some(certificate), Some(key)) =
        (&config.etcd_cafile, &config.etcd_certfile, &config.etcd_keyfile)
    else {
        anyhow::bail!(
            "--embedded-store-listen needs --etcd-cafile, --etcd-certfile and --etcd-keyfile"
        );
    };
    let pair = KeyPair { certificate_pem: read(certificate)?, key_pem: read(key)? };
    let tls = rpc::tls::server(&pair, &read(authority)?);
    let listener = server::bind(address).await?;
    let embedded = embedded.clone();
    tokio::spawn(async move {
        let ended = shutdown.cancelled_owned();
        if let Err(error) = embedded.serve_tcp(listener, Some(tls), ended).await {
            tracing::error!(%error, "the embedded store's socket failed");
        }
    });
    Ok(())
}

fn tokens(config: &Config) -> anyhow::Result<Option<ServiceAccountTokens>> {
    if config.service_account_signing_key_file.is_none()
        && config.service_account_key_file.is_empty()
    {
        return Ok(None);
    }
    let keys: Result<Vec<_>, _> =
        config.service_account_key_file.iter().map(|path| read(path)).collect();
    let tokens = ServiceAccountTokens::new(&TokenConfig {
        issuer: config.service_account_issuer.clone(),
        signing_key_pem: config
            .service_account_signing_key_file
            .as_deref()
            .map(read)
            .transpose()?,
        public_keys_pem: keys?,
    })?;
    Ok(Some(tokens))
}

/// The certificates of the port, which may be replaced while it serves.
fn serving_tls(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<CurrentTls> {
    let (certificate, key, authority) = (
        config.tls_cert_file.clone(),
        config.tls_private_key_file.clone(),
        config.client_ca_file.clone(),
    );
    let proxies = proxies(config);
    let of_proxies = proxies.clone().map(|(path, _)| path);
    let paths: Vec<_> = [certificate.clone(), key.clone(), authority.clone()]
        .into_iter()
        .chain(of_proxies)
        .collect();
    let tls = move || {
        let pair = KeyPair { certificate_pem: read(&certificate)?, key_pem: read(&key)? };
        let proxies =
            proxies.as_ref().map(|(path, headers)| anyhow::Ok((read(path)?, headers.clone())));
        let pem = ServerPem { pair, client_ca_pem: read(&authority)? };
        Tls::new(pem, proxies.transpose()?)
    };
    runtime::files::follow(&paths, tls, shutdown.clone())
}

fn kubelet_tls(
    config: &Config,
    shutdown: &CancellationToken,
) -> anyhow::Result<kubelet::CurrentTls> {
    let pair = config.kubelet_client_certificate.clone().zip(config.kubelet_client_key.clone());
    let authority = config.kubelet_certificate_authority.clone();
    let of_pair = pair.clone().into_iter().flat_map(|(certificate, key)| [certificate, key]);
    let paths: Vec<_> = of_pair.chain(authority.clone()).collect();
    let tls = move || {
        let pair = pair.as_ref().map(|(certificate, key)| -> anyhow::Result<_> {
            Ok(KeyPair { certificate_pem: read(certificate)?, key_pem: read(key)? })
        });
        let ca_pem = authority.as_deref().map(read).transpose()?;
        Ok(KubeletTls { ca_pem, key_pair: pair.transpose()? })
    };
    runtime::files::follow(&paths, tls, shutdown.clone())
}

/// The address at which others reach this machine: the configured one, or that of the default
/// route.
fn advertised(config: &Config) -> anyhow::Result<IpAddr> {
    if let Some(address) = config.advertise_address {
        return Ok(address);
    }
    if !config.bind_address.is_unspecified() {
        return Ok(config.bind_address);
    }
    // Nothing is sent: connecting a UDP socket only performs the route lookup.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    Ok(routed.context("--advertise-address is required: this machine has no default route")?.ip())
}
