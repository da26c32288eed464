//! The reader behind the `Logs` call: one pass over a log's files, oldest first, then, with
//! `follow`, over what is appended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use runtime::directory_watch::Watch;

use super::LogStream;
use super::format::{LogLine, MAX_LINE_BYTES};
use super::path::rotated_files;
use super::rotate::writer_has_gone;
use super::tail::find_tail;

/// Bytes read from a file at once.
const READ_BYTES: usize = 128 << 10;
/// An unterminated line that is longer than any line we write is not ours; it is skipped.
const MAX_CARRIED_BYTES: usize = 4 * MAX_LINE_BYTES;
/// Most output of a stream that is held back while a line of the other is open; that line is then
/// broken.
const MAX_HELD_BYTES: usize = 64 << 10;

/// How long a reader that does not follow waits for the file after one that has just been renamed;
/// it is missing only if the writer was killed between the two steps.
const ROTATION_WAITS: u32 = 20;
const ROTATION_PAUSE: Duration = Duration::from_millis(1);

/// What to read of a log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogQuery {
    /// Continue until the container exits.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Prefix each line with its time.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Only this stream.
    pub stream: Option<LogStream>,
}

/// Errors of reading a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Reads a container's log as the container wrote it, across rotated files, in chunks. With
/// `follow` it continues until the container has exited and its last line was read. `path` is
/// [`super::container_log_path`] of any attempt: for `previous`, the one before.
///
/// Fails at once if there is no log; ends without an error if the log is deleted while it is
/// followed.
pub fn read_log(
    path: &Path,
    query: LogQuery,
) -> Pin<Box<dyn Stream<Item = Result<Bytes, LogError>> + Send>> {
    let path = path.to_path_buf();
    let follow = query.follow;
    Box::pin(async_stream::try_stream! {
        let failed = |operation| {
            let path = path.clone();
            move |source| LogError::Io { operation, path, source }
        };
        let mut watch = None;
        if follow {
            let directory = path.parent().ok_or(io::ErrorKind::InvalidInput.into());
            watch = Some(directory.and_then(Watch::new).map_err(failed("watch log"))?);
        }
        let open = path.clone();
        let reader = blocking(move || LogReader::open(open, query)).await;
        let mut reader = reader.map_err(failed("open log"))?;
        loop {
            // Check whether the writer is gone before reading more: then everything it wrote is
            // there.
            let (back, step) = blocking(move || {
                let step = reader.step(follow);
                (reader, step)
            })
            .await;
            reader = back;
            match step.map_err(failed("read log"))? {
                Step::Data(bytes) => yield bytes,
                Step::Wait => match &mut watch {
                    Some(watch) => watch.changed().await.map_err(failed("watch log"))?,
                    None => break,
                },
                Step::End => break,
            }
        }
    })
}

/// Waits until a log is complete: its writer has exited. There may be no log.
pub(crate) async fn log_is_complete(path: &Path) {
    let query = LogQuery { follow: true, tail_lines: Some(0), ..LogQuery::default() };
    let mut rest = read_log(path, query);
    while let Some(Ok(_)) = rest.next().await {}
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading a log does not panic")
}

enum Step {
    Data(Bytes),
    /// Everything was read, and there is a writer.
    Wait,
    End,
}

/// The state of a reader.
struct LogReader {
    path: PathBuf,
    query: LogQuery,
    file: File,
    /// The start of a line whose end was not read yet.
    carried: Vec<u8>,
    lines: Lines,
    left_bytes: Option<u64>,
}

impl LogReader {
    fn open(path: PathBuf, query: LogQuery) -> io::Result<Self> {
        let (file, start) = first_file(&path, &query)?;
        let mut reader = LogReader {
            left_bytes: query.limit_bytes,
            path,
            query,
            file,
            carried: Vec::new(),
            lines: Lines::default(),
        };
        reader.file.seek(SeekFrom::Start(start))?;
        Ok(reader)
    }

    /// Reads on, switching to the next file at the end of one.
    fn step(&mut self, follow: bool) -> io::Result<Step> {
        let mut waits = ROTATION_WAITS;
        loop {
            if self.left_bytes == Some(0) {
                return Ok(Step::End);
            }
            let gone = !follow || writer_has_gone(&self.path, &self.file)?;
            let data = self.read()?;
            if let Some(data) = data {
                if !data.is_empty() {
                    return Ok(Step::Data(data));
                }
                continue;
            }
            match next_file(&self.path, &self.file)? {
                Next::File(file) => {
                    self.file = file;
                    self.carried.clear();
                }
                Next::None if gone => return Ok(self.end()),
                Next::None => return Ok(Step::Wait),
                Next::Rotating if follow => return Ok(Step::Wait),
                Next::Rotating if waits == 0 => return Ok(self.end()),
                Next::Rotating => {
                    waits -= 1;
                    std::thread::sleep(ROTATION_PAUSE);
                }
                Next::Deleted => return Ok(self.end()),
            }
        }
    }

    /// The output of the next piece of the file, possibly empty; `None` at its end.
    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; READ_BYTES];
        let count = self.file.read(&mut buffer)?;
        if count == 0 {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut self.carried);
        text.extend_from_slice(&buffer[..count]);
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut out = Vec::with_capacity(whole);
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            self.line(&line[..line.len() - 1], &mut out);
        }
        if text.len() - whole <= MAX_CARRIED_BYTES {
            self.carried = text.split_off(whole);
        }
        Ok(Some(self.limited(out)))
    }

    fn limited(&mut self, mut out: Vec<u8>) -> Bytes {
        if let Some(left) = &mut self.left_bytes {
            let keep = usize::try_from(*left).map_or(out.len(), |left| left.min(out.len()));
            out.truncate(keep);
            *left -= keep as u64;
        }
        out.into()
    }

    /// The end, after what is still held back.
    fn end(&mut self) -> Step {
        match self.lines.rest() {
            rest if rest.is_empty() => Step::End,
            rest => Step::Data(self.limited(rest)),
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = LogLine::parse(line) else {
            return;
        };
        if self.query.stream.is_none_or(|stream| stream == line.stream) {
            self.lines.add(&line, &self.query, out);
        }
    }
}

