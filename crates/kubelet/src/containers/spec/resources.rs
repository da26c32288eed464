//! Resource limits for the OCI runtime.

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use crate::cgroup::{Resources, page_size_name};

/// The OCI form of `resources`.
pub(in crate::containers) fn linux_resources(resources: &Resources) -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(resources.cpu_shares)
        .set_quota(resources.cpu_quota_us)
        .set_period(resources.cpu_period_us)
        .set_cpus(resources.cpuset_cpus.clone())
        .set_mems(resources.cpuset_mems.clone());
    let memory = resources.memory_limit_bytes.map(|limit| {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit));
        memory
    });
    let pids = resources.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    });
    let huge_pages = resources.huge_pages.iter().map(|(size, limit)| {
        let mut huge_pages = LinuxHugepageLimit::default();
        huge_pages
            .set_page_size(page_size_name(*size))
            .set_limit(i64::try_from(*limit).unwrap_or(i64::MAX));
        huge_pages
    });
    let huge_pages: Vec<LinuxHugepageLimit> = huge_pages.collect();
    let mut oci = LinuxResources::default();
    oci.set_hugepage_limits((!huge_pages.is_empty()).then_some(huge_pages));
    oci.set_cpu((cpu != LinuxCpu::default()).then_some(cpu)).set_memory(memory).set_pids(pids);
    oci
}
