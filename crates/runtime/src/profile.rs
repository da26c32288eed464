//! Samples of what this process does with its processor time.
//!
//! While a [`Profiler`] exists, the system sends SIGPROF for every hundredth of a second of the
//! process's processor time, to a thread that is running. The handler walks that thread's stack and
//! writes it to a buffer of fixed size. It neither allocates nor locks.

use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Samples per second of processor time, as in Go.
pub const HERTZ: u32 = 100;

/// Frames of a stack that are kept, from the innermost on.
const DEPTH: usize = 64;
/// Frames that are walked: there are those of the handler before.
const WALKED: usize = DEPTH + 16;
/// The size of the buffer: 8 MiB, for at least 160 s of processor time. Only pages that are written
/// to take memory.
const WORDS: usize = 1 << 20;
/// What a stack is not walked from: the unwinder itself, which need not be reentrant, and the
/// kernel's code, whose unwind tables are not reliable.
const NOT_WALKED: [&str; 2] = ["/libgcc_s", "[vdso]"];
/// How often a handler that is still running is looked for.
const AGAIN: Duration = Duration::from_millis(1);

static RUNNING: AtomicBool = AtomicBool::new(false);
/// The buffer of the profiler that exists, for the handler.
static BUFFER: AtomicPtr<Buffer> = AtomicPtr::new(null_mut());
/// How many threads are in the handler.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

/// Why there is no profiler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cpu profiling already in use")]
    Running,
    #[error("cannot read the mappings of this process")]
    Mappings(#[source] std::io::Error),
    #[error("cannot handle SIGPROF")]
    Handler(#[source] Errno),
    #[error("cannot set the timer")]
    Timer(#[source] Errno),
}

/// What has been sampled.
pub struct Samples {
    /// How often each stack has been seen: return addresses, the innermost first.
    pub stacks: HashMap<Vec<usize>, u64>,
    /// Samples that the buffer had no place for.
    pub dropped: usize,
}

/// A function, without the hash of its name, and as in the symbol table.
#[derive(Clone, Debug)]
pub struct Symbol {
    pub name: String,
    pub mangled: String,
}

/// Takes samples until it is dropped.
pub struct Profiler {
    buffer: Arc<Buffer>,
    previous: SigAction,
    _turn: Turn,
}

/// The only one of its kind.
struct Turn;

impl Turn {
    fn take() -> Result<Self, Error> {
        if RUNNING.swap(true, Ordering::SeqCst) { Err(Error::Running) } else { Ok(Self) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::SeqCst);
    }
}

impl Profiler {
    /// Begins to sample.
    ///
    /// # Errors
    /// When there is a profiler already, or the system refuses.
    pub fn start() -> Result<Self, Error> {
        let turn = Turn::take()?;
        let buffer = Arc::new(Buffer::new(WORDS, mappings()?));
        // The unwinder initializes itself the first time, which a handler must not do.
        buffer.walk(0, &mut [0; DEPTH]);
        let flags = SaFlags::SA_RESTART | SaFlags::SA_SIGINFO;
        let previous =
            set_action(&SigAction::new(SigHandler::SigAction(on_signal), flags, SigSet::empty()))
                .map_err(Error::Handler)?;
        BUFFER.store(Arc::as_ptr(&buffer).cast_mut(), Ordering::SeqCst);
        let profiler = Self { buffer, previous, _turn: turn };
        set_timer(Duration::from_secs(1) / HERTZ).map_err(Error::Timer)?;
        Ok(profiler)
    }

    /// Ends, with what has been sampled.
    pub fn finish(self) -> Samples {
        let buffer = self.buffer.clone();
        drop(self);
        buffer.samples()
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        set_timer(Duration::ZERO).expect("the timer has been set before");
        // By default a late signal would end the process.
        let action = match self.previous.handler() {
            SigHandler::SigDfl => {
                SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty())
            }
            _ => self.previous,
        };
        set_action(&action).expect("the action has been set before");
        BUFFER.store(null_mut(), Ordering::SeqCst);
        while HANDLERS.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(AGAIN);
        }
    }
}

#[allow(unsafe_code)]
fn set_action(action: &SigAction) -> Result<SigAction, Errno> {
    // SAFETY: the action is `on_signal`, which does only what a handler may do, none at all, or what
    // had been set before.
    unsafe { sigaction(Signal::SIGPROF, action) }
}

/// Sends SIGPROF whenever the process has computed for `period`; never if it is zero.
#[allow(unsafe_code)]
fn set_timer(period: Duration) -> Result<(), Errno> {
    let period = libc::timeval { tv_sec: 0, tv_usec: period.subsec_micros().into() };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the system reads `timer`, and writes nothing where the last argument is null.
    Errno::result(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, null_mut()) })
        .map(drop)
}

/// Where the code is that stacks are not walked from.
fn mappings() -> Result<Vec<Range<usize>>, Error> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(Error::Mappings)?;
    let ranges = maps.lines().filter(|line| NOT_WALKED.iter().any(|name| line.contains(name)));
    Ok(ranges.filter_map(parse_range).collect())
}

