//! A log file rotated by size. The writer holds a lock on the file it writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::fcntl::{Flock, FlockArg};

use super::path::{rotated_files, rotated_path, unfinished_path};

/// How long another writer of the same log may take to give way: ten seconds.
const GIVE_WAY_TRIES: u32 = 2000;
const GIVE_WAY_PAUSE: Duration = Duration::from_millis(5);

/// The file being written.
pub(super) struct RotatingFile {
    path: PathBuf,
    file: Flock<File>,
    size: u64,
    max_size_bytes: u64,
    last_rotation: Option<Timestamp>,
    /// Files kept in addition to the current one.
    max_rotated: usize,
}

impl RotatingFile {
    /// Opens a log for appending. `ask` asks another writer of it to give way, for which it has
    /// some time; opening fails if `ask` returns false.
    pub(super) fn open(
        path: &Path,
        max_size_bytes: u64,
        max_files: u32,
        ask: impl Fn() -> bool,
    ) -> io::Result<Self> {
        let file = take_over(path, ask)?;
        let size = file.metadata()?.len();
        let max_rotated = usize::try_from(max_files.max(2)).map_or(1, |files| files - 1);
        Ok(RotatingFile {
            path: path.to_path_buf(),
            file,
            size,
            max_size_bytes,
            last_rotation: None,
            max_rotated,
        })
    }

    /// Appends whole lines, rotating before a line that would make the current file too large.
    pub(super) fn write(&mut self, mut lines: &[u8], now: Timestamp) -> io::Result<()> {
        while !lines.is_empty() {
            let room = usize::try_from(self.max_size_bytes.saturating_sub(self.size))
                .unwrap_or(usize::MAX);
            let fits = whole_lines(lines, room);
            if fits == 0 && self.size > 0 {
                self.rotate(now)?;
                continue;
            }
            // A line that is too large for any file gets one of its own.
            let count = if fits == 0 { first_line(lines) } else { fits };
            self.file.write_all(&lines[..count])?;
            self.size += count as u64;
            lines = &lines[count..];
        }
        Ok(())
    }

    /// Releases the lock before closing the file, so that a reader woken by the close finds it
    /// free.
    pub(super) fn close(self) -> io::Result<()> {
        let file = self.file.unlock().map_err(|(_, errno)| io::Error::from(errno))?;
        drop(file);
        Ok(())
    }

    /// The new file is locked before it becomes visible, and before the old one is released: a
    /// reader at the end of the old one sees either a writer or a successor that has one.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        // Names must be unique and sort, even if several are created at the same time.
        let nanosecond = SignedDuration::from_nanos(1);
        let mut stamp = self.last_rotation.map_or(now, |last| now.max(last + nanosecond));
        while rotated_path(&self.path, stamp).exists() {
            stamp += nanosecond;
        }
        let hidden = unfinished_path(&self.path);
        let new = open_locked(&hidden)?;
        fs::rename(&self.path, rotated_path(&self.path, stamp))?;
        fs::rename(&hidden, &self.path)?;
        self.last_rotation = Some(stamp);
        let old = std::mem::replace(&mut self.file, new);
        self.size = 0;
        drop(old.unlock().map_err(|(_, errno)| io::Error::from(errno))?);
        let rotated = rotated_files(&self.path)?;
        for file in &rotated[..rotated.len().saturating_sub(self.max_rotated)] {
            fs::remove_file(file)?;
        }
        Ok(())
    }
}

/// Length of the leading whole lines that fit into `room` bytes.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

/// Opens a file and locks it, waiting for the holder of the lock.
fn take_over(path: &Path, ask: impl Fn() -> bool) -> io::Result<Flock<File>> {
    for _ in 0..GIVE_WAY_TRIES {
        if let Some(file) = try_open_locked(path)? {
            return Ok(file);
        }
        // Repeatedly: the other one may not be listening yet.
        if !ask() {
            break;
        }
        std::thread::sleep(GIVE_WAY_PAUSE);
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another writer does not give way"))
}

fn try_open_locked(path: &Path) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(open_to_append(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Some(file)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn open_locked(path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(open_to_append(path)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Whether this log has a writer.
pub(crate) fn has_writer(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => Ok(!writer_has_gone(path, &file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this open log file has no writer.
pub(super) fn writer_has_gone(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    // Open it again: a lock belongs to an open file description.
    let again = match File::open(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(again) => again,
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(path)?,
        Err(error) => return Err(error),
    };
    match Flock::lock(again, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(true),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(false),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn rotates_by_size_and_limits_the_number_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = RotatingFile::open(&path, 10, 3, || true).unwrap();
        for second in 0..5 {
            log.write(format!("line {second}\n").as_bytes(), at(second)).unwrap();
        }
        let rotated: Vec<String> = rotated_files(&path)
            .unwrap()
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        assert_eq!(rotated, ["line 2\n", "line 3\n"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\n");
        let reader = File::open(&path).unwrap();
        assert!(!writer_has_gone(&path, &reader).unwrap());
        log.close().unwrap();
        assert!(writer_has_gone(&path, &reader).unwrap());
        let mut again = RotatingFile::open(&path, 100, 3, || true).unwrap();
        again.write(b"more\n", at(9)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\nmore\n");
        again.close().unwrap();
        super::super::remove_logs(&path).unwrap();
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_large_write_is_spread_over_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = RotatingFile::open(&path, 4, 10, || true).unwrap();
        log.write(b"a\nb\nc\ntoo long\nd\n", at(0)).unwrap();
        let mut files = rotated_files(&path).unwrap();
        files.push(path);
        let texts: Vec<String> =
            files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts, ["a\nb\n", "c\n", "too long\n", "d\n"]);
    }
}
