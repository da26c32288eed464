//! Files that somebody else replaces while the process runs: certificates above all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::directory_watch::Watch;

/// How long after a change files are read: several are replaced together.
const SETTLE: Duration = Duration::from_millis(100);
/// When directories that cannot be watched are looked at again.
const AGAIN: Duration = Duration::from_secs(60);

/// What `read` makes of files, now and whenever they change. What cannot be read is logged, and the
/// last value stays.
///
/// # Errors
/// Those of the first `read`.
pub fn follow<T, F>(
    paths: &[PathBuf],
    read: F,
    shutdown: CancellationToken,
) -> anyhow::Result<watch::Receiver<Arc<T>>>
where
    T: PartialEq + Send + Sync + 'static,
    F: Fn() -> anyhow::Result<T> + Send + 'static,
{
    // Mounted files are replaced by links to another directory.
    let parents = paths.iter().filter_map(|path| path.parent());
    let here = |path: &Path| path.as_os_str().is_empty();
    let parents = parents.map(|path| if here(path) { Path::new(".") } else { path });
    let directories: BTreeSet<PathBuf> = parents.map(Path::to_owned).collect();
    // Before the first read, so that no change is missed.
    let watches = watch_all(&directories);
    let (sender, receiver) = watch::channel(Arc::new(read()?));
    tokio::spawn(async move {
        tokio::select! {
            () = keep(directories, watches, read, &sender) => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(receiver)
}

fn watch_all(directories: &BTreeSet<PathBuf>) -> std::io::Result<Vec<Watch>> {
    directories.iter().map(|directory| Watch::new(directory)).collect()
}

async fn keep<T: PartialEq>(
    directories: BTreeSet<PathBuf>,
    mut watches: std::io::Result<Vec<Watch>>,
    read: impl Fn() -> anyhow::Result<T>,
    sender: &watch::Sender<Arc<T>>,
) {
    loop {
        match &mut watches {
            Ok(all) if all.is_empty() => return,
            Ok(all) => {
                let changes = all.iter_mut().map(|watch| watch.changed().boxed());
                let (changed, ..) = select_all(changes).await;
                if let Err(error) = changed {
                    watches = Err(error);
                    continue;
                }
                tokio::time::sleep(SETTLE).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch files; looking at them again later");
                tokio::time::sleep(AGAIN).await;
                watches = watch_all(&directories);
            }
        }
        match read() {
            Ok(value) => {
                let changed = sender.send_if_modified(|current| {
                    let changed = **current != value;
                    if changed {
                        *current = Arc::new(value);
                    }
                    changed
                });
                if changed {
                    tracing::info!(?directories, "files have changed; using the new ones");
                }
            }
            // Of a pair, one may be new and the other old still.
            Err(error) => tracing::warn!(
                error = crate::errors::cause_chain(&*error),
                "files have changed and cannot be used; keeping the old ones"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_value_that_could_be_read_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let write = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        write("1");
        let read = {
            let path = path.clone();
            move || Ok(std::fs::read_to_string(&path)?.trim().parse::<u32>()?)
        };
        let stop = CancellationToken::new();
        let mut value = follow(std::slice::from_ref(&path), read, stop.clone()).unwrap();
        assert_eq!(**value.borrow_and_update(), 1);
        write("none");
        write("2");
        value.changed().await.unwrap();
        assert_eq!(**value.borrow_and_update(), 2);
        write("none");
        std::fs::remove_file(&path).unwrap();
        write("3");
        value.changed().await.unwrap();
        assert_eq!(**value.borrow(), 3);
        stop.cancel();
    }
}
