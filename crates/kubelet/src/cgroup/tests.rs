use std::fs;

use super::resources::{settings_v1, settings_v2, shares_to_weight};
use super::*;

#[test]
fn arithmetic_follows_kubernetes() {
    assert_eq!(cpu_shares(0), 2);
    assert_eq!(cpu_shares(1000), 1024);
    assert_eq!(cpu_shares(250), 256);
    assert_eq!(cpu_shares(u64::MAX), 262_144);
    assert_eq!(cpu_quota_us(0), -1);
    assert_eq!(cpu_quota_us(500), 50_000);
    assert_eq!(cpu_quota_us(1), 1_000);
    assert_eq!(shares_to_weight(2), 1);
    assert_eq!(shares_to_weight(262_144), 10_000);
    assert_eq!(shares_to_weight(1024), 39);
}

#[test]
fn paths_are_normalised_and_cannot_climb() {
    assert_eq!(CgroupPath::new("a//b/").0, "/a/b");
    assert_eq!(CgroupPath::new("/").child("kubepods").0, "/kubepods");
    assert_eq!(CgroupPath::new("/x/../..").0, "/x");
    let levels: Vec<String> =
        CgroupPath::new("/a/b/c").levels().iter().map(ToString::to_string).collect();
    assert_eq!(levels, ["/a", "/a/b", "/a/b/c"]);
}

#[test]
fn settings_of_both_versions() {
    let resources = Resources {
        cpu_shares: Some(1024),
        cpu_quota_us: Some(-1),
        memory_limit_bytes: Some(-1),
        pids_limit: Some(10),
        ..Resources::default()
    };
    let flat = |settings: Vec<super::resources::Setting>| -> Vec<String> {
        settings.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    };
    assert_eq!(
        flat(settings_v1(&resources)),
        [
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=-1",
            "memory.limit_in_bytes=-1",
            "pids.max=10"
        ]
    );
    assert_eq!(
        flat(settings_v2(&resources)),
        ["cpu.weight=39", "cpu.max=max 100000", "memory.max=max", "pids.max=10"]
    );
}

/// A directory that looks like a v2 mount to the extent that plain files can.
fn fake_v2(directory: &std::path::Path) -> Cgroups {
    fs::write(directory.join("cgroup.controllers"), "cpu memory pids").unwrap();
    fs::write(directory.join("cgroup.subtree_control"), "cpu memory pids").unwrap();
    Cgroups::detect_at(directory.to_path_buf(), "/node1").unwrap()
}

#[test]
fn v2_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let cgroups = fake_v2(directory.path());
    assert_eq!(cgroups.version(), CgroupVersion::V2);
    let path = cgroups.pod_path(QosClass::Burstable, "u1");
    assert_eq!(path.0, "/node1/kubepods/burstable/podu1");
    assert_eq!(cgroups.stats(&path).unwrap(), None);
    let real = directory.path().join("node1/kubepods/burstable/podu1");
    fs::create_dir_all(&real).unwrap();
    for (file, text) in [
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1000\ninactive_file 96\npgfault 7\npgmajfault 1\n"),
        ("memory.events", "oom 2\noom_kill 1\n"),
        ("pids.current", "3\n"),
    ] {
        fs::write(real.join(file), text).unwrap();
    }
    let stats = cgroups.stats(&path).unwrap().unwrap();
    assert_eq!(
        stats,
        CgroupStats {
            cpu_usage_ns: 1_500_000,
            memory_usage_bytes: 4096,
            memory_working_set_bytes: 4000,
            memory_rss_bytes: 1000,
            page_faults: 7,
            major_page_faults: 1,
            memory_limit_bytes: None,
            pids: 3,
            oom_kills: 1,
        }
    );
    assert_eq!(cgroups.pods().unwrap(), vec![("u1".to_string(), path)]);
}

#[test]
fn an_unmounted_hierarchy_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let error = Cgroups::detect_at(directory.path().to_path_buf(), "/").unwrap_err();
    assert!(matches!(error, CgroupError::NotMounted(_)));
}
