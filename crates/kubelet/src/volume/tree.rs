//! Walks through the files of a volume, which a container may be changing at the same time.
//!
//! A tree is walked by file descriptors, never by paths: links are seen and not followed, so that
//! a directory replaced by a link leads nowhere. It ends where something else is mounted. Its
//! depth is bounded by nothing but memory, since containers decide on it: no recursion, and only
//! [`OPEN_MAX`] directories are open at a time. Blocks on the file system.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Directories that are open at a time; those above are found again through `..`.
const OPEN_MAX: usize = 32;
const PATH_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A file, directory or link of the tree.
pub struct Visit<'a> {
    /// Opened with `O_PATH`.
    pub file: BorrowedFd<'a>,
    pub stat: &'a FileStat,
    /// Its directory and its name in there; the root of the tree has none.
    pub parent: Option<(BorrowedFd<'a>, &'a CStr)>,
}

impl Visit<'_> {
    pub fn is_directory(&self) -> bool {
        kind(self.stat) == SFlag::S_IFDIR
    }

    pub fn is_link(&self) -> bool {
        kind(self.stat) == SFlag::S_IFLNK
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// A directory that is being walked.
struct Level {
    /// `None` while too many others are open.
    directory: Option<OwnedFd>,
    stat: FileStat,
    name: CString,
    /// What is left to visit in it.
    names: Vec<CString>,
}

impl Level {
    fn new(directory: OwnedFd, stat: FileStat, name: CString) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut names = Vec::new();
        for entry in Dir::openat(&directory, ".", flags, Mode::empty())?.iter() {
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(Self { directory: Some(directory), stat, name, names })
    }

    fn open(&self) -> &OwnedFd {
        self.directory.as_ref().expect("the level that is walked is open")
    }

    /// Opens the directory again, from one in it.
    fn reopen(&mut self, below: &OwnedFd) -> io::Result<()> {
        if self.directory.is_some() {
            return Ok(());
        }
        let found = openat(below, "..", PATH_ONLY, Mode::empty())?;
        let stat = fstat(&found)?;
        if (stat.st_dev, stat.st_ino) != (self.stat.st_dev, self.stat.st_ino) {
            return Err(io::Error::other("a directory was moved while its tree was walked"));
        }
        self.directory = Some(found);
        Ok(())
    }
}

/// Visits everything in the tree of `root`, itself included; a directory after what is in it. What
/// vanishes meanwhile is not visited.
pub fn walk(root: OwnedFd, mut visit: impl FnMut(&Visit<'_>) -> io::Result<()>) -> io::Result<()> {
    use std::os::fd::AsFd;
    let stat = fstat(&root)?;
    if kind(&stat) != SFlag::S_IFDIR {
        return visit(&Visit { file: root.as_fd(), stat: &stat, parent: None });
    }
    let mut levels = vec![Level::new(root, stat, CString::default())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.pop() {
            let file = match openat(level.open(), name.as_c_str(), PATH_ONLY, Mode::empty()) {
                Err(Errno::ENOENT) => continue,
                found => found?,
            };
            let stat = fstat(&file)?;
            if is_mounted(level, &file, &stat)? {
                continue;
            }
            if kind(&stat) == SFlag::S_IFDIR {
                levels.push(Level::new(file, stat, name)?);
                if let Some(far) = levels.len().checked_sub(OPEN_MAX + 1) {
                    levels[far].directory = None;
                }
            } else {
                let parent = Some((level.open().as_fd(), name.as_c_str()));
                visit(&Visit { file: file.as_fd(), stat: &stat, parent })?;
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let parent = match levels.last_mut() {
            Some(parent) => {
                parent.reopen(done.open())?;
                Some((parent.open().as_fd(), done.name.as_c_str()))
            }
            None => None,
        };
        visit(&Visit { file: done.open().as_fd(), stat: &done.stat, parent })?;
    }
    Ok(())
}

/// Whether something else is mounted there. Another device may also be a part of the same file
/// system (a subvolume).
fn is_mounted(level: &Level, file: &OwnedFd, stat: &FileStat) -> io::Result<bool> {
    Ok(stat.st_dev != level.stat.st_dev && mount_id(file)? != mount_id(level.open())?)
}

fn mount_id(file: &OwnedFd) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.map(|id| id.trim().to_owned()).ok_or_else(|| io::Error::other("fdinfo has no mnt_id"))
}

/// Opens the root of a tree. `follow`: the path itself may be a link.
pub fn open(path: &Path, follow: bool) -> io::Result<OwnedFd> {
    let flags = if follow { PATH_ONLY.difference(OFlag::O_NOFOLLOW) } else { PATH_ONLY };
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Removes a tree, if it exists. Nothing that is mounted in it is touched: then it fails.
pub fn remove(path: &Path) -> io::Result<()> {
    let root = match open(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    walk(root, |visit| {
        let Some((directory, name)) = visit.parent else {
            return Ok(());
        };
        let flag = match visit.is_directory() {
            true => UnlinkatFlags::RemoveDir,
            false => UnlinkatFlags::NoRemoveDir,
        };
        match unlinkat(directory, name, flag) {
            Err(Errno::ENOENT) => Ok(()),
            result => Ok(result?),
        }
    })?;
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::mkdirat;

    /// Deeper than any path can be long, and than there may be open files.
    fn deep(root: &Path, levels: usize) {
        let mut here = open(root, false).unwrap();
        for _ in 0..levels {
            mkdirat(&here, "directory", Mode::from_bits_truncate(0o755)).unwrap();
            here = openat(&here, "directory", PATH_ONLY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_is_walked_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        deep(&tree, 5000);
        fs::write(tree.join("file"), "x").unwrap();
        let mut visited = 0;
        walk(open(&tree, false).unwrap(), |_| {
            visited += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(visited, 5000 + 2);
        remove(&tree).unwrap();
        assert!(!tree.exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn a_directory_comes_after_what_is_in_it_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(root.path().join("outside"), "x").unwrap();
        symlink(root.path(), tree.join("a/b/link")).unwrap();
        let mut names = Vec::new();
        walk(open(&tree, false).unwrap(), |visit| {
            names.push(visit.parent.map(|(_, name)| name.to_str().unwrap().to_owned()));
            Ok(())
        })
        .unwrap();
        let expected = ["link", "b", "a"].map(|name| Some(name.to_owned()));
        assert_eq!(names[..3], expected);
        assert_eq!(names[3..], [None]);
        remove(&tree).unwrap();
        assert!(root.path().join("outside").exists());
    }
}
