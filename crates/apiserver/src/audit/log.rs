//! The log file, which begins anew when it is large, and its backups (as lumberjack has them).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::SharedClock;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The time in a backup's name.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";
const DAY: Duration = Duration::from_secs(86_400);

/// When the file begins anew, and which backups are kept; 0: no limit.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    pub max_bytes: u64,
    pub max_age_days: u64,
    pub max_backups: usize,
    pub compress: bool,
}

/// Where events are written.
pub enum Log {
    Stdout,
    File(LogFile),
}

impl Log {
    /// # Errors
    /// When the disk is full, and the like.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.flush()
            }
            Self::File(file) => file.write(line),
        }
    }
}

/// A file.
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
    clock: SharedClock,
}

impl LogFile {
    /// Opens the file, and creates it and its folder where they are missing.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(path: &Path, rotation: Rotation, clock: SharedClock) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, size, clock })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let (length, max) = (line.len() as u64, self.rotation.max_bytes);
        if max > 0 && length > max {
            let why = format!("write length {length} exceeds maximum file size {max}");
            return Err(io::Error::other(why));
        }
        if max > 0 && self.size + length > max {
            self.rotate()?;
        }
        let written = self.file.write_all(line);
        // A full disk may have taken a part of it.
        self.size = match &written {
            Ok(()) => self.size + length,
            Err(_) => self.file.metadata().map_or(self.size, |metadata| metadata.len()),
        };
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut now = self.clock.now();
        let mut backup = self.backup(now);
        while backup.exists() {
            now += Duration::from_millis(1);
            backup = self.backup(now);
        }
        fs::rename(&self.path, backup)?;
        self.file = append_to(&self.path)?;
        self.size = 0;
        // The log goes on whatever becomes of the backups.
        if let Err(error) = self.clean(now) {
            tracing::warn!(%error, "cannot clean up the backups of the audit log");
        }
        Ok(())
    }

    /// `folder/audit-2026-01-31T12-00-00.000.log` of `folder/audit.log`.
    fn backup(&self, at: Timestamp) -> PathBuf {
        let (stem, extension) = self.parts();
        let stamp = at.to_zoned(TimeZone::UTC).strftime(STAMP).to_string();
        self.path.with_file_name(format!("{stem}-{stamp}{extension}"))
    }

    fn parts(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.rfind('.') {
            Some(at) => (name[..at].to_owned(), name[at..].to_owned()),
            None => (name, String::new()),
        }
    }

    /// Compresses backups, and removes those that are too old or too many.
    fn clean(&self, now: Timestamp) -> io::Result<()> {
        let (stem, extension) = self.parts();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut backups = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let stamp = plain
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(&extension));
            if let Some(stamp) = stamp
                && let Ok(time) = DateTime::strptime(STAMP, stamp)
                && let Ok(time) = time.to_zoned(TimeZone::UTC)
            {
                backups.push((time.timestamp(), entry.path()));
            }
        }
        backups.sort();
        backups.reverse();
        let oldest = u32::try_from(self.rotation.max_age_days).map_or(now, |days| now - DAY * days);
        for (index, (time, path)) in backups.iter().enumerate() {
            let many = self.rotation.max_backups > 0 && index >= self.rotation.max_backups;
            let old = self.rotation.max_age_days > 0 && *time < oldest;
            if many || old {
                fs::remove_file(path)?;
            } else if self.rotation.compress && path.extension().is_none_or(|end| end != "gz") {
                compress(path)?;
            }
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = PathBuf::from(name);
    let out =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&target)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests;
