//! Memory goes back to the system once a process has become quiet.
//!
//! The allocator keeps what a thread has freed for the thread's next allocations, and returns it to
//! the system only in the course of further ones: after a load, a process that has nothing to do
//! would hold it for ever. So the workers of the runtime count for how long they are busy. When that
//! has become much and is over, each of them returns what it holds.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The allocator of every binary: small heaps with little fragmentation, for processes that run for
/// months.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Work after which there may be something to return, of all workers together.
const MUCH: Duration = Duration::from_millis(20);
/// A process is quiet when it computes for at most [`QUIET_WORK`] of such a time. Its processor time
/// counts, since on a machine that others keep busy its workers seem busy while they wait for their
/// turn.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_WORK: Duration = Duration::from_millis(100);
/// How many tasks look for a worker that has not had its turn, for each worker, and how often each
/// of them moves on.
const TURNS: usize = 4;
const MOVES: usize = 16;
/// How often those that missed their turn are looked for again, and after which time.
const ATTEMPTS: usize = 10;
const AGAIN: Duration = Duration::from_millis(200);

/// Microseconds of work since memory was returned, up to the last time that a worker had nothing to
/// do.
static BUSY_US: AtomicU64 = AtomicU64::new(0);
/// There has been [`MUCH`] work.
static WORKED: Notify = Notify::const_new();
/// Counts how often memory has been returned.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// How many workers have had their turn in this round.
static RETURNED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Since when this worker has been busy.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The last round in which this worker had its turn.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// To be called by a worker that begins to work.
pub fn resumed() {
    SINCE.set(Some(clock::monotonic()));
}

/// To be called by a worker that has nothing to do.
pub fn idle() {
    let Some(since) = SINCE.take() else { return };
    let busy = clock::monotonic().saturating_duration_since(since);
    let busy_us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
    let before = BUSY_US.fetch_add(busy_us, Ordering::Relaxed);
    if !is_much(before) && is_much(before.saturating_add(busy_us)) {
        WORKED.notify_one();
    }
    // It may have been woken too late to find a task that reminds it.
    take_turn();
}

/// To be called by whoever has freed much without much work.
pub fn freed_much() {
    BUSY_US.fetch_add(u64::try_from(MUCH.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    WORKED.notify_one();
}

fn is_much(busy_us: u64) -> bool {
    u128::from(busy_us) >= MUCH.as_micros()
}

/// Returns memory whenever much work is over, on all `workers` threads. Never ends.
pub async fn keep_small(workers: usize) {
    loop {
        WORKED.notified().await;
        loop {
            let before = processor_time();
            tokio::time::sleep(QUIET).await;
            if processor_time().saturating_sub(before) <= QUIET_WORK {
                break;
            }
        }
        let quiet_at = BUSY_US.load(Ordering::Relaxed);
        RETURNED.store(0, Ordering::Relaxed);
        ROUND.fetch_add(1, Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            return_everywhere(workers).await;
            if RETURNED.load(Ordering::Relaxed) >= workers {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        // Work that has ended meanwhile may have left more: a worker that was busy for long reports it
        // at its end only.
        let later = BUSY_US.fetch_sub(quiet_at, Ordering::Relaxed).saturating_sub(quiet_at);
        if is_much(later) {
            WORKED.notify_one();
        }
    }
}

/// What all threads of this process have computed so far.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let micros = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(Duration::ZERO, |usage| micros(usage.user_time()) + micros(usage.system_time()))
}

/// Lets every worker return its memory that has not had its turn in this round. One that is busy
/// all the time, or that the system does not run, has it when it runs out of work.
async fn return_everywhere(workers: usize) {
    let mut turns = JoinSet::new();
    for _ in 0..workers * TURNS {
        turns.spawn(async {
            for _ in 0..MOVES {
                if take_turn() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    turns.join_all().await;
}

/// Returns this worker's memory if it has not done so in this round; whether it has now.
fn take_turn() -> bool {
    let round = ROUND.load(Ordering::Relaxed);
    if SEEN.replace(round) == round {
        return false;
    }
    return_memory();
    RETURNED.fetch_add(1, Ordering::Relaxed);
    true
}

/// Returns what this thread has freed, and what threads that have ended have left. To be called by
/// a thread that is no worker, after it has freed much.
#[allow(unsafe_code)]
pub fn return_memory() {
    unsafe extern "C" {
        /// `mimalloc.h`, of the allocator above.
        fn mi_collect(force: bool);
    }
    // SAFETY: the function has this signature, may be called by any thread at any time, and frees
    // only what has been freed.
    unsafe { mi_collect(true) }
}
