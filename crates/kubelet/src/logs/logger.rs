//! The log writer process: one loop over the container's output and the clients of `attach`. No
//! threads and no async runtime: there is one such process per container, so it must stay small.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use clock::{Clock, SystemClock};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use super::LogStream;
use super::attach::{AttachServer, ask_to_give_way};
use super::format::LineFormatter;
use super::rotate::RotatingFile;
use super::spec::{LOGGER_ARGUMENT, LoggerSpec};

/// Bytes read from the container at once: a pipe's whole buffer.
const READ_BYTES: usize = 64 << 10;
/// File descriptors passed by the shim: output, error, and one to close when we are ready.
const SHIM_STDOUT: &str = "/proc/self/fd/3";
const SHIM_STDERR: &str = "/proc/self/fd/4";
const SHIM_READY: i32 = 5;

/// If this process was started to write a container's log, writes it and returns the exit code;
/// otherwise returns `None`. Call it first in `main`, before any thread or runtime is started.
pub fn run_logger_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != LOGGER_ARGUMENT {
        return None;
    }
    let spec = arguments.next().unwrap_or_default();
    let result = serde_json::from_str::<LoggerSpec>(&spec)
        .map_err(io::Error::from)
        .and_then(|spec| run(&spec));
    match result {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            // Standard error belongs to the shim: report the error in the log.
            eprintln!("container log: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// The container's output that is still open.
struct Source {
    stream: LogStream,
    file: File,
    lines: LineFormatter,
}

impl Source {
    fn new(stream: LogStream, file: File) -> Self {
        Source { stream, file, lines: LineFormatter::new(stream) }
    }
}

struct Logger {
    sources: Vec<Source>,
    log: RotatingFile,
    attach: AttachServer,
    out: Vec<u8>,
}

fn run(spec: &LoggerSpec) -> io::Result<()> {
    // The shim sends SIGTERM as soon as the container has exited; we exit at the end of its output.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    // The log comes first: once the container is running, a reader must find a writer.
    let ask = || ask_to_give_way(&spec.attach_socket, spec.number);
    let log = RotatingFile::open(&spec.log_path, spec.max_size_bytes, spec.max_files, ask)?;
    let attach = AttachServer::bind(&spec.attach_socket, spec.number)?;
    let sources = open_sources(spec)?;
    let mut logger = Logger { sources, log, attach, out: Vec::with_capacity(READ_BYTES + 4096) };
    if spec.fifos.is_none() {
        nix::unistd::close(SHIM_READY)?;
    }
    while !logger.sources.is_empty() && !logger.attach.must_give_way() {
        logger.step()?;
    }
    // When asked to give way, write what is there first.
    for index in (0..logger.sources.len()).rev() {
        while logger.copy(index)? == Copied::Some {}
    }
    logger.log.close()
}

/// Opens the container's output. FIFOs are opened without waiting for a writer; they end when the
/// shim closes them or, for a container that never started, when the kubelet does (see
/// `release_fifos`).
fn open_sources(spec: &LoggerSpec) -> io::Result<Vec<Source>> {
    let open =
        |path: &Path| OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let Some((stdout, stderr)) = &spec.fifos else {
        let mut sources = vec![Source::new(LogStream::Stdout, open(Path::new(SHIM_STDOUT))?)];
        if !spec.tty {
            sources.push(Source::new(LogStream::Stderr, open(Path::new(SHIM_STDERR))?));
        }
        return Ok(sources);
    };
    // Outlive the session of the process that started us.
    match nix::unistd::setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(vec![
        Source::new(LogStream::Stdout, open(stdout)?),
        Source::new(LogStream::Stderr, open(stderr)?),
    ])
}

/// The result of reading from a source.
#[derive(PartialEq)]
enum Copied {
    Some,
    Nothing,
    End,
}

/// The result of polling.
struct Ready {
    sources: Vec<bool>,
    listener: bool,
    clients: bool,
}

impl Logger {
    /// Waits for something to happen and handles it.
    fn step(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        if ready.listener {
            self.attach.accept();
        }
        if ready.clients {
            self.attach.drop_closed();
            self.attach.flush();
        }
        for index in (0..ready.sources.len()).rev() {
            if ready.sources[index] && self.copy(index)? == Copied::End {
                self.sources.remove(index);
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let readable = PollFlags::POLLIN;
        let mut fds: Vec<PollFd<'_>> =
            self.sources.iter().map(|source| PollFd::new(source.file.as_fd(), readable)).collect();
        fds.push(PollFd::new(self.attach.listener(), readable));
        let first_client = fds.len();
        for (client, waiting) in self.attach.clients() {
            let flags = if waiting { readable | PollFlags::POLLOUT } else { readable };
            fds.push(PollFd::new(client, flags));
        }
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let happened: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let sources = self.sources.len();
        Ok(Ready {
            sources: happened[..sources].to_vec(),
            listener: happened[sources],
            clients: happened[first_client..].iter().any(|happened| *happened),
        })
    }

    /// Copies the available output of a source.
    fn copy(&mut self, index: usize) -> io::Result<Copied> {
        let mut buffer = [0; READ_BYTES];
        let source = &mut self.sources[index];
        let count = match source.file.read(&mut buffer) {
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(Copied::Nothing);
            }
            Err(error) => return Err(error),
        };
        let now = SystemClock.now();
        self.out.clear();
        if count == 0 {
            source.lines.finish(now, &mut self.out);
        } else {
            source.lines.push(&buffer[..count], now, &mut self.out);
            self.attach.send(source.stream, &buffer[..count]);
        }
        if !self.out.is_empty()
            && let Err(error) = self.log.write(&self.out, now)
        {
            // A full disk loses lines, but never stops the container.
            eprintln!("container log: {error}");
        }
        Ok(if count > 0 { Copied::Some } else { Copied::End })
    }
}
