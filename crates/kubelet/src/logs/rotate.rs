//! A log file that is rotated by size. The writer holds a lock on the file it writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use super::path::{rotated_files, rotated_path};

/// The file that lines go to.
pub(super) struct RotatingFile {
    path: PathBuf,
    file: Flock<File>,
    size: u64,
    max_size_bytes: u64,
    /// Files kept besides the current one.
    max_rotated: usize,
}

impl RotatingFile {
    /// Opens a log to append to it. Waits for another writer of the same file to end.
    pub(super) fn open(path: &Path, max_size_bytes: u64, max_files: u32) -> io::Result<Self> {
        let file = open_locked(path)?;
        let size = file.metadata()?.len();
        let max_rotated = usize::try_from(max_files.max(2)).map_or(1, |files| files - 1);
        Ok(RotatingFile { path: path.to_path_buf(), file, size, max_size_bytes, max_rotated })
    }

    /// Appends whole lines, rotating first if they would make the file too large.
    pub(super) fn write(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.max_size_bytes {
            self.rotate(now)?;
        }
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }

    /// Lets go of the lock before the file, so that a reader woken by the closing finds it free.
    pub(super) fn close(self) -> io::Result<()> {
        let file = self.file.unlock().map_err(|(_, errno)| io::Error::from(errno))?;
        drop(file);
        Ok(())
    }

    /// The new file is locked before the old one is let go: a reader at the old one's end then sees
    /// either a writer or a successor.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        fs::rename(&self.path, rotated_path(&self.path, now))?;
        let new = open_locked(&self.path)?;
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

fn open_locked(path: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// True if nobody writes to this open log file.
pub(super) fn writer_has_gone(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    // A description of its own: a lock belongs to one.
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
    fn rotates_by_size_and_keeps_so_many_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = RotatingFile::open(&path, 10, 3).unwrap();
        for second in 0..5 {
            log.write(format!("line {second}\n").as_bytes(), at(second)).unwrap();
        }
        let rotated: Vec<String> =
            rotated_files(&path).unwrap().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(rotated, ["line 2\n", "line 3\n"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\n");
        let reader = File::open(&path).unwrap();
        assert!(!writer_has_gone(&path, &reader).unwrap());
        log.close().unwrap();
        assert!(writer_has_gone(&path, &reader).unwrap());
        let mut again = RotatingFile::open(&path, 100, 3).unwrap();
        again.write(b"more\n", at(9)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\nmore\n");
        again.close().unwrap();
        super::super::remove_logs(&path).unwrap();
        assert!(!directory.path().exists());
    }
}
