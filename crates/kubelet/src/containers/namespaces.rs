//! Creates a pod's namespaces and pins them by bind mounts, so that they exist without any process.
//!
//! A short-lived thread moves itself into new namespaces, sets the host name and sysctls in them,
//! and bind-mounts `/proc/thread-self/ns/*` onto files. Everything here blocks: run it on a
//! blocking thread.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, TMPFS_MAGIC, statfs};

use super::error::{Result, RuntimeError};
use super::pod::PodConfig;
use super::user_namespace;

/// Default size of `/dev/shm`.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Where a pod's pins are.
#[derive(Debug, Clone)]
pub(super) struct PodPaths {
    /// `<root>/pods/<uid>`.
    pub(super) base: PathBuf,
}

impl PodPaths {
    pub(super) fn new(root: &Path, pod_uid: &str) -> Self {
        PodPaths { base: root.join("pods").join(pod_uid) }
    }

    pub(super) fn namespace(&self, kind: &str) -> PathBuf {
        self.base.join("ns").join(kind)
    }

    /// Exists if the pod has images as volumes.
    pub(super) fn images(&self) -> PathBuf {
        self.base.join("ns").join("images")
    }

    fn sandbox_id(&self) -> PathBuf {
        self.base.join("ns").join("id")
    }

    pub(super) fn shm(&self) -> PathBuf {
        self.base.join("shm")
    }

    pub(super) fn pause(&self) -> PathBuf {
        self.base.join("pause")
    }

    pub(super) fn io(&self) -> PathBuf {
        self.base.join("io")
    }
}

/// A kind of namespace that a pod has of its own.
pub(super) struct Kind {
    pub(super) name: &'static str,
    flag: CloneFlags,
}

pub(super) fn own_kinds(config: &PodConfig) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if config.user_namespace {
        kinds.push(Kind { name: "user", flag: CloneFlags::CLONE_NEWUSER });
    }
    if !config.host_network {
        kinds.push(Kind { name: "net", flag: CloneFlags::CLONE_NEWNET });
    }
    if !config.host_uts {
        kinds.push(Kind { name: "uts", flag: CloneFlags::CLONE_NEWUTS });
    }
    if !config.host_ipc {
        kinds.push(Kind { name: "ipc", flag: CloneFlags::CLONE_NEWIPC });
    }
    kinds
}

/// Creates the pod's namespaces if any is missing, and returns whether they are new. All are
/// created together: processes in old ones would see half a pod. `program` is the one of
/// [`user_namespace::make`].
pub(super) fn ensure(paths: &PodPaths, config: &PodConfig, program: &Path) -> Result<bool> {
    let kinds = own_kinds(config);
    if kinds.iter().all(|kind| is_pinned(&paths.namespace(kind.name))) {
        return Ok(false);
    }
    let failed = |step: &str, source: io::Error| RuntimeError::Namespace {
        pod: config.pod.uid.clone(),
        step: step.to_string(),
        source,
    };
    let directory = paths.base.join("ns");
    fs::create_dir_all(&directory).map_err(RuntimeError::io("create", &directory))?;
    // First of all: whatever is created after it has this id, wherever this is interrupted.
    let id = paths.sandbox_id();
    let random = format!("{:016x}", rand::random::<u64>());
    fs::write(&id, random).map_err(RuntimeError::io("write", &id))?;
    for kind in &kinds {
        unpin(&paths.namespace(kind.name))?;
    }
    if config.user_namespace {
        user_namespace::make(paths, config, program)?;
        return Ok(true);
    }
    let (paths, config) = (paths.clone(), config.clone());
    let thread = std::thread::Builder::new()
        .name("pod-namespaces".to_string())
        .spawn(move || make_in_this_thread(&paths, &config, &kinds))
        .map_err(|error| failed("start a thread", error))?;
    thread.join().expect("creating namespaces does not panic")?;
    Ok(true)
}

/// The id of the pod's present namespaces; empty if it has none of its own.
pub(super) fn id(paths: &PodPaths) -> Result<String> {
    let path = paths.sandbox_id();
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(RuntimeError::io("read", &path)(error)),
    }
}

/// Moves this thread into new namespaces and pins them. The thread must exit afterwards.
fn make_in_this_thread(paths: &PodPaths, config: &PodConfig, kinds: &[Kind]) -> Result<()> {
    set_up(config, kinds)?;
    for kind in kinds {
        pin(&Path::new("/proc/thread-self/ns").join(kind.name), &paths.namespace(kind.name))
            .map_err(failed(config, format!("pin {}", kind.name)))?;
    }
    Ok(())
}

fn failed(config: &PodConfig, step: String) -> impl FnOnce(Errno) -> RuntimeError {
    let pod = config.pod.uid.clone();
    move |errno| RuntimeError::Namespace { pod, step, source: errno.into() }
}

