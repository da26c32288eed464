//! Network namespaces that are pinned by a bind mount, as by `ip netns`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::cluster::layout::NAMESPACES;

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Creates a namespace and pins it at the path, unless one is pinned there already.
///
/// # Errors
/// When the namespace or the mount cannot be created.
pub fn pin(path: &Path) -> anyhow::Result<()> {
    if is_namespace(path) {
        return Ok(());
    }
    prepare_folder()?;
    File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let target = path.to_owned();
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
        mount(Some(OWN), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot pin the network namespace {}", target.display()))
    })
}

/// Removes the pin, if it exists; the namespace goes away with its last process.
///
/// # Errors
/// When the pin exists and cannot be removed.
pub fn unpin(path: &Path) -> anyhow::Result<()> {
    if is_namespace(path) {
        umount2(path, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", path.display()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The pins whose file name begins with the prefix.
///
/// # Errors
/// When the folder exists and cannot be read.
pub fn with_prefix(prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(NAMESPACES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {NAMESPACES}")),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Runs `work` on a thread inside the pinned namespace; processes that it starts are inside as
/// well.
///
/// # Errors
/// When the namespace cannot be entered, or `work` fails.
pub fn within<T: Send>(
    path: &Path,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let namespace = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    on_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .context("cannot enter the network namespace")?;
        work()
    })
}

/// Runs `work` on a thread inside a new namespace, which is gone afterwards.
///
/// # Errors
/// When the namespace cannot be created, or `work` fails.
pub fn within_new<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
        work()
    })
}

/// Writes a kernel setting of the calling thread's namespace; `key` is its path below
/// `/proc/sys`.
///
/// # Errors
/// Names the setting.
pub fn sysctl(key: &str, value: &str) -> anyhow::Result<()> {
    fs::write(Path::new("/proc/sys").join(key), value)
        .with_context(|| format!("cannot set {key} to {value}"))
}

fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(anyhow!("the namespace's thread panicked")))
    })
}

fn is_namespace(path: &Path) -> bool {
    let Ok(status) = nix::sys::statfs::statfs(path) else {
        return false;
    };
    status.filesystem_type() == nix::sys::statfs::NSFS_MAGIC
}

/// The folder must be a shared mount of its own; otherwise a pin that is removed here would survive
/// in the mount namespaces of other processes.
fn prepare_folder() -> anyhow::Result<()> {
    let folder = Path::new(NAMESPACES);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {NAMESPACES}"))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, folder, None::<&str>, flags, None::<&str>)
    };
    if share().is_ok() {
        return Ok(());
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(folder), folder, None::<&str>, flags, None::<&str>)
        .and_then(|()| share())
        .with_context(|| format!("cannot make {NAMESPACES} a mount of its own"))
}