/// The addresses at the beginning of a line of `/proc/PID/maps`.
fn parse_range(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// What SIGPROF runs, on any thread and between any two instructions of it.
#[allow(unsafe_code)]
extern "C" fn on_signal(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    HANDLERS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: a profiler removes its buffer from here, and waits until there is no handler, before it
    // lets go of it. All of these operations are in one order: either this handler has been counted
    // in time, or it finds no buffer.
    let buffer = unsafe { BUFFER.load(Ordering::SeqCst).as_ref() };
    // SAFETY: the system passes a context to handlers with SA_SIGINFO.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
    if let (Some(buffer), Some(context)) = (buffer, context) {
        buffer.sample(interrupted(context));
    }
    HANDLERS.fetch_sub(1, Ordering::SeqCst);
    Errno::set_raw(errno);
}

/// The instruction before which the signal came.
fn interrupted(context: &libc::ucontext_t) -> usize {
    #[cfg(target_arch = "x86_64")]
    let address = context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned();
    #[cfg(target_arch = "aarch64")]
    let address = context.uc_mcontext.pc;
    address as usize
}

/// Stacks, each after the number of its frames. What has not been written yet is zero.
struct Buffer {
    words: Box<[AtomicUsize]>,
    /// Words that are taken, with those for which there was no place.
    used: AtomicUsize,
    dropped: AtomicUsize,
    not_walked: Vec<Range<usize>>,
}

impl Buffer {
    #[allow(unsafe_code)]
    fn new(words: usize, not_walked: Vec<Range<usize>>) -> Self {
        let zeros = Box::into_raw(vec![0_usize; words].into_boxed_slice());
        // SAFETY: an `AtomicUsize` is in memory what a `usize` is, and nobody else has the pointer.
        let words = unsafe { Box::from_raw(zeros as *mut [AtomicUsize]) };
        Self { words, used: AtomicUsize::new(0), dropped: AtomicUsize::new(0), not_walked }
    }

    /// Takes a sample of this thread. For signal handlers.
    fn sample(&self, interrupted: usize) {
        let mut stack = [0; DEPTH];
        let mut depth = 0;
        if !self.not_walked.iter().any(|range| range.contains(&interrupted)) {
            depth = self.walk(interrupted, &mut stack);
        }
        if depth == 0 {
            stack[0] = interrupted.wrapping_add(1);
            depth = 1;
        }
        let start = self.used.fetch_add(1 + depth, Ordering::Relaxed);
        let Some(place) = self.words.get(start..start + 1 + depth) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        place[0].store(depth, Ordering::Relaxed);
        for (word, address) in place[1..].iter().zip(stack) {
            word.store(address, Ordering::Relaxed);
        }
    }

    /// Fills `stack` with the return addresses of this thread from the interrupted instruction on,
    /// without the handler's. Returns how many there are. For signal handlers.
    #[allow(unsafe_code)]
    fn walk(&self, interrupted: usize, stack: &mut [usize; DEPTH]) -> usize {
        let (mut walked, mut depth) = (0, 0);
        let each = |frame: &backtrace::Frame| {
            let address = frame.ip().addr();
            walked += 1;
            if depth > 0 {
                stack[depth] = address;
                depth += 1;
            } else if address == interrupted {
                // As if it had been called from there, which all the others were.
                stack[0] = address.wrapping_add(1);
                depth = 1;
            }
            depth < DEPTH && walked < WALKED
        };
        // SAFETY: what has to be synchronized is only the lookup of names, which is not done here.
        unsafe { backtrace::trace_unsynchronized(each) };
        depth
    }

    /// What is in the buffer, to which no handler writes any longer.
    fn samples(&self) -> Samples {
        let mut stacks = HashMap::<_, u64>::new();
        let mut rest = &*self.words;
        while let Some((depth, after)) = rest.split_first() {
            let depth = depth.load(Ordering::Relaxed);
            if depth == 0 {
                break;
            }
            let (stack, after) = after.split_at(depth);
            let stack: Vec<_> = stack.iter().map(|word| word.load(Ordering::Relaxed)).collect();
            *stacks.entry(stack).or_default() += 1;
            rest = after;
        }
        Samples { stacks, dropped: self.dropped.load(Ordering::Relaxed) }
    }
}

impl Samples {
    /// The functions at all addresses: the innermost first where some have been inlined into
    /// others, none where there is no name. Takes seconds in large programs.
    pub fn symbols(&self) -> HashMap<usize, Vec<Symbol>> {
        let addresses: HashSet<usize> = self.stacks.keys().flatten().copied().collect();
        let symbols = addresses.into_iter().map(|address| (address, resolve(address))).collect();
        // It would hold the symbol tables for the next time.
        backtrace::clear_symbol_cache();
        symbols
    }
}

/// The functions at a return address.
fn resolve(address: usize) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        if let Some(name) = symbol.name() {
            let mangled = String::from_utf8_lossy(name.as_bytes()).into_owned();
            symbols.push(Symbol { name: format!("{name:#}"), mangled });
        }
    });
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_without_a_place_are_counted() {
        let buffer = Buffer::new(5, std::iter::once(0..10).collect());
        for address in [1, 1, 2, 3] {
            buffer.sample(address);
        }
        let samples = buffer.samples();
        assert_eq!(samples.stacks, HashMap::from([(vec![2], 2)]));
        assert_eq!(samples.dropped, 2);
    }

    #[test]
    fn ranges_are_read_from_maps() {
        let line = "7ffc1000-7ffc2a00 r-xp 00000000 00:00 0                  [vdso]";
        assert_eq!(parse_range(line), Some(0x7ffc_1000..0x7ffc_2a00));
        assert_eq!(parse_range(""), None);
        assert!(!mappings().unwrap().is_empty());
    }
}
