//! `skiff-dns`: flags, wiring, shutdown. The work is in the library.

mod config;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use clap::Parser;
use dns::address::Addresses;
use dns::clients::Clients;
use dns::forward::Forwarder;
use dns::handler::Handler;
use dns::observe;
use dns::records::Records;
use dns::tcp;
use dns::zone::Zone;
use hickory_server::Server;
use runtime::health::{self, Health};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// A query takes microseconds.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let config = Config::parse();
    // The server library logs every query at info level.
    let log_level = format!("hickory_server=warn,{}", config.common.log_level);
    runtime::start::run(&log_level, WORKERS, |shutdown| serve(config, shutdown))
}

async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = runtime::connection::connect(&config.kubeconfig, shutdown.clone())?;
    let clock = clock::system();
    let upstreams = config.upstreams(clock.clone())?;
    if upstreams.current().is_empty() {
        tracing::warn!("no upstream server: only the cluster's own names can be resolved");
    }
    let zone =
        Zone::new(&config.cluster_domain, config.listen.clone()).context("--cluster-domain")?;
    let now_s = clock.now().as_second();
    // Serial numbers are compared modulo 2^32.
    let serial = u32::try_from(now_s.rem_euclid(1 << 32)).context("the clock")?;
    let records = Arc::new(ArcSwap::from_pointee(Records::starting_at(serial)));

    let state = Health::new(&["synced"]);
    if let Some(address) = config.common.health_bind_address {
        health::serve(address, state.clone(), shutdown.clone()).await?;
    }
    tokio::spawn(observe::run(observe::events(&client), records.clone(), state.clone()));
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        // Until then, existing names would be reported as missing.
        () = state.ready() => {}
    }

    let addresses = Addresses::add(&config.listen).await?;
    let clients = Clients::new(addresses.netlink().clone());
    let handler = Handler::new(zone, records, Forwarder::new(upstreams), clients);
    let mut server = Server::new(handler.clone());
    for ip in &config.listen {
        let at = (*ip, config.port);
        let listening = || format!("listen on {ip}, port {}", config.port);
        server.register_socket(UdpSocket::bind(at).await.with_context(listening)?);
        let listener = TcpListener::bind(at).await.with_context(listening)?;
        tokio::spawn(tcp::serve(listener, handler.clone(), shutdown.clone()));
    }
    tracing::info!(listen = ?config.listen, "ready");
    runtime::notify::ready();
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = server.block_until_done() => ended,
    };
    addresses.remove().await?;
    ended.context("the server failed")
}
