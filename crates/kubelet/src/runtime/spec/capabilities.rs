//! Linux capabilities of a container.

use std::collections::BTreeSet;

use crate::runtime::container::SecurityContext;
use crate::runtime::error::{Result, RuntimeError};

use super::oci::Capabilities;

/// Every capability, in the kernel's order of bits (`include/uapi/linux/capability.h`).
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has when nothing is said, as every Kubernetes runtime gives.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Names of the capabilities in a mask of `/proc/<pid>/status`.
pub(super) fn names_of_mask(mask: u64) -> Vec<String> {
    ALL.iter()
        .enumerate()
        .filter(|(bit, _)| mask & (1 << bit) != 0)
        .map(|(_, name)| name.to_string())
        .collect()
}

/// A container's capabilities: the default ones, plus and minus what is asked, all of them if
/// privileged; never more than `bound`, since the OCI runtime fails on those.
pub(super) fn of_container(security: &SecurityContext, bound: &[String]) -> Result<Capabilities> {
    let mut set: BTreeSet<&str> = if security.privileged { ALL.into() } else { DEFAULT.into() };
    // `drop: [ALL]` comes first, so that single capabilities can be added to nothing.
    if !security.privileged {
        if has_all(&security.add_capabilities) {
            set = ALL.into();
        }
        if has_all(&security.drop_capabilities) {
            set.clear();
        }
        for name in named(&security.add_capabilities) {
            set.insert(known(name)?);
        }
        for name in named(&security.drop_capabilities) {
            set.remove(known(name)?);
        }
    }
    let names: Vec<String> = set
        .into_iter()
        .filter(|name| bound.iter().any(|bound| bound == name))
        .map(ToString::to_string)
        .collect();
    Ok(Capabilities { bounding: names.clone(), effective: names.clone(), permitted: names })
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

fn named(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL"))
}

fn known(name: &str) -> Result<&'static str> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    ALL.into_iter().find(|known| *known == full).ok_or_else(|| RuntimeError::InvalidConfig {
        message: format!("unknown capability {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(security: &SecurityContext) -> Vec<String> {
        let bound = names_of_mask(u64::MAX >> (64 - ALL.len()));
        of_container(security, &bound).unwrap().effective
    }

    #[test]
    fn table() {
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&SecurityContext::default()).len(), 14);
        let privileged = SecurityContext { privileged: true, ..Default::default() };
        assert_eq!(names(&privileged).len(), 41);
        let only_one = SecurityContext {
            drop_capabilities: strings(&["ALL"]),
            add_capabilities: strings(&["NET_ADMIN"]),
            ..Default::default()
        };
        assert_eq!(names(&only_one), ["CAP_NET_ADMIN"]);
        let all_but_one = SecurityContext {
            add_capabilities: strings(&["all"]),
            drop_capabilities: strings(&["CAP_SYS_ADMIN"]),
            ..Default::default()
        };
        assert_eq!(names(&all_but_one).len(), 40);
        let unknown = SecurityContext { add_capabilities: strings(&["FLY"]), ..Default::default() };
        assert!(of_container(&unknown, &[]).is_err());
    }

    #[test]
    fn never_more_than_the_bound() {
        let privileged = SecurityContext { privileged: true, ..Default::default() };
        let capabilities = of_container(&privileged, &["CAP_KILL".to_string()]).unwrap();
        assert_eq!(capabilities.bounding, ["CAP_KILL"]);
    }
}
