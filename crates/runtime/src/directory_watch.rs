//! Waiting for a directory to change, by inotify: for logs to grow, for the manifests of static pods,
//! for configuration files and certificates to be replaced.
//!
//! Most machines limit a user (including root) to 128 inotify instances, so all watches of a process
//! share one, read by one thread. The thread is started with the first watch.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A killed writer releases its lock just after the event that its file was closed; checking again
/// this much later is sure to see it.
const AFTER_CLOSE: Duration = Duration::from_millis(50);

const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF);

/// The process's instance, once a directory has been watched.
static SHARED: Mutex<Option<Arc<Hub>>> = Mutex::new(None);

/// How often a directory has changed, and how often because a file was closed.
#[derive(Clone, Copy, Default)]
struct Changes {
    all: u64,
    closings: u64,
}

struct Directory {
    changes: watch::Sender<Changes>,
    followers: usize,
}

/// One inotify instance and its waiters.
struct Hub {
    inotify: Inotify,
    directories: Mutex<HashMap<WatchDescriptor, Directory>>,
}

impl Hub {
    fn shared() -> io::Result<Arc<Self>> {
        let mut shared = SHARED.lock();
        if let Some(hub) = &*shared {
            return Ok(hub.clone());
        }
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let hub = Arc::new(Hub { inotify, directories: Mutex::default() });
        let reader = hub.clone();
        std::thread::Builder::new().name("inotify".to_string()).spawn(move || reader.read())?;
        *shared = Some(hub.clone());
        Ok(hub)
    }

    /// Reads events for as long as the process lives.
    fn read(&self) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => events.iter().for_each(|event| self.tell(event)),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "directories can no longer be watched");
                    // Waiters read once more, and see that there will be no more events.
                    self.directories.lock().clear();
                    *SHARED.lock() = None;
                    return;
                }
            }
        }
    }

    fn tell(&self, event: &InotifyEvent) {
        let closing = event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
        let count = |changes: &mut Changes| {
            changes.all += 1;
            changes.closings += u64::from(closing);
        };
        let directories = self.directories.lock();
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            directories.values().for_each(|directory| directory.changes.send_modify(count));
        } else if let Some(directory) = directories.get(&event.wd) {
            directory.changes.send_modify(count);
        }
    }
}

/// A watch of one directory.
pub struct Watch {
    hub: Arc<Hub>,
    descriptor: WatchDescriptor,
    changes: watch::Receiver<Changes>,
    closings: u64,
}

impl Watch {
    /// Starts watching. Do it before reading, so that no change is missed.
    ///
    /// # Errors
    /// When there is no such directory, or the machine allows no further watches.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let hub = Hub::shared()?;
        let mut directories = hub.directories.lock();
        // A directory that is watched already gets the same descriptor.
        let descriptor = hub.inotify.add_watch(directory, CHANGES)?;
        let fresh = || Directory { changes: watch::Sender::default(), followers: 0 };
        let entry = directories.entry(descriptor).or_insert_with(fresh);
        entry.followers += 1;
        let changes = entry.changes.subscribe();
        let closings = changes.borrow().closings;
        drop(directories);
        Ok(Watch { hub, descriptor, changes, closings })
    }

    /// Waits until something has changed since the last call.
    ///
    /// # Errors
    /// When directories can no longer be watched.
    pub async fn changed(&mut self) -> io::Result<()> {
        self.changes.changed().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        let closings = self.changes.borrow_and_update().closings;
        if closings != self.closings {
            self.closings = closings;
            tokio::time::sleep(AFTER_CLOSE).await;
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut directories = self.hub.directories.lock();
        let Some(directory) = directories.get_mut(&self.descriptor) else {
            return;
        };
        directory.followers -= 1;
        if directory.followers == 0 {
            directories.remove(&self.descriptor);
            // A directory that was removed has taken its watch with it.
            self.hub.inotify.rm_watch(self.descriptor).ok();
        }
    }
}