/// Joins the parts of lines. Lines of one stream that end while one of the other is open are held
/// back until that is whole.
#[derive(Default)]
struct Lines {
    /// The stream whose line is open in what was returned.
    open: Option<LogStream>,
    /// Output of the other stream.
    held: Vec<u8>,
    /// Whether a line of it is open.
    held_open: bool,
    /// Streams whose open line is older than was asked for.
    skipped: Vec<LogStream>,
    /// Streams whose open line was begun.
    begun: Vec<LogStream>,
}

impl Lines {
    fn add(&mut self, line: &LogLine<'_>, query: &LogQuery, out: &mut Vec<u8>) {
        let stream = line.stream;
        // A line is as old as its first part.
        let old = || {
            let since = query.since;
            since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|at| at < since))
        };
        let skip =
            if self.begun.contains(&stream) { self.skipped.contains(&stream) } else { old() };
        for (streams, is) in [(&mut self.begun, true), (&mut self.skipped, skip)] {
            streams.retain(|other| *other != stream);
            if is && line.partial {
                streams.push(stream);
            }
        }
        if skip {
            return;
        }
        if self.open.is_some_and(|open| open != stream) {
            write_part(line, query, self.held_open, &mut self.held);
            self.held_open = line.partial;
            if self.held.len() > MAX_HELD_BYTES {
                out.push(b'\n');
                self.release(stream, out);
            }
            return;
        }
        write_part(line, query, self.open.is_some(), out);
        self.open = line.partial.then_some(stream);
        if self.open.is_none() {
            let other = match stream {
                LogStream::Stdout => LogStream::Stderr,
                LogStream::Stderr => LogStream::Stdout,
            };
            self.release(other, out);
        }
    }

    /// Returns what was held back of a stream, at the beginning of a line.
    fn release(&mut self, stream: LogStream, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.open = std::mem::take(&mut self.held_open).then_some(stream);
    }

    /// What is held back at the end of the log.
    fn rest(&mut self) -> Vec<u8> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let mut rest = vec![b'\n'];
        rest.append(&mut self.held);
        self.open = None;
        rest
    }
}

fn write_part(line: &LogLine<'_>, query: &LogQuery, open: bool, out: &mut Vec<u8>) {
    if query.timestamps && !open {
        out.extend_from_slice(line.time.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(line.text);
    if !line.partial {
        out.push(b'\n');
    }
}

/// The file to start with, and the offset in it.
fn first_file(path: &Path, query: &LogQuery) -> io::Result<(File, u64)> {
    let mut files = open_files(path)?;
    let Some(mut missing) = query.tail_lines else {
        return Ok((files.swap_remove(0), 0));
    };
    let mut begin = None;
    for file in files.into_iter().rev() {
        let (start, found) = find_tail(&file, query.stream, missing)?;
        // The first line found may have begun in the file before.
        if missing == 0 && begin.is_some() && start == file.metadata()?.len() {
            break;
        }
        begin = Some((file, start));
        missing -= found;
        if missing == 0 && start > 0 {
            break;
        }
    }
    begin.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The files of a log, oldest first; at least one. The current one is opened before the others are
/// listed: if it is rotated in between, it is found again under its new name, and no file is
/// missed.
fn open_files(path: &Path) -> io::Result<Vec<File>> {
    // Missing in the middle of a rotation, or if there is no log.
    let current = open_if_there(path)?;
    let own = current.as_ref().map(inode).transpose()?;
    let mut files = Vec::new();
    for rotated in rotated_files(path)? {
        let Some(file) = open_if_there(&rotated)? else {
            continue;
        };
        if Some(inode(&file)?) != own {
            files.push(file);
        }
    }
    files.extend(current);
    if files.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(files) }
}

enum Next {
    File(File),
    None,
    /// The current file was renamed, and the new one is not there yet.
    Rotating,
    Deleted,
}

/// The file after `current`, which may have been rotated since it was opened. As in [`open_files`],
/// the newest is opened before the others are listed.
fn next_file(path: &Path, current: &File) -> io::Result<Next> {
    let own = inode(current)?;
    let newest = open_if_there(path)?;
    if newest.as_ref().map(inode).transpose()? == Some(own) {
        return Ok(Next::None);
    }
    let mut found_own = false;
    let mut oldest = None;
    for rotated in rotated_or_none(path)? {
        let Some(file) = open_if_there(&rotated)? else {
            continue;
        };
        if found_own {
            return Ok(Next::File(file));
        }
        found_own = inode(&file)? == own;
        oldest.get_or_insert(file);
    }
    match newest {
        // Ours was removed by rotation: continue with the oldest remaining one.
        newest if !found_own => Ok(oldest.or(newest).map_or(Next::Deleted, Next::File)),
        Some(file) => Ok(Next::File(file)),
        None => Ok(Next::Rotating),
    }
}

fn rotated_or_none(path: &Path) -> io::Result<Vec<PathBuf>> {
    match rotated_files(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files,
    }
}

fn inode(file: &File) -> io::Result<u64> {
    file.metadata().map(|metadata| metadata.ino())
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
