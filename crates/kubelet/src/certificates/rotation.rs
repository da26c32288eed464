//! Asks for the next certificate while the current one is valid.

use std::time::Duration;

use client::Client;
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use rpc::tls::KeyPair;
use runtime::errors::cause_chain;
use tokio_util::sync::CancellationToken;

use super::request::{Wanted, obtain};
use super::{Store, validity};
use crate::config::Flags;

/// The part of its life after which a certificate is renewed: between these, so that the nodes of a
/// cluster do not ask at the same time.
const PART_MIN: f64 = 0.7;
const PART_MAX: f64 = 0.9;
/// Pauses after failures: doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The longest that is slept without looking at the clock.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// The rotation of one certificate.
struct Rotation {
    client: Client,
    clock: SharedClock,
    store: Store,
    wanted: Wanted,
}

/// Starts the rotations that the flags ask for.
pub fn start(client: &Client, clock: &SharedClock, flags: &Flags, shutdown: &CancellationToken) {
    let rotation = |name, serving| Rotation {
        client: client.clone(),
        clock: clock.clone(),
        store: super::store(flags, name),
        wanted: Wanted { node: flags.node_name.clone(), serving },
    };
    if flags.rotate_certificates {
        let rotation = rotation(super::CLIENT, None);
        tokio::spawn(rotation.run(super::client_pair(flags), shutdown.clone()));
    }
    if flags.rotate_server_certificates {
        let rotation = rotation(super::SERVER, Some(flags.node_ip));
        let current = super::serving_pair(flags);
        tokio::spawn(rotation.run(current, shutdown.clone()));
    }
}

/// When a certificate is renewed; `jitter` is from 0 to 1.
fn renew_at((from, until): (Timestamp, Timestamp), jitter: f64) -> Timestamp {
    let life = until.duration_since(from).as_secs_f64();
    let part = PART_MIN + (PART_MAX - PART_MIN) * jitter;
    let after = SignedDuration::try_from_secs_f64(life * part).unwrap_or_default();
    from.checked_add(after).unwrap_or(until)
}

impl Rotation {
    /// Renews until `shutdown`. `current`: the certificate in use, if there is one.
    async fn run(self, current: Option<KeyPair>, shutdown: CancellationToken) {
        tokio::select! {
            () = self.rotate(current) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn rotate(&self, mut current: Option<KeyPair>) {
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(validity) = current.as_ref().and_then(validity) {
                let at = renew_at(validity, rand::random());
                tracing::info!(wanted = ?self.wanted, %at, "the certificate will be renewed");
                self.sleep_until(at).await;
            }
            match self.renew().await {
                Ok(pair) => {
                    current = Some(pair);
                    pause = PAUSE_MIN;
                }
                Err(error) => {
                    let error = cause_chain(&*error);
                    tracing::warn!(error, wanted = ?self.wanted, "cannot renew the certificate");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                    // What is due stays due.
                    current = None;
                }
            }
        }
    }

    /// The clock may be set meanwhile.
    async fn sleep_until(&self, at: Timestamp) {
        while let Ok(left) = Duration::try_from(at.duration_since(self.clock.now()))
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(SLEEP_MAX)).await;
        }
    }

    async fn renew(&self) -> anyhow::Result<KeyPair> {
        let key = rcgen::KeyPair::generate()?;
        let pair = obtain(&self.client, &self.wanted, &key, "").await?;
        self.store.replace(&pair, self.clock.now())?;
        tracing::info!(wanted = ?self.wanted, "the certificate was renewed");
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_in_the_last_third_of_their_life() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let validity = (at(1_000), at(2_000));
        assert_eq!(renew_at(validity, 0.0), at(1_700));
        assert_eq!(renew_at(validity, 1.0), at(1_900));
        assert_eq!(renew_at((at(5), at(5)), 0.5), at(5));
    }
}
