use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Fails the first `fail` times, and counts its calls.
struct Probe {
    calls: AtomicUsize,
    fail: usize,
    started: mpsc::Sender<Key>,
    go_on: Arc<Semaphore>,
}

impl Controller for Probe {
    const NAME: &'static str = "probe";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.started.send(key.clone()).await.unwrap();
        self.go_on.acquire().await.unwrap().forget();
        if call < self.fail {
            return Err(Error::Invalid("on purpose".into()));
        }
        Ok(Next::Change)
    }
}

struct Fixture {
    trigger: Trigger,
    started: mpsc::Receiver<Key>,
    go_on: Arc<Semaphore>,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn fixture(fail: usize) -> Fixture {
    let (trigger, requests) = queue();
    let (sender, started) = mpsc::channel(64);
    let go_on = Arc::new(Semaphore::new(0));
    let (ready, is_ready) = watch::channel(false);
    let stop = CancellationToken::new();
    let probe =
        Arc::new(Probe { calls: AtomicUsize::new(0), fail, started: sender, go_on: go_on.clone() });
    let task = tokio::spawn(run(probe, requests, is_ready, stop.clone()));
    Fixture { trigger, started, go_on, ready, stop, task }
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_before_the_caches_are_filled_and_equal_keys_are_merged() {
    let mut fixture = fixture(0);
    for _ in 0..1000 {
        fixture.trigger.send(Key::new("a", "b")).await;
    }
    assert!(fixture.started.try_recv().is_err());
    fixture.ready.send_replace(true);
    assert_eq!(fixture.started.recv().await, Some(Key::new("a", "b")));
    // A key that arrives during its reconciliation is reconciled once more afterwards.
    fixture.trigger.send(Key::new("a", "b")).await;
    fixture.trigger.send(Key::new("a", "b")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.started.try_recv().is_err());
    fixture.go_on.add_permits(8);
    assert!(fixture.started.recv().await.is_some());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.started.try_recv().is_err());
    fixture.stop.cancel();
    fixture.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_growing_delays() {
    let mut fixture = fixture(3);
    fixture.ready.send_replace(true);
    fixture.go_on.add_permits(8);
    let start = clock::instant();
    fixture.trigger.send(Key::cluster("n")).await;
    for _ in 0..4 {
        fixture.started.recv().await.unwrap();
    }
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_millis(70) && waited < Duration::from_millis(90),
        "{waited:?}"
    );
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(fixture.started.try_recv().is_err());
    fixture.stop.cancel();
    fixture.task.await.unwrap();
}
