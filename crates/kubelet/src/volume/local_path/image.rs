//! Images: files of a fixed size with a file system in them, or block devices for pods, by loop
//! devices.
//!
//! The device of a mounted image is detached as soon as it is mounted: the kernel keeps it until it
//! is unmounted, so that none is left behind, whoever is killed. That of a block volume stays until
//! its last pod is gone.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use api::local_path::FILE_SYSTEM;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use parking_lot::Mutex;
use runtime::program::Program;

use crate::volume::{VolumeError, mount as mounts};

/// Between looking for the device of an image and using it, it must not be freed by another pod.
static DEVICES: Mutex<()> = Mutex::new(());

/// Makes an image, whose space on the disk is reserved.
///
/// # Errors
/// When the disk is full, or a program fails.
pub fn make(path: &Path, bytes: u64, file_system: bool) -> Result<(), VolumeError> {
    let file = File::create_new(path).map_err(VolumeError::io("create", path))?;
    reserve(&file, path, bytes)?;
    if file_system {
        // All of it is for the pod, none is reserved for root.
        run(Program::new("mkfs.ext4")
            .option("-q")
            .option("-F")
            .option_with_value("-m", "0")
            .operand(path))?;
    }
    file.sync_all().map_err(VolumeError::io("sync", path))?;
    record(path, bytes)
}

/// The file beside an image with the size that the file system in it has been given.
fn record_of(image: &Path) -> PathBuf {
    image.with_file_name("size")
}

fn record(image: &Path, bytes: u64) -> Result<(), VolumeError> {
    let path = record_of(image);
    fs::write(&path, bytes.to_string()).map_err(VolumeError::io("write", path))
}

