//! Keeps the processes' logs from growing without bound.
//!
//! A process writes to the file that it was started with, and keeps writing without the supervisor;
//! so the file is kept, and its head is moved to a second one: the kernel removes what was copied
//! (`FALLOC_FL_COLLAPSE_RANGE`), which loses no line and moves no data. On file systems without
//! that operation the file is truncated.
//!
//! This is idle until a log is written to, and checks sizes at most once a minute.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// Size above which a log is rotated. There is one old file, `NAME.log.1`.
const LOG_MAX_BYTES: u64 = 16 << 20;
/// Minimum time between checks of sizes.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Watches the logs in a folder until dropped.
pub async fn keep_small(folder: PathBuf) {
    loop {
        if let Err(error) = written(&folder).await {
            tracing::warn!(%error, folder = %folder.display(), "cannot watch the logs");
        }
        let path = folder.clone();
        match tokio::task::spawn_blocking(move || rotate_all(&path, LOG_MAX_BYTES)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot rotate a log"),
            Err(error) => tracing::error!(%error, "rotating the logs failed"),
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Waits until something in the folder is written to.
async fn written(folder: &Path) -> std::io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // One event is enough: the kernel reports no further ones.
    inotify.add_watch(folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT)?;
    // Not a pipe, but read like one.
    let events = File::from(inotify.as_fd().try_clone_to_owned()?);
    Receiver::from_file_unchecked(events)?.readable().await
}

fn rotate_all(folder: &Path, max_bytes: u64) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && std::fs::metadata(&path)?.len() > max_bytes {
            rotate(&path)?;
        }
    }
    Ok(())
}

/// Moves all but the last block of a log into `NAME.log.1`.
fn rotate(path: &Path) -> std::io::Result<()> {
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let metadata = file.metadata()?;
    let block = metadata.blksize().max(1);
    let head = metadata.len().saturating_sub(1) / block * block;
    copy_head(&mut file, head, Path::new(&old))?;
    let offset = |bytes: u64| i64::try_from(bytes).map_err(std::io::Error::other);
    match fallocate(&file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, offset(head)?) {
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => file.set_len(0),
        done => Ok(done?),
    }
}

fn copy_head(file: &mut File, bytes: u64, to: &Path) -> std::io::Result<()> {
    let mut copy = File::create(to)?;
    std::io::copy(&mut file.take(bytes), &mut copy)?;
    copy.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_written_to_loses_its_head_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let lines = |range: std::ops::Range<u32>| -> String {
            range.map(|number| format!("line {number}\n")).collect()
        };
        writer.write_all(lines(0..5000).as_bytes()).unwrap();
        std::fs::write(folder.path().join("small.log"), "little\n").unwrap();
        rotate_all(folder.path(), 10_000).unwrap();
        writer.write_all(lines(5000..5010).as_bytes()).unwrap();

        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (old, new) = (read("a.log.1"), read("a.log"));
        assert!(new.len() < 10_000, "{}", new.len());
        assert!(new.ends_with("line 5009\n"));
        // File systems that cannot collapse a range lose the last block.
        let whole = old + &new;
        assert!(whole.starts_with("line 0\n") && whole.len() + 4096 > lines(0..5010).len());
        assert_eq!(read("small.log"), "little\n");
        assert!(!folder.path().join("small.log.1").exists());
    }

    #[tokio::test]
    async fn a_write_wakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, "").unwrap();
        let mut waiting = std::pin::pin!(written(folder.path()));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("nothing was written"),
            () = std::future::ready(()) => {}
        }
        std::fs::write(&path, "line\n").unwrap();
        waiting.await.unwrap();
    }
}
