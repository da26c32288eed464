//! Kernel settings of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::nft::Family;

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("set {path} to {value}")]
pub struct SysctlError {
    path: PathBuf,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// Enables forwarding, and node ports on 127.0.0.1.
pub fn prepare(families: &[Family]) -> Result<(), SysctlError> {
    if families.contains(&Family::V4) {
        set("net/ipv4/ip_forward", "1")?;
        set("net/ipv4/conf/all/route_localnet", "1")?;
    }
    if families.contains(&Family::V6) {
        set("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Keeps conntrack from invalidating connections of which it missed a packet. To be called once the
/// tables exist: if conntrack is a module, they load it.
pub fn relax_conntrack() -> Result<(), SysctlError> {
    set("net/netfilter/nf_conntrack_tcp_be_liberal", "1")
}

/// Writes only if the value differs: in some containers `/proc/sys` is read-only, but already set
/// up.
fn set(name: &str, value: &'static str) -> Result<(), SysctlError> {
    let path = PathBuf::from("/proc/sys").join(name);
    let write = || match fs::read_to_string(&path)?.trim() {
        current if current == value => Ok(()),
        _ => fs::write(&path, value),
    };
    write().map_err(|source| SysctlError { path: path.clone(), value, source })
}
