//! `skiff-apiserver`: parses flags, builds the server, runs until SIGTERM.
//!
//! Everything it does is in the library: [`apiserver::config`] has the flags, [`apiserver::wire`]
//! builds the server from them, [`apiserver::server`] listens. It reports ready when the watch
//! cache has been loaded, the system's own objects exist and the port is open; from then on any
//! client with a certificate of the cluster's authority, or a ServiceAccount token, is served.
//!
//! It must not hold state of its own: several of these processes on one etcd are equals.

use std::process::ExitCode;

use apiserver::config::Config;
use apiserver::wire;

/// Threads for requests; more than a small machine's cores are not used.
const WORKERS: usize = 4;

fn main() -> ExitCode {
    let config = runtime::flags::parse::<Config>();
    let level = config.common.log_level.clone();
    runtime::start::run(&level, WORKERS, |shutdown| async move {
        let health = runtime::health::Health::new(&["serving"]);
        if let Some(address) = config.common.health_bind_address {
            runtime::health::serve(address, health.clone(), shutdown.clone()).await?;
        }
        let server = wire::start(&config, shutdown).await?;
        health.set("serving", true);
        runtime::notify::ready();
        server.finished().await;
        Ok(())
    })
}
