//! `skiff-scheduler`: flags, wiring, shutdown. The work is in the library.

mod config;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use client::leader::Election;
use runtime::health::{self, Health};
use scheduler::{drive, serve};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Threads: scheduling is one task; the rest is I/O.
const WORKERS: usize = 2;
/// How long writes in progress may take to finish after the end: another may lead soon after.
const DRAIN: Duration = Duration::from_secs(2);
/// Questions that may wait for the engine.
const QUESTIONS: usize = 64;

fn main() -> ExitCode {
    let config = Config::parse();
    runtime::start::run(&config.common.log_level.clone(), WORKERS, |shutdown| {
        serve(config, shutdown)
    })
}

async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = config.read(&shutdown)?;
    let client = runtime::connection::connect(&settings.kubeconfig, shutdown.clone())?;
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
    let (ask, questions) = mpsc::channel(QUESTIONS);
    let end = shutdown.child_token();
    let clock = clock::system();
    let mut address = None;
    if let Some(parts) = settings.server {
        let port = serve::start(parts, ask, clock.clone(), end.clone()).await?;
        address = Some(config.advertised(port));
    }
    let setup = drive::Setup {
        profiles: settings.configuration.profiles,
        backoff: settings.configuration.backoff,
        clock,
        health: state,
        leading,
        questions,
    };
    let scheduling = async {
        let driving = drive::run(client.clone(), setup, end.clone());
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
    let leads = async {
        lead.send(()).ok();
        serve::announce(&client, address.as_deref(), &end).await;
    };
    let election = async {
        if !settings.leader_elect {
            leads.await;
            return None;
        }
        let election = Election::for_component("kube-scheduler");
        health.check("leaderElection", election.is_renewed());
        let leadership = election.acquire(&client, &end).await?;
        let lost = leadership.lost();
        let losing = async {
            tokio::select! {
                () = end.cancelled() => {}
                () = lost.cancelled() => end.cancel(),
            }
        };
        tokio::join!(leads, losing);
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
