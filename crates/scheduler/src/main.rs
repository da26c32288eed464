//! `skiff-scheduler`: flags, wiring, shutdown. The work is in the library.

mod config;

use std::process::ExitCode;

use clap::Parser;
use client::Client;
use runtime::health::{self, Health};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Deciding is one task; the rest is I/O.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let config = Config::parse();
    runtime::start::run(&config.common.log_level.clone(), WORKERS, |shutdown| {
        serve(config, shutdown)
    })
}

async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = Client::new(&client::Config::from_file(&config.kubeconfig, None)?)?;
    let state = Health::new(&["synced"]);
    if let Some(address) = config.common.health_bind_address {
        health::serve(address, state.clone(), shutdown.clone()).await?;
    }
    let ready = state.clone();
    tokio::spawn(async move {
        ready.ready().await;
        tracing::info!("ready");
        runtime::notify::ready();
    });
    scheduler::drive::run(
        client,
        &config.scheduler_name,
        runtime::clock::system(),
        state,
        shutdown,
    )
    .await;
    Ok(())
}
