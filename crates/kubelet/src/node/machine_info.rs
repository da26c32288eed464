//! Capacity and system information of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::NodeSystemInfo;

/// The Kubernetes release that this kubelet implements.
pub const VERSION: &str = "v1.37.0";
/// Memory reserved so that eviction comes before the OOM killer, in bytes.
const MEMORY_RESERVED: u64 = 100 << 20;
/// Part of the disk reserved, in percent.
const DISK_RESERVED_PERCENT: u64 = 10;

/// Read once at start.
#[derive(Clone, Debug, Default)]
pub struct MachineInfo {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    /// Reserved huge pages: their number, by size in bytes.
    pub huge_pages: BTreeMap<u64, u64>,
    pub info: NodeSystemInfo,
}

impl MachineInfo {
    /// `root_dir` determines the disk. What cannot be read is left empty.
    pub fn read(root_dir: &Path, runtime_version: &str) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let os_release = text("/etc/os-release");
        let os_image = os_release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .unwrap_or("Linux")
            .trim_matches('"')
            .to_owned();
        let machine_id = text("/etc/machine-id");
        let system_uuid = match text("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => machine_id.clone(),
            uuid => uuid,
        };
        let disk_bytes = Disk::of(root_dir).map_or(0, |disk| disk.bytes);
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory_bytes: memory("MemTotal").unwrap_or(0),
            disk_bytes,
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            info: NodeSystemInfo {
                architecture: architecture().to_owned(),
                boot_id: text("/proc/sys/kernel/random/boot_id"),
                container_runtime_version: format!("containerd://{runtime_version}"),
                kernel_version: text("/proc/sys/kernel/osrelease"),
                kubelet_version: VERSION.to_owned(),
                machine_id,
                operating_system: "linux".to_owned(),
                os_image,
                system_uuid,
                ..Default::default()
            },
        }
    }

    /// Capacity by resource name.
    pub fn capacity(&self, max_pods: u32) -> BTreeMap<String, Quantity> {
        let cpus = i64::try_from(self.cpus).unwrap_or(i64::MAX);
        let huge_pages = self.huge_pages.iter().map(|(size, number)| {
            let size_name = Quantity::from_bytes(*size);
            (format!("hugepages-{size_name}"), Quantity::from_bytes(size * number))
        });
        let mut all: BTreeMap<String, Quantity> = [
            ("cpu", Quantity::from_units(cpus)),
            ("memory", whole_ki(self.memory_bytes)),
            ("ephemeral-storage", whole_ki(self.disk_bytes)),
            ("pods", Quantity::from_units(max_pods.into())),
        ]
        .map(|(name, amount)| (name.to_owned(), amount))
        .into();
        all.extend(huge_pages);
        all
    }

    /// The part of the capacity that pods can use, by resource name.
    pub fn allocatable(&self, max_pods: u32) -> BTreeMap<String, Quantity> {
        let mut all = self.capacity(max_pods);
        // Huge pages are memory too, and cannot be used as anything else.
        let huge: u64 = self.huge_pages.iter().map(|(size, number)| size * number).sum();
        let disk = self.disk_bytes - self.disk_bytes / 100 * DISK_RESERVED_PERCENT;
        all.insert(
            "memory".to_owned(),
            whole_ki(self.memory_bytes.saturating_sub(MEMORY_RESERVED + huge)),
        );
        all.insert("ephemeral-storage".to_owned(), whole_ki(disk));
        all
    }
}

/// Reads `hugepages-2048kB/nr_hugepages` and its siblings.
fn huge_pages(directory: &Path) -> BTreeMap<u64, u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let kilobytes = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            let size = kilobytes.parse::<u64>().ok()? << 10;
            let number = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some((size, number.trim().parse().ok()?))
        })
        .collect()
}

fn whole_ki(bytes: u64) -> Quantity {
    Quantity::from_bytes(bytes >> 10 << 10)
}

/// Usage of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub bytes: u64,
    /// Available to users other than root.
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Disk {
    /// The file system that `path` is on.
    pub fn of(path: &Path) -> nix::Result<Self> {
        let found = nix::sys::statvfs::statvfs(path)?;
        let unit = found.fragment_size();
        Ok(Self {
            bytes: found.blocks() * unit,
            available_bytes: found.blocks_available() * unit,
            used_bytes: (found.blocks() - found.blocks_free()) * unit,
            inodes: found.files(),
            inodes_free: found.files_available(),
        })
    }
}

/// A figure of `/proc/meminfo`, in bytes.
pub fn memory(name: &str) -> Option<u64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

/// The architecture, as Go and Kubernetes name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_a_resource_and_no_other_memory() {
        let directory = tempfile::tempdir().unwrap();
        for (name, number) in [("hugepages-2048kB", "64\n"), ("hugepages-1048576kB", "0\n")] {
            let size = directory.path().join(name);
            fs::create_dir(&size).unwrap();
            fs::write(size.join("nr_hugepages"), number).unwrap();
        }
        let huge_pages = huge_pages(directory.path());
        let facts = MachineInfo { memory_bytes: 1 << 30, huge_pages, ..Default::default() };
        let (capacity, allocatable) = (facts.capacity(1), facts.allocatable(1));
        for (name, expected) in [("hugepages-2Mi", "128Mi"), ("hugepages-1Gi", "0")] {
            assert_eq!(capacity[name].to_string(), expected);
            assert_eq!(allocatable[name].to_string(), expected);
        }
        assert_eq!(capacity["memory"].to_string(), "1Gi");
        assert_eq!(allocatable["memory"].to_string(), "796Mi");
    }
}
