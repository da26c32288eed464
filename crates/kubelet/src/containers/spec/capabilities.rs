//! Linux capabilities of a container.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::containers::container::SecurityContext;
use crate::containers::error::{Result, RuntimeError};

/// Every capability, in the order of the kernel's bits (`include/uapi/linux/capability.h`).
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The default capabilities of a container, the same as in other container runtimes.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The capabilities in a mask of `/proc/<pid>/status`.
pub(super) fn of_mask(mask: u64) -> Capabilities {
    let bits = ALL.into_iter().enumerate();
    bits.filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, capability)| capability).collect()
}

/// A container's capabilities: the default ones with those added and dropped, or all of them if
/// privileged; never more than `bound`, since the OCI runtime fails on those.
pub(super) fn of_container(
    security: &SecurityContext,
    bound: &Capabilities,
) -> Result<Capabilities> {
    let mut set: Capabilities = if security.privileged { ALL.into() } else { DEFAULT.into() };
    // `drop: [ALL]` comes first, so that single capabilities can be added to none.
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
            set.remove(&known(name)?);
        }
    }
    set.retain(|capability| bound.contains(capability));
    Ok(set)
}

/// The bounding, effective and permitted sets; nothing is inheritable or ambient.
pub(super) fn in_all_sets(set: Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

fn named(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL"))
}

fn known(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    short.parse().map_err(|_| RuntimeError::InvalidConfig {
        message: format!("unknown capability {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(security: &SecurityContext) -> Capabilities {
        let bound = of_mask(u64::MAX >> (64 - ALL.len()));
        of_container(security, &bound).unwrap()
    }

    #[test]
    fn table() {
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(granted(&SecurityContext::default()).len(), 14);
        let privileged = SecurityContext { privileged: true, ..Default::default() };
        assert_eq!(granted(&privileged).len(), 41);
        let only_one = SecurityContext {
            drop_capabilities: strings(&["ALL"]),
            add_capabilities: strings(&["NET_ADMIN"]),
            ..Default::default()
        };
        assert_eq!(granted(&only_one), [Capability::NetAdmin].into());
        let all_but_one = SecurityContext {
            add_capabilities: strings(&["all"]),
            drop_capabilities: strings(&["CAP_SYS_ADMIN"]),
            ..Default::default()
        };
        assert_eq!(granted(&all_but_one).len(), 40);
        let unknown = SecurityContext { add_capabilities: strings(&["FLY"]), ..Default::default() };
        assert!(of_container(&unknown, &ALL.into()).is_err());
    }

    #[test]
    fn never_more_than_the_bound() {
        let privileged = SecurityContext { privileged: true, ..Default::default() };
        let bound = [Capability::Kill].into();
        assert_eq!(of_container(&privileged, &bound).unwrap(), bound);
    }
}
