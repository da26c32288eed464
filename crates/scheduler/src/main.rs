//! `skiff-scheduler`: flags, wiring, shutdown. The work is in the library.

mod config;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use client::Client;
use client::leader::Election;
use runtime::health::{self, Health};
use scheduler::drive;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Threads: scheduling is one task; the rest is I/O.
const WORKERS: usize = 2;
/// How long writes in progress may take to finish after the end: another may lead soon after.
const DRAIN: Duration = Duration::from_secs(2);

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
    let (ready, health) = (state.clone(), state.clone());
    tokio::spawn(async move {
        ready.ready().await;
        tracing::info!("ready");
        runtime::notify::ready();
    });
    let (lead, leading) = oneshot::channel();
    let end = shutdown.child_token();
    let scheduling = async {
        let clock = clock::system();
        let driving =
            drive::run(client.clone(), &config.scheduler_name, clock, state, leading, end.clone());
        let late = async {
            end.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = driving => {}
            () = late => tracing::warn!("writes were aborted"),
        }
        end.cancel();
    };
    let election = async {
        if !config.leader_elect {
            lead.send(()).ok();
            return None;
        }
        let election = Election::for_component("kube-scheduler");
        health.check("leaderElection", election.is_renewed());
        let leadership = election.acquire(&client, &end).await?;
        lead.send(()).ok();
        let lost = leadership.lost();
        tokio::select! {
            () = end.cancelled() => {}
            () = lost.cancelled() => end.cancel(),
        }
        Some(leadership)
    };
    let ((), leadership) = tokio::join!(scheduling, election);
    if let Some(leadership) = leadership {
        anyhow::ensure!(
            !leadership.lost().is_cancelled(),
            "lost the leadership; restarting as a candidate"
        );
        leadership.release().await;
    }
    Ok(())
}
