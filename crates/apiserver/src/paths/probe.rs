//! Whether the store answers, asked as seldom as possible.

use std::time::Duration;

use store::Store;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the store may take to answer, and how long an answer is good for: together an apiserver
/// that has lost its store says so within two seconds.
const TIME: Duration = Duration::from_millis(900);
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Asks the store on behalf of all health checks: one question at a time, whose answer the others
/// share.
#[derive(Default)]
pub struct StoreProbe(Mutex<Option<(Instant, bool)>>);

impl StoreProbe {
    /// Whether the store reads and writes.
    pub async fn answers(&self, store: &Store) -> bool {
        self.ask(async { store.ping().await }).await
    }

    async fn ask(&self, question: impl Future<Output = store::Result<()>>) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, holds)) = *last
            && at.elapsed() < GOOD_FOR
        {
            return holds;
        }
        let holds = match tokio::time::timeout(TIME, question).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the store fails its health check");
                false
            }
            Err(_) => {
                tracing::warn!("the store does not answer its health check");
                false
            }
        };
        *last = Some((clock::instant(), holds));
        holds
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn checks_share_one_question_a_second() {
        let probe = StoreProbe::default();
        let asked = AtomicUsize::new(0);
        let question = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        };
        let all = futures::future::join_all((0..100).map(|_| probe.ask(question()))).await;
        assert!(all.into_iter().all(|holds| holds));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(GOOD_FOR).await;
        assert!(probe.ask(question()).await);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_noticed_within_two_seconds_and_so_is_its_return() {
        let probe = StoreProbe::default();
        assert!(probe.ask(async { Ok(()) }).await);
        let start = clock::instant();
        while probe.ask(pending()).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        tokio::time::advance(GOOD_FOR).await;
        assert!(probe.ask(async { Ok(()) }).await);
    }
}
