//! A process that was busy and no longer is gives back the memory that it no longer needs. In a test
//! of its own, since the memory is the whole process'.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

/// What the process has allocated, in bytes.
fn allocated() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Allocates much, frees it at once, on other workers than those that have allocated it, and returns
/// what there was.
async fn work(blocks: usize) -> usize {
    let filled = |n: usize| tokio::spawn(async move { vec![vec![n; 40]; blocks] });
    let mut all = Vec::new();
    for task in (0..8).map(filled).collect::<Vec<_>>() {
        all.push(task.await.unwrap());
    }
    let most = allocated();
    for part in all {
        tokio::spawn(async move { drop(part) }).await.unwrap();
    }
    most
}

#[test]
fn memory_comes_back_after_work() {
    let code = runtime::start::run("error", 2, |_| async {
        let fresh = allocated();
        let most = work(50_000).await;
        assert!(most > fresh + (100 << 20), "from {fresh} to {most}");
        let until = clock::instant() + Duration::from_secs(20);
        while allocated() > fresh + (4 << 20) {
            assert!(clock::instant() < until, "{fresh}, {most}, and still {}", allocated());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    });
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
}
