//! Profiles, in a test of its own: they are of the whole process.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::time::{ClockId, clock_gettime};
use runtime::profile::{Error, Profiler, Samples};

/// How much more the process may have allocated after a profile than before, in bytes.
const MORE: usize = 4 << 20;

/// What the process has allocated, in bytes.
fn allocated() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Computes until the thread has used so much time of a processor.
#[inline(never)]
fn compute_much(time: Duration) -> u64 {
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let mut number = 1_u64;
    while used() < time {
        for _ in 0..10_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    number
}

fn profile() -> Samples {
    let profiler = Profiler::start().unwrap();
    assert!(matches!(Profiler::start().map(drop), Err(Error::Running)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| compute_much(Duration::from_millis(500)));
        }
    });
    profiler.finish()
}

#[test]
fn profiles_have_names_and_leave_nothing_behind() {
    let before = allocated();
    for _ in 0..3 {
        let samples = profile();
        let symbols = samples.symbols();
        let all: u64 = samples.stacks.values().sum();
        let of = |name: &str| -> u64 {
            let is_in = |stack: &Vec<usize>| {
                stack
                    .iter()
                    .flat_map(|address| &symbols[address])
                    .any(|one| one.name.contains(name))
            };
            samples.stacks.iter().filter(|(stack, _)| is_in(stack)).map(|(_, count)| count).sum()
        };
        assert!(all >= 20 && samples.dropped == 0, "{all}, {}", samples.dropped);
        assert!(of("profile::compute_much") * 4 >= all * 3, "of {all}: {symbols:?}");
        // From the thread's beginning to the function, and not the handler.
        assert!(of("thread_start") * 4 >= all * 3, "of {all}: {symbols:?}");
        assert_eq!(of("on_signal"), 0, "{symbols:?}");
    }
    // A late signal does no harm.
    raise(Signal::SIGPROF).unwrap();
    assert!(matches!(replace_handler(), SigHandler::SigIgn));
    runtime::memory::return_memory();
    let after = allocated();
    println!("{before} bytes before, {after} after");
    assert!(after < before + MORE, "from {before} to {after}");
}

/// Ignores SIGPROF. Returns what was done about it before.
#[allow(unsafe_code)]
fn replace_handler() -> SigHandler {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is set.
    unsafe { sigaction(Signal::SIGPROF, &ignore) }.unwrap().handler()
}
