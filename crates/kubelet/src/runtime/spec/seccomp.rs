//! The default seccomp filter (`seccompProfile: RuntimeDefault`), and profiles from files.
//!
//! Everything in `seccomp/allowed.txt` may be called. Of the rest, a container may call what one of its
//! capabilities is made for; `clone` and `unshare` without CAP_SYS_ADMIN may make no namespaces; `clone3`,
//! whose arguments a filter cannot see, "does not exist", so that libraries fall back to `clone`. All
//! else is "not permitted".

use std::path::Path;

use crate::runtime::error::{Result, RuntimeError};

use super::oci::{Seccomp, SyscallArgument, Syscalls};
use crate::runtime::container::SeccompProfile;

const ALLOWED: &str = include_str!("seccomp/allowed.txt");
const ALLOW: &str = "SCMP_ACT_ALLOW";
const REFUSE: &str = "SCMP_ACT_ERRNO";
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// Address family of sockets to a hypervisor's other guests.
const AF_VSOCK: u64 = 40;
/// Personalities: Linux, 32-bit, both with 2.6 version numbers, and asking for the current one.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// System calls that go with a capability.
const BY_CAPABILITY: [(&str, &[&str]); 13] = [
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"],
    ),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_adjtime", "clock_settime", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];
/// Placing memory; CAP_SYS_NICE.
const NUMA: [&str; 6] = [
    "get_mempolicy",
    "mbind",
    "migrate_pages",
    "move_pages",
    "set_mempolicy",
    "set_mempolicy_home_node",
];

/// The filter for a profile; `None` for none. `capabilities` are the container's.
pub(in crate::runtime) fn load_profile(
    profile: &SeccompProfile,
    capabilities: &[String],
) -> Result<Option<Seccomp>> {
    match profile {
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::RuntimeDefault => Ok(Some(runtime_default(capabilities))),
        SeccompProfile::Localhost(path) => read(path).map(Some),
    }
}

fn read(path: &Path) -> Result<Seccomp> {
    let text = std::fs::read(path).map_err(RuntimeError::io("read seccomp profile", path))?;
    serde_json::from_slice(&text).map_err(|error| RuntimeError::InvalidConfig {
        message: format!("seccomp profile {}: {error}", path.display()),
    })
}

fn runtime_default(capabilities: &[String]) -> Seccomp {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut names: Vec<String> = ALLOWED.lines().map(ToString::to_string).collect();
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            names.extend(calls.iter().map(ToString::to_string));
        }
    }
    if has("CAP_SYS_NICE") {
        names.extend(NUMA.iter().map(ToString::to_string));
    }
    names.sort();
    names.dedup();
    let mut syscalls = vec![rule(&[], ALLOW, vec![])];
    syscalls[0].names = names;
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(rule(
            &["clone"],
            ALLOW,
            vec![argument(0, NAMESPACE_FLAGS, 0, "SCMP_CMP_MASKED_EQ")],
        ));
        syscalls.push(Syscalls { errno_ret: Some(ENOSYS), ..rule(&["clone3"], REFUSE, vec![]) });
    }
    for personality in PERSONALITIES {
        syscalls.push(rule(
            &["personality"],
            ALLOW,
            vec![argument(0, personality, 0, "SCMP_CMP_EQ")],
        ));
    }
    syscalls.push(rule(&["socket"], ALLOW, vec![argument(0, AF_VSOCK, 0, "SCMP_CMP_NE")]));
    Seccomp {
        default_action: REFUSE.to_string(),
        default_errno_ret: Some(EPERM),
        architectures: architectures(),
        syscalls,
    }
}

fn rule(names: &[&str], action: &str, args: Vec<SyscallArgument>) -> Syscalls {
    Syscalls {
        names: names.iter().map(ToString::to_string).collect(),
        action: action.to_string(),
        errno_ret: None,
        args,
    }
}

fn argument(index: u32, value: u64, value_two: u64, op: &str) -> SyscallArgument {
    SyscallArgument { index, value, value_two, op: op.to_string() }
}

fn architectures() -> Vec<String> {
    let names: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        _ => &[],
    };
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(filter: &Seccomp, name: &str) -> bool {
        filter
            .syscalls
            .iter()
            .any(|rule| rule.action == ALLOW && rule.names.iter().any(|known| known == name))
    }

    #[test]
    fn the_default_refuses_what_breaks_out() {
        let filter = runtime_default(&["CAP_KILL".to_string()]);
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "kexec_load",
            "init_module",
            "keyctl",
            "io_uring_setup",
            "reboot",
        ] {
            assert!(!allows(&filter, name), "{name}");
        }
        for name in
            ["read", "openat", "execve", "futex", "epoll_wait", "clone", "statx", "rseq", "accept4"]
        {
            assert!(allows(&filter, name), "{name}");
        }
        let clone = filter.syscalls.iter().find(|rule| rule.names == ["clone"]).unwrap();
        assert_eq!(clone.args[0].value, NAMESPACE_FLAGS);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let filter = runtime_default(&["CAP_SYS_ADMIN".to_string(), "CAP_SYS_TIME".to_string()]);
        for name in ["mount", "unshare", "clone", "clone3", "clock_settime"] {
            assert!(allows(&filter, name), "{name}");
        }
        assert!(!filter.syscalls.iter().any(|rule| rule.errno_ret.is_some()));
    }

    #[test]
    fn profiles_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#,
        )
        .unwrap();
        let filter =
            load_profile(&SeccompProfile::Localhost(file.path().into()), &[]).unwrap().unwrap();
        assert_eq!(filter.syscalls[0].names, ["mkdir"]);
        let missing = SeccompProfile::Localhost("/nonexistent".into());
        assert!(load_profile(&missing, &[]).is_err());
    }
}
