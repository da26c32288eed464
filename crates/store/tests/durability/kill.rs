//! Kills a process that writes to an embedded store, a hundred times.
//!
//! The child (this program, running its other test) reports acknowledged writes on its standard
//! output: `worker revision key value`, without a value for a deletion. The parent kills it after a
//! random time and opens the store itself.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use store::{
    Store,
    embedded::{Embedded, EmbeddedConfig},
};
use tempfile::TempDir;

use crate::workload::{Acknowledged, WORKERS, Write, work};

const ROUNDS: usize = 100;
/// The lifetime of a child, from its first acknowledged write.
const LIFE_MS: std::ops::Range<u64> = 1..120;

/// The environment variable with the child's directory.
const DIRECTORY: &str = "SKIFF_STORE_KILL_DIRECTORY";
/// The prefix of the child's own lines, which distinguishes them from the test runner's.
const ACKNOWLEDGED: &str = "acknowledged: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_hundred_kills() {
    let directory = TempDir::with_prefix("skiff-store-kill-").unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        run_and_kill(directory.path(), &mut acknowledged);
        let embedded = Embedded::open(EmbeddedConfig::new(directory.path())).await.unwrap();
        let store = embedded.store().await.unwrap();
        acknowledged.verify(&store).await;
        drop(store);
        embedded.stop().await.unwrap();
        if round % 10 == 9 {
            let writes = acknowledged.writes.len();
            println!("killed {} times, {writes} acknowledged writes are present", round + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process to be killed; started by the test above"]
async fn child_process() {
    let directory =
        std::env::var_os(DIRECTORY).expect("started by the other test, which sets the directory");
    let store = Store::embedded(Path::new(&directory)).await.unwrap();
    let report = |write: Write| {
        let Write { worker, revision, key, value } = write;
        let line = format!("{ACKNOWLEDGED}{worker} {revision} {key} {value}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    let workers: Vec<_> =
        (0..WORKERS).map(|worker| tokio::spawn(work(store.clone(), worker, report))).collect();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
}

/// Lets a child write for a while and kills it. Its output remains in the pipe.
fn run_and_kill(directory: &Path, acknowledged: &mut Acknowledged) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let child = Arc::new(Mutex::new(child));
    let mut output = BufReader::new(child.lock().unwrap().stdout.take().unwrap());
    let mut killer = None;
    let mut line = String::new();
    // The kill may have truncated the last line.
    while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        let acknowledgement = std::mem::take(&mut line);
        let Some((_, write)) = acknowledgement.trim_end_matches('\n').split_once(ACKNOWLEDGED)
        else {
            continue;
        };
        if killer.is_none() {
            let life = Duration::from_millis(rand::random_range(LIFE_MS));
            let child = child.clone();
            killer = Some(thread::spawn(move || {
                // The lifetime of the child is the parameter of the test, not a wait for a
                // condition.
                thread::sleep(life);
                child.lock().unwrap().kill().unwrap();
            }));
        }
        let fields: Vec<&str> = write.splitn(4, ' ').collect();
        let [worker, revision, key, value] = fields[..] else { panic!("{write:?}") };
        acknowledged.add(Write {
            worker: worker.parse().unwrap(),
            revision: revision.parse().unwrap(),
            key: key.to_owned(),
            value: value.to_owned(),
        });
    }
    killer.expect("the child wrote nothing").join().unwrap();
    assert!(!child.lock().unwrap().wait().unwrap().success());
}
