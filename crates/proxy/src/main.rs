//! `skiff-proxy`: flags, wiring, shutdown. The work is in the library.

mod config;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use client::events::EventRecorder;
use proxy::apply::Applier;
use proxy::monitor::Monitor;
use proxy::policy::observe::Demand;
use proxy::routes;
use proxy::{announce, inspect, observe, sync, sysctl};
use runtime::health::{self, Health};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Command, Config, Serve};

/// A single loop, and the watches that feed it.
const WORKERS: usize = 1;

fn main() -> ExitCode {
    let config = Config::parse();
    let log_level = config.common.log_level.clone();
    runtime::start::run(&log_level, WORKERS, |shutdown| async move {
        match config.command {
            Some(Command::Cleanup) => cleanup().await,
            None => serve(config.serve, config.common, shutdown).await,
        }
    })
}

async fn serve(
    config: Serve,
    common: runtime::flags::CommonFlags,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let kubeconfig = config.kubeconfig.as_deref().context("--kubeconfig is required")?;
    let client = runtime::connection::connect(kubeconfig, shutdown.clone())?;
    let settings = config.settings()?;
    sysctl::prepare(&settings.families())?;
    let state = Health::new(&["synced"]);
    if let Some(address) = common.health_bind_address {
        health::serve(address, state.clone(), shutdown.clone()).await?;
    }
    let (holds, held) = watch::channel(BTreeSet::new());
    if let Some(path) = &config.inspect_socket {
        let ignored = settings.cluster_dns.clone();
        inspect::serve(path, ignored, held, shutdown.clone())
            .with_context(|| format!("listen on {}", path.display()))?;
    }
    let ready = state.clone();
    tokio::spawn(async move {
        ready.ready().await;
        tracing::info!("ready");
        runtime::notify::ready();
    });
    let demand = Demand::new(None);
    let events = observe::events(&client, &settings.node_name, &demand);
    let monitor = Monitor::open().context("listen for changes to tables and routes")?;
    let (announced, wanted) = watch::channel(announce::Wanted::default());
    let announcer = announce::Settings {
        node_name: settings.node_name.clone(),
        kubelet: config.kubelet_health_address,
        holds,
    };
    let recorder = EventRecorder::new(client.clone(), "kube-proxy", &settings.node_name);
    let record: announce::Record = Box::new(move |about, kind, reason, message| {
        recorder.record(about, kind, reason, message);
    });
    let mut announcer = announce::start(announcer, wanted, record, shutdown.clone())
        .context("start the announcer")?;
    let rules = sync::run(settings, events, demand, monitor, announced, state, shutdown.clone());
    tokio::select! {
        ended = rules => ended.context("listen for changes to tables and routes")?,
        _ = &mut announcer => {
            anyhow::ensure!(shutdown.is_cancelled(), "the announcer has ended");
            return Ok(());
        }
    }
    // It tells the other nodes that they may take over.
    announcer.await.context("the announcer has ended")
}

/// Removes the tables and routes of a proxy in this network namespace.
async fn cleanup() -> anyhow::Result<()> {
    Applier::cleanup()?;
    routes::remove().await?;
    Ok(())
}
