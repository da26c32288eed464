//! `skiff-controller-manager`: runs the controllers while it leads.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use client::leader::Election;
use controller_manager::config::Flags;
use controller_manager::wire;
use runtime::health::Health;
use tokio_util::sync::CancellationToken;

/// Threads: the controllers mostly wait for I/O.
const WORKERS: usize = 2;
/// How long running reconciliations may take to finish after `stop`.
const DRAIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let flags = Flags::parse();
    let log_level = flags.common.log_level.clone();
    runtime::start::run(&log_level, WORKERS, |stop| run(flags, stop))
}

async fn run(flags: Flags, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = flags.settings(&stop)?;
    let client = runtime::connection::connect(&flags.kubeconfig, stop.clone())?;
    let health = Health::new(&[]);
    if let Some(address) = flags.common.health_bind_address {
        runtime::health::serve(address, health.clone(), stop.clone()).await?;
    }
    runtime::notify::ready();
    let clock = clock::system();
    if !flags.leader_elect {
        wire::run(client, settings, clock, stop).await?;
        return Ok(());
    }
    let election = Election::for_component("kube-controller-manager");
    health.check("leaderElection", election.is_renewed());
    let Some(leadership) = election.acquire(&client, &stop).await else {
        return Ok(());
    };
    let lost = leadership.lost();
    let end = stop.child_token();
    let mut controllers = Box::pin(wire::run(client, settings, clock, end.clone()));
    let ended = tokio::select! {
        ended = &mut controllers => Some(ended),
        () = lost.cancelled() => {
            end.cancel();
            None
        }
        () = stop.cancelled() => None,
    };
    // What does not finish in time is aborted: every write is safe to interrupt.
    let ended = match ended {
        Some(ended) => ended,
        None => tokio::time::timeout(DRAIN, &mut controllers).await.unwrap_or_else(|_| {
            tracing::warn!("reconciliations were aborted");
            Ok(())
        }),
    };
    anyhow::ensure!(!lost.is_cancelled(), "lost the leadership; restarting as a candidate");
    drop(controllers);
    leadership.release().await;
    Ok(ended?)
}