/// Moves this thread into new namespaces, and sets them up.
pub(super) fn set_up(config: &PodConfig, kinds: &[Kind]) -> Result<()> {
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag);
    unshare(flags).map_err(failed(config, "make them".to_string()))?;
    if !config.host_uts && !config.hostname.is_empty() {
        nix::unistd::sethostname(&config.hostname)
            .map_err(failed(config, format!("set host name {:?}", config.hostname)))?;
    }
    set_sysctls(config)
}

/// `/proc/sys` shows the namespaces of the thread that opens a file.
fn set_sysctls(config: &PodConfig) -> Result<()> {
    for (name, value) in &config.sysctls {
        let known = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..");
        // "a.b/c.d" names a file with a dot, as in sysctl(8).
        let file = match name.find(['.', '/']) {
            Some(at) if name.as_bytes()[at] == b'/' => name.clone(),
            _ => name
                .chars()
                .map(|letter| match letter {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect(),
        };
        let path = Path::new("/proc/sys").join(file);
        let written =
            if known { fs::write(&path, value) } else { Err(io::ErrorKind::InvalidInput.into()) };
        written.map_err(|source| RuntimeError::Namespace {
            pod: config.pod.uid.clone(),
            step: format!("set sysctl {name}={value}"),
            source,
        })?;
    }
    Ok(())
}

/// Bind-mounts a namespace file of `/proc` onto `target`.
pub(super) fn pin(source: &Path, target: &Path) -> std::result::Result<(), Errno> {
    let to_errno =
        |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
    fs::File::create(target).map_err(to_errno)?;
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// Whether `path` is a pinned namespace.
pub(super) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Releases a pin and removes its file.
pub(super) fn unpin(path: &Path) -> Result<()> {
    unmount(path)?;
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RuntimeError::Io { operation: "remove", path: path.into(), source }),
    }
}

/// Mounts the pod's shared memory unless it is mounted.
pub(super) fn ensure_shm(paths: &PodPaths, config: &PodConfig) -> Result<PathBuf> {
    if config.host_ipc {
        return Ok(PathBuf::from("/dev/shm"));
    }
    let path = paths.shm();
    fs::create_dir_all(&path).map_err(RuntimeError::io("create", &path))?;
    if !is_tmpfs_mount(&path) {
        let size = config.shm_size_bytes.unwrap_or(DEFAULT_SHM_BYTES);
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("shm"),
            &path,
            Some("tmpfs"),
            flags,
            Some(format!("mode=1777,size={size}").as_str()),
        )
        .map_err(|errno| RuntimeError::Io {
            operation: "mount shared memory at",
            path: path.clone(),
            source: errno.into(),
        })?;
    }
    if let Some(namespace) = user_namespace::UserNamespace::of(paths)? {
        let owner = Some(namespace.first_id);
        std::os::unix::fs::chown(&path, owner, owner)
            .map_err(RuntimeError::io("give away", &path))?;
    }
    Ok(path)
}

/// Whether a tmpfs is mounted at exactly this path.
fn is_tmpfs_mount(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = path.parent().and_then(device);
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) && device(path) != parent
}

/// Removes all pins and mounts of a pod, and its runtime directories, if there are any.
pub(super) fn remove(paths: &PodPaths) -> Result<()> {
    user_namespace::remove(paths)?;
    for kind in ["user", "net", "uts", "ipc", "pid"] {
        unpin(&paths.namespace(kind))?;
    }
    unmount(&paths.shm())?;
    for directory in [paths.base.join("ns"), paths.shm(), paths.pause(), paths.io()] {
        match fs::remove_dir_all(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(RuntimeError::Io { operation: "remove", path: directory, source });
            }
        }
    }
    // The pod's directory also holds its volumes, which belong to the caller: remove it only when
    // empty.
    match fs::remove_dir(&paths.base) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(source) => {
            Err(RuntimeError::Io { operation: "remove", path: paths.base.clone(), source })
        }
    }
}

/// Unmounts everything mounted at `path`, which need not exist.
pub(super) fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => {
                return Err(RuntimeError::Io {
                    operation: "unmount",
                    path: path.into(),
                    source: errno.into(),
                });
            }
        }
    }
}

/// Uids of the pods that have pins under the root.
pub(super) fn pinned_pods(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("pods");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(RuntimeError::Io { operation: "list", path: directory, source });
        }
    };
    let mut pods = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RuntimeError::io("list", &directory))?;
        if entry.path().join("ns").is_dir() || entry.path().join("shm").is_dir() {
            pods.extend(entry.file_name().into_string());
        }
    }
    Ok(pods)
}
