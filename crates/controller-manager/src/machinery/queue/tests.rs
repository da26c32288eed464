use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Fails as often as it is told, and counts.
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
            return Err(Error::Invalid("told to".into()));
        }
        Ok(Next::Change)
    }
}

struct Rig {
    trigger: Trigger,
    started: mpsc::Receiver<Key>,
    go_on: Arc<Semaphore>,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn rig(fail: usize) -> Rig {
    let (trigger, requests) = queue();
    let (sender, started) = mpsc::channel(64);
    let go_on = Arc::new(Semaphore::new(0));
    let (ready, is_ready) = watch::channel(false);
    let stop = CancellationToken::new();
    let probe =
        Arc::new(Probe { calls: AtomicUsize::new(0), fail, started: sender, go_on: go_on.clone() });
    let task = tokio::spawn(run(probe, requests, is_ready, stop.clone()));
    Rig { trigger, started, go_on, ready, stop, task }
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_before_the_caches_are_full_and_equal_keys_are_one() {
    let mut rig = rig(0);
    for _ in 0..1000 {
        rig.trigger.send(Key::new("a", "b")).await;
    }
    assert!(rig.started.try_recv().is_err());
    rig.ready.send_replace(true);
    assert_eq!(rig.started.recv().await, Some(Key::new("a", "b")));
    // What arrives during the run comes again, once, after it.
    rig.trigger.send(Key::new("a", "b")).await;
    rig.trigger.send(Key::new("a", "b")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.started.try_recv().is_err());
    rig.go_on.add_permits(8);
    assert!(rig.started.recv().await.is_some());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.started.try_recv().is_err());
    rig.stop.cancel();
    rig.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_comes_back_with_growing_delays() {
    let mut rig = rig(3);
    rig.ready.send_replace(true);
    rig.go_on.add_permits(8);
    let start = clock::instant();
    rig.trigger.send(Key::cluster("n")).await;
    for _ in 0..4 {
        rig.started.recv().await.unwrap();
    }
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_millis(70) && waited < Duration::from_millis(90),
        "{waited:?}"
    );
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(rig.started.try_recv().is_err());
    rig.stop.cancel();
    rig.task.await.unwrap();
}
