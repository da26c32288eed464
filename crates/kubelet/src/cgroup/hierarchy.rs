//! Creating cgroups and setting their limits.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::resources::{self, HUGETLB, Setting};
use super::{CgroupError, CgroupPath, CgroupVersion, Cgroups, Resources, Result};

/// v1 hierarchies that a pod's cgroup is created in, where they are mounted. (The OCI runtime
/// creates the rest together with the container.)
const V1_CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "cpuset", HUGETLB];
/// Controllers that v2 levels delegate to their children, where the kernel has them.
const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", HUGETLB];

impl Cgroups {
    /// Creates a cgroup with all levels above it and sets its limits. Idempotent.
    pub fn ensure(&self, path: &CgroupPath, resources: &Resources) -> Result<()> {
        match self.version {
            CgroupVersion::V1 => self.make_v1(path)?,
            CgroupVersion::V2 => self.make_v2(path)?,
        }
        self.update(path, resources)
    }

    /// Changes the limits of an existing cgroup.
    pub fn update(&self, path: &CgroupPath, resources: &Resources) -> Result<()> {
        let settings = match self.version {
            CgroupVersion::V1 => resources::settings_v1(resources),
            CgroupVersion::V2 => resources::settings_v2(resources),
        };
        for Setting { controller, file, value } in settings {
            if controller == HUGETLB && !self.limits_huge_pages() {
                continue;
            }
            let target = self.directory(controller, path).join(file);
            match fs::write(&target, &value) {
                Ok(()) => {}
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && !self.has_controller(controller) =>
                {
                    return Err(CgroupError::MissingController(controller));
                }
                Err(source) => {
                    return Err(CgroupError::Io { operation: "write", path: target, source });
                }
            }
        }
        Ok(())
    }

    /// Whether huge pages can be limited.
    pub fn limits_huge_pages(&self) -> bool {
        self.has_controller(HUGETLB)
    }

    /// Whether the cgroup exists.
    pub fn exists(&self, path: &CgroupPath) -> bool {
        self.directory("memory", path).is_dir()
    }

    /// Names of the cgroups directly below `path`, in any hierarchy; none if it does not exist.
    pub fn children(&self, path: &CgroupPath) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for directory in self.directories(path)? {
            for entry in list_directories(&directory)? {
                if let Some(name) = entry.file_name().and_then(|name| name.to_str()) {
                    names.insert(name.to_string());
                }
            }
        }
        Ok(names)
    }

    /// The directory of a cgroup in a controller's hierarchy.
    pub(super) fn directory(&self, controller: &str, path: &CgroupPath) -> PathBuf {
        match self.version {
            CgroupVersion::V1 => self.mount.join(controller).join(path.relative()),
            CgroupVersion::V2 => self.mount.join(path.relative()),
        }
    }

    /// The directories of a cgroup in every mounted hierarchy, whether or not they exist.
    pub(super) fn directories(&self, path: &CgroupPath) -> Result<Vec<PathBuf>> {
        if self.version == CgroupVersion::V2 {
            return Ok(vec![self.mount.join(path.relative())]);
        }
        let mut hierarchies: Vec<PathBuf> = Vec::new();
        for mounted in list_directories(&self.mount)? {
            let canonical = mounted.canonicalize().unwrap_or(mounted);
            if !hierarchies.contains(&canonical) {
                hierarchies.push(canonical);
            }
        }
        Ok(hierarchies.into_iter().map(|hierarchy| hierarchy.join(path.relative())).collect())
    }

    fn has_controller(&self, controller: &str) -> bool {
        match self.version {
            CgroupVersion::V1 => self.mount.join(controller).is_dir(),
            CgroupVersion::V2 => fs::read_to_string(self.mount.join("cgroup.controllers"))
                .is_ok_and(|controllers| {
                    controllers.split_whitespace().any(|name| name == controller)
                }),
        }
    }

    fn make_v1(&self, path: &CgroupPath) -> Result<()> {
        for controller in V1_CONTROLLERS {
            if !self.has_controller(controller) {
                continue;
            }
            for level in path.levels() {
                let directory = self.directory(controller, &level);
                make_directory(&directory)?;
                if controller == "cpuset" {
                    inherit_cpuset(&directory)?;
                }
            }
        }
        Ok(())
    }

    fn make_v2(&self, path: &CgroupPath) -> Result<()> {
        let mut parent = self.mount.clone();
        for level in path.levels() {
            pass_controllers_on(&parent)?;
            let directory = self.mount.join(level.relative());
            make_directory(&directory)?;
            parent = directory;
        }
        pass_controllers_on(&parent)
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => {
            Err(CgroupError::Io { operation: "create", path: directory.to_path_buf(), source })
        }
    }
}

/// A new v1 cpuset is empty and cannot hold processes: fill it from its parent.
fn inherit_cpuset(directory: &Path) -> Result<()> {
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CgroupError::Io {
                operation: "read",
                path: path.to_path_buf(),
                source,
            })
        };
        if !read(&own)?.trim().is_empty() {
            continue;
        }
        let inherited = read(&parent.join(file))?;
        fs::write(&own, inherited.trim()).map_err(|source| CgroupError::Io {
            operation: "write",
            path: own,
            source,
        })?;
    }
    Ok(())
}

/// Enables every controller that a v2 level has for its children.
fn pass_controllers_on(directory: &Path) -> Result<()> {
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).map_err(|source| CgroupError::Io {
            operation: "read",
            path,
            source,
        })
    };
    let available = read("cgroup.controllers")?;
    let enabled = read("cgroup.subtree_control")?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|entry| entry == name);
    for controller in V2_CONTROLLERS {
        if has(&available, controller) && !has(&enabled, controller) {
            let path = directory.join("cgroup.subtree_control");
            fs::write(&path, format!("+{controller}")).map_err(|source| CgroupError::Io {
                operation: "enable controllers in",
                path,
                source,
            })?;
        }
    }
    Ok(())
}

/// The directories in a directory; none if it does not exist.
pub(super) fn list_directories(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed =
        |source| CgroupError::Io { operation: "list", path: directory.to_path_buf(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
