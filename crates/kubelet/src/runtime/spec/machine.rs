//! What a specification must know of the machine, read once.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::capabilities::names_of_mask;
use super::oci::DeviceNode;
use crate::cgroup::{CgroupVersion, Cgroups};

/// Bit of CAP_SYS_RESOURCE in a capability mask.
const CAP_SYS_RESOURCE_BIT: u32 = 24;

/// Limits that containers inherit from us, since they cannot be raised again without CAP_SYS_RESOURCE.
#[derive(Debug, Clone, Default)]
pub(in crate::runtime) struct Machine {
    /// Capabilities (`CAP_...`) in our bounding set: no container can have others.
    pub(in crate::runtime) bounding: Vec<String>,
    /// We may raise limits.
    pub(in crate::runtime) can_raise_limits: bool,
    /// Our own `oom_score_adj`.
    pub(in crate::runtime) oom_score_adj: i32,
    /// Our own hard limit of open files.
    pub(in crate::runtime) max_open_files: u64,
    /// cgroup v2.
    pub(in crate::runtime) unified_cgroups: bool,
}

impl Machine {
    /// Reads them from `/proc/self`.
    pub(in crate::runtime) fn read(cgroups: &Cgroups) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj");
        Machine {
            bounding: names_of_mask(mask),
            can_raise_limits: mask & (1 << CAP_SYS_RESOURCE_BIT) != 0,
            oom_score_adj: oom_score_adj
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            max_open_files: getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard),
            unified_cgroups: cgroups.version() == CgroupVersion::V2,
        }
    }
}

/// The device node at `host_path`, to be seen at `path`; `None` if it is not a device.
pub(super) fn device_at(host_path: &Path, path: &str) -> std::io::Result<Option<DeviceNode>> {
    let metadata = fs::metadata(host_path)?;
    let kind = if metadata.file_type().is_char_device() {
        "c"
    } else if metadata.file_type().is_block_device() {
        "b"
    } else {
        return Ok(None);
    };
    Ok(Some(DeviceNode {
        path: path.to_string(),
        kind,
        major: nix::sys::stat::major(metadata.rdev()),
        minor: nix::sys::stat::minor(metadata.rdev()),
        file_mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}