/// 0: not known.
fn recorded(image: &Path) -> u64 {
    let text = fs::read_to_string(record_of(image));
    text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn reserve(file: &File, path: &Path, bytes: u64) -> Result<(), VolumeError> {
    let there = file.metadata().map_err(VolumeError::io("stat", path))?.len();
    if there >= bytes {
        return Ok(());
    }
    // Not even tried: what there is would be taken from everybody else meanwhile.
    let disk = fstatvfs(file).map_err(|errno| VolumeError::io("statfs", path)(errno.into()))?;
    if disk.blocks_available().saturating_mul(disk.fragment_size()) < bytes - there {
        return Err(VolumeError::io("reserve space for", path)(Errno::ENOSPC.into()));
    }
    let length = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mode = FallocateFlags::empty();
    match fallocate(file.as_fd(), mode, length(there), length(bytes - there)) {
        // The disk's file system cannot reserve: the image is at least limited to its size.
        Err(Errno::EOPNOTSUPP) => file.set_len(bytes).map_err(VolumeError::io("extend", path)),
        Err(errno) => {
            // What was reserved before the disk was full.
            file.set_len(there).map_err(VolumeError::io("shorten", path))?;
            Err(VolumeError::io("reserve space for", path)(errno.into()))
        }
        Ok(()) => Ok(()),
    }
}

/// Mounts the file system of an image, once. Before that it is made as large as the volume.
///
/// # Errors
/// When a program fails.
pub fn mount(image: &Path, at: &Path, options: &[String], bytes: u64) -> Result<(), VolumeError> {
    let _alone = DEVICES.lock();
    if mounts::is_mount_point(at)? {
        return Ok(());
    }
    if let Err(error) = grown(image, bytes, true) {
        // It can be used as it is. The pod gets the error when it is tried again.
        tracing::warn!(image = %image.display(), %error, "cannot grow the volume");
    }
    let device = attached(image)?;
    let mut program = Program::new("mount").option_with_value("-t", FILE_SYSTEM);
    if !options.is_empty() {
        program = program.option_with_value("-o", options.join(","));
    }
    let mounted = run(program.operand(&device).operand(at));
    let own = devices(image)?.contains(&device);
    if mounted.is_ok() && !own {
        // Another process of the machine was given the device meanwhile.
        mounts::unmount(at)?;
        return Err(VolumeError::InUse(device.display().to_string()));
    }
    if own {
        run(Program::new("losetup").option_with_value("--detach", &device))?;
    }
    mounted.map(|_| ())
}

/// The device of an image, which is attached to one if it has none.
///
/// # Errors
/// When a program fails.
pub fn attach(image: &Path) -> Result<PathBuf, VolumeError> {
    let _alone = DEVICES.lock();
    attached(image)
}

fn attached(image: &Path) -> Result<PathBuf, VolumeError> {
    if let Some(device) = devices(image)?.into_iter().next() {
        return Ok(device);
    }
    let said = run(Program::new("losetup").option("--find").option("--show").operand(image))?;
    Ok(PathBuf::from(said.trim()))
}

/// Detaches an image from all of its devices.
///
/// # Errors
/// When a program fails.
pub fn detach(image: &Path) -> Result<(), VolumeError> {
    let _alone = DEVICES.lock();
    devices(image)?.iter().try_for_each(|device| {
        run(Program::new("losetup").option_with_value("--detach", device)).map(|_| ())
    })
}

/// The devices that an image is attached to.
///
/// # Errors
/// When a program fails.
pub fn devices(image: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let program = Program::new("losetup")
        .option("--noheadings")
        .option_with_value("--output", "NAME")
        .option_with_value("--associated", image);
    let said = run(program)?;
    Ok(said.lines().map(|line| PathBuf::from(line.trim())).collect())
}

/// Makes an image at least this large, and with it its devices and the file system. Returns whether
/// that is done: the kernel may not let this process change a file system that is mounted.
///
/// # Errors
/// When the disk is full, or a program fails.
pub fn grow(image: &Path, bytes: u64, file_system: bool) -> Result<bool, VolumeError> {
    let _alone = DEVICES.lock();
    grown(image, bytes, file_system)
}

fn grown(image: &Path, bytes: u64, file_system: bool) -> Result<bool, VolumeError> {
    if file_system && recorded(image) >= bytes {
        return Ok(true);
    }
    let file = File::options().write(true).open(image).map_err(VolumeError::io("open", image))?;
    reserve(&file, image, bytes)?;
    let devices = devices(image)?;
    for device in &devices {
        run(Program::new("losetup").option_with_value("--set-capacity", device))?;
    }
    if !file_system {
        return Ok(true);
    }
    if devices.is_empty() {
        // It has to be clean before.
        run(Program::new("e2fsck").option("-f").option("-p").operand(image))?;
        run(Program::new("resize2fs").operand(image))?;
    } else if !may_change_mounted() {
        return Ok(false);
    }
    for device in &devices {
        run(Program::new("resize2fs").operand(device))?;
    }
    record(image, bytes)?;
    Ok(true)
}

/// Whether the file system cannot grow before it is mounted anew.
///
/// # Errors
/// When a program fails.
pub fn waits_for_mount(image: &Path, bytes: u64, file_system: bool) -> Result<bool, VolumeError> {
    if !file_system || recorded(image) >= bytes || may_change_mounted() {
        return Ok(false);
    }
    Ok(!devices(image)?.is_empty())
}

/// Bit of CAP_SYS_RESOURCE in a capability mask; ext4 asks for it.
const CAP_SYS_RESOURCE_BIT: u32 = 24;

fn may_change_mounted() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE_BIT) != 0)
}

/// `e2fsck` has corrected the file system.
const CORRECTED: i32 = 1;

/// Runs a program; returns what it says.
fn run(program: Program) -> Result<String, VolumeError> {
    let mut command = program.into_command();
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |message: String| VolumeError::Program { name: name.clone(), message };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let corrected = name == "e2fsck" && output.status.code() == Some(CORRECTED);
    if output.status.success() || corrected {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().replace('\n', "; ")))
}
