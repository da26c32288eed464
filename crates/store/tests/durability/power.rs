//! Cuts the power of an embedded store's disk, a hundred times: in the middle of commits, of
//! compactions, and of the opening of the file.

use std::sync::{Arc, Mutex};

use store::embedded::{Embedded, EmbeddedConfig};
use tempfile::TempDir;

use crate::{
    disk::Disk,
    workload::{Acknowledged, WORKERS, work},
};

const ROUNDS: usize = 100;
/// Operations of the disk until the power fails: while the store is working, and while it is being
/// opened.
const LIFE: std::ops::Range<usize> = 10..800;
const OPENING: std::ops::Range<usize> = 0..60;
/// How much of what was not synced is on the medium nevertheless.
const WRITTEN: [f64; 3] = [0.0, 0.5, 0.95];

fn restore(disk: &Disk) {
    disk.restore(WRITTEN[rand::random_range(0..WRITTEN.len())]);
}

/// Works and fails again and again; panics when something acknowledged is missing.
async fn fail_a_hundred_times(disk: Arc<Disk>) -> usize {
    let directory = TempDir::with_prefix("skiff-store-power-").unwrap();
    let config = EmbeddedConfig {
        device: Some(disk.clone()),
        // Small enough that commits also write what they evict.
        cache_bytes: 256 << 10,
        ..EmbeddedConfig::new(directory.path())
    };
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        if round % 3 == 2 {
            disk.fail_after(rand::random_range(OPENING));
            if let Ok(embedded) = Embedded::open(config.clone()).await {
                embedded.stop().await.ok();
            }
            restore(&disk);
        }
        let embedded = Embedded::open(config.clone()).await.expect("the file opens");
        let store = embedded.store().await.unwrap();
        acknowledged.verify(&store).await;
        disk.fail_after(rand::random_range(LIFE));
        let writes = Arc::new(Mutex::new(Vec::new()));
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let writes = writes.clone();
                let acknowledge = move |write| writes.lock().unwrap().push(write);
                tokio::spawn(work(store.clone(), worker, acknowledge))
            })
            .collect();
        for worker in workers {
            worker.await.unwrap().expect_err("the power fails");
        }
        drop(store);
        embedded.stop().await.ok();
        restore(&disk);
        for write in std::mem::take(&mut *writes.lock().unwrap()) {
            acknowledged.add(write);
        }
    }
    acknowledged.writes.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_hundred_power_failures() {
    let writes = fail_a_hundred_times(Arc::new(Disk::new(true))).await;
    println!("{writes} acknowledged writes are present");
    assert!(writes > ROUNDS, "{writes}");
}

/// The test above would notice a store that does not sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_acknowledged_writes_are_lost() {
    let failed = tokio::spawn(fail_a_hundred_times(Arc::new(Disk::new(false)))).await;
    assert!(failed.unwrap_err().is_panic());
}
