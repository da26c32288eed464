//! Resource limits as the OCI runtime takes them.

use super::oci::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use crate::cgroup::Resources;

/// The OCI form of `resources`.
pub(in crate::runtime) fn linux_resources(resources: &Resources) -> LinuxResources {
    let cpu = LinuxCpu {
        shares: resources.cpu_shares,
        quota: resources.cpu_quota_us,
        period: resources.cpu_period_us,
        cpus: resources.cpuset_cpus.clone(),
        mems: resources.cpuset_mems.clone(),
    };
    LinuxResources {
        devices: Vec::new(),
        memory: resources.memory_limit_bytes.map(|limit| LinuxMemory { limit, swap: None }),
        cpu: (cpu != LinuxCpu::default()).then_some(cpu),
        pids: resources.pids_limit.map(|limit| LinuxPids { limit }),
        unified: Default::default(),
    }
}
