//! Waiting for a log to grow, by inotify on its directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// A writer that was killed lets go of its lock just after the event that its file was closed; looking
/// again this much later is sure to see it.
const AFTER_CLOSE: Duration = Duration::from_millis(50);
const EVENTS_BYTES: usize = 16 << 10;
/// `struct inotify_event` without its name: wd, mask, cookie, len, 32 bits each (inotify(7)).
const EVENT_HEADER_BYTES: usize = 16;

/// Watches the directory of a log.
pub(super) struct Watch {
    /// An inotify descriptor is read like a pipe.
    events: pipe::Receiver,
    buffer: Vec<u8>,
}

impl Watch {
    /// Starts to watch. Make it before reading, so that no change is missed.
    pub(super) fn new(log: &Path) -> io::Result<Self> {
        let directory = log.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(directory, changes)?;
        let events = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))?;
        Ok(Watch {
            events,
            buffer: vec![0; EVENTS_BYTES],
        })
    }

    /// Waits until something has changed since the last call.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let count = self.events.read(&mut self.buffer).await?;
        if masks(&self.buffer[..count]).any(|mask| mask & AddWatchFlags::IN_CLOSE_WRITE.bits() != 0)
        {
            tokio::time::sleep(AFTER_CLOSE).await;
        }
        Ok(())
    }
}

/// The masks of a batch of events.
fn masks(mut events: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let header = events.get(..EVENT_HEADER_BYTES)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (mask, name_bytes) = (word(4), word(12) as usize);
        events = events
            .get(EVENT_HEADER_BYTES + name_bytes..)
            .unwrap_or_default();
        Some(mask)
    })
}
