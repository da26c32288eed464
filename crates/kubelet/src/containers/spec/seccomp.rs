//! The default seccomp filter (`seccompProfile: RuntimeDefault`), and profiles from files.
//!
//! Everything in `seccomp/allowed.txt` may be called. Of the rest, a container may call what its
//! capabilities are for. Without CAP_SYS_ADMIN, `clone` cannot create namespaces, and `clone3`,
//! whose arguments a filter cannot see, fails with ENOSYS, so that libraries fall back to `clone`.
//! All else fails with EPERM.

use std::path::Path;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use crate::containers::container::SeccompProfile;
use crate::containers::error::{Result, RuntimeError};

const ALLOWED: &str = include_str!("seccomp/allowed.txt");
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// Address family of sockets to a hypervisor's other guests.
const AF_VSOCK: u64 = 40;
/// Personalities: Linux, 32-bit, both with 2.6 version numbers, and asking for the current one.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// System calls that a capability allows.
const BY_CAPABILITY: [(Capability, &[&str]); 13] = [
    (
        Capability::SysAdmin,
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
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysPacct, &["acct"]),
    (
        Capability::SysPtrace,
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"],
    ),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_adjtime", "clock_settime", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::Syslog, &["syslog"]),
];
/// NUMA memory policy; allowed by CAP_SYS_NICE.
const NUMA: [&str; 6] = [
    "get_mempolicy",
    "mbind",
    "migrate_pages",
    "move_pages",
    "set_mempolicy",
    "set_mempolicy_home_node",
];

/// The filter for a profile; `None` for none. `capabilities` are the container's.
pub(super) fn load_profile(
    profile: &SeccompProfile,
    capabilities: &Capabilities,
) -> Result<Option<LinuxSeccomp>> {
    match profile {
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::RuntimeDefault => Ok(Some(runtime_default(capabilities))),
        SeccompProfile::Localhost(path) => read(path).map(Some),
    }
}

fn read(path: &Path) -> Result<LinuxSeccomp> {
    let text = std::fs::read(path).map_err(RuntimeError::io("read seccomp profile", path))?;
    serde_json::from_slice(&text).map_err(|error| RuntimeError::InvalidConfig {
        message: format!("seccomp profile {}: {error}", path.display()),
    })
}

fn runtime_default(capabilities: &Capabilities) -> LinuxSeccomp {
    let has = |capability| capabilities.contains(&capability);
    let mut names: Vec<&str> = ALLOWED.lines().collect();
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            names.extend(calls);
        }
    }
    if has(Capability::SysNice) {
        names.extend(NUMA);
    }
    names.sort_unstable();
    names.dedup();
    let mut syscalls = vec![allow(&names, None)];
    if !has(Capability::SysAdmin) {
        let no_namespaces = argument(NAMESPACE_FLAGS, LinuxSeccompOperator::ScmpCmpMaskedEq);
        syscalls.push(allow(&["clone"], Some(no_namespaces)));
        let mut clone3 = LinuxSyscall::default();
        clone3
            .set_names(vec!["clone3".to_string()])
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(ENOSYS));
        syscalls.push(clone3);
    }
    for personality in PERSONALITIES {
        let equal = argument(personality, LinuxSeccompOperator::ScmpCmpEq);
        syscalls.push(allow(&["personality"], Some(equal)));
    }
    let not_vsock = argument(AF_VSOCK, LinuxSeccompOperator::ScmpCmpNe);
    syscalls.push(allow(&["socket"], Some(not_vsock)));
    let mut filter = LinuxSeccomp::default();
    filter
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(architectures())
        .set_syscalls(Some(syscalls));
    filter
}

/// Allows system calls, under a condition on their first argument if there is one.
fn allow(names: &[&str], condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(ToString::to_string).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_args(condition.map(|condition| vec![condition]));
    rule
}

/// A condition on a system call's first argument. For a masked comparison, `value` is the mask of
/// bits that must be zero.
fn argument(value: u64, op: LinuxSeccompOperator) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(op).build();
    argument.expect("every member has a default")
}

fn architectures() -> Option<Vec<Arch>> {
    Some(match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(filter: &LinuxSeccomp) -> &[LinuxSyscall] {
        filter.syscalls().as_deref().unwrap()
    }

    fn allows(filter: &LinuxSeccomp, name: &str) -> bool {
        rules(filter).iter().any(|rule| {
            rule.action() == LinuxSeccompAction::ScmpActAllow
                && rule.names().iter().any(|known| known == name)
        })
    }

    #[test]
    fn the_default_refuses_what_breaks_out() {
        let filter = runtime_default(&[Capability::Kill].into());
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
        let clone = rules(&filter).iter().find(|rule| *rule.names() == ["clone"]).unwrap();
        assert_eq!(clone.args().as_ref().unwrap()[0].value(), NAMESPACE_FLAGS);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let filter = runtime_default(&[Capability::SysAdmin, Capability::SysTime].into());
        for name in ["mount", "unshare", "clone", "clone3", "clock_settime"] {
            assert!(allows(&filter, name), "{name}");
        }
        assert!(!rules(&filter).iter().any(|rule| rule.errno_ret().is_some()));
    }

    #[test]
    fn profiles_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#,
        )
        .unwrap();
        let none = Capabilities::new();
        let filter =
            load_profile(&SeccompProfile::Localhost(file.path().into()), &none).unwrap().unwrap();
        assert_eq!(*rules(&filter)[0].names(), ["mkdir"]);
        let missing = SeccompProfile::Localhost("/nonexistent".into());
        assert!(load_profile(&missing, &none).is_err());
    }
}
