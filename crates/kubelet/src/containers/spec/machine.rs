//! What a specification depends on in the machine, read once.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{Capabilities, LinuxDevice, LinuxDeviceType};

use super::capabilities::of_mask;
use crate::cgroup::{CgroupVersion, Cgroups};
use crate::containers::apparmor::AppArmor;

/// Bit of CAP_SYS_RESOURCE in a capability mask.
const CAP_SYS_RESOURCE_BIT: u32 = 24;

/// What containers inherit from us.
#[derive(Debug, Clone, Default)]
pub(in crate::containers) struct Machine {
    /// Capabilities in our bounding set: no container can have others.
    pub(in crate::containers) bounding: Capabilities,
    /// Whether we may raise limits.
    pub(in crate::containers) can_raise_limits: bool,
    /// Our own `oom_score_adj`.
    pub(in crate::containers) oom_score_adj: i32,
    /// Whether the machine uses cgroup v2.
    pub(in crate::containers) unified_cgroups: bool,
    /// Whether the kernel has user namespaces, and maps the ids of every file system that pods use.
    pub(in crate::containers) user_namespaces: bool,
    /// Whether cgroups limit huge pages.
    pub(in crate::containers) limits_huge_pages: bool,
    pub(in crate::containers) app_armor: AppArmor,
}

impl Machine {
    /// Reads it from `/proc/self`.
    pub(in crate::containers) fn read(cgroups: &Cgroups) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj");
        Machine {
            bounding: of_mask(mask),
            can_raise_limits: mask & (1 << CAP_SYS_RESOURCE_BIT) != 0,
            oom_score_adj: oom_score_adj
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            unified_cgroups: cgroups.version() == CgroupVersion::V2,
            user_namespaces: has_user_namespaces(),
            limits_huge_pages: cgroups.limits_huge_pages(),
            app_armor: AppArmor::read(Path::new("/")),
        }
    }
}

/// A tmpfs has been mapped since Linux 6.3, the last of them.
fn has_user_namespaces() -> bool {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name));
    let most = read("user/max_user_namespaces");
    let release = read("kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    most.is_ok_and(|most| most.trim() != "0") && (number(), number()) >= (6, 3)
}

/// The device at `host_path`, as a node at `path`; `None` if it is not a device.
pub(super) fn device_at(host_path: &Path, path: &str) -> std::io::Result<Option<LinuxDevice>> {
    let metadata = fs::metadata(host_path)?;
    let kind = if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return Ok(None);
    };
    let mut device = LinuxDevice::default();
    device
        .set_path(path.into())
        .set_typ(kind)
        .set_major(nix::sys::stat::major(metadata.rdev()).cast_signed())
        .set_minor(nix::sys::stat::minor(metadata.rdev()).cast_signed())
        .set_file_mode(Some(metadata.mode() & 0o7777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    Ok(Some(device))
}
