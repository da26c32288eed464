//! Sysctls of the calling thread's network namespace (which `/proc/sys/net` shows).

use std::fs;
use std::path::Path;

use ipnet::IpNet;

use super::NetworkError;

/// What the node needs once: forwarding for each family, and no redirects, which would otherwise be
/// sent to a pod that reaches itself through a Service.
pub(super) fn prepare_node(ranges: &[IpNet]) -> Result<(), NetworkError> {
    if ranges.iter().any(|range| matches!(range, IpNet::V4(_))) {
        set("ipv4/ip_forward", "1")?;
        set("ipv4/conf/all/send_redirects", "0")?;
        set("ipv4/conf/default/send_redirects", "0")?;
    }
    if ranges.iter().any(|range| matches!(range, IpNet::V6(_))) {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// What the node's end of a pod's link needs: a pod may only send from the addresses that are
/// routed to it.
pub(super) fn prepare_link(link: &str) -> Result<(), NetworkError> {
    set(&format!("ipv4/conf/{link}/rp_filter"), "1")?;
    set(&format!("ipv4/conf/{link}/send_redirects"), "0")
}

/// Writes only what differs: in some containers `/proc/sys` is read-only, with everything set
/// already.
fn set(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net").join(name);
    let file = |action, source| NetworkError::File { action, path: path.clone(), source };
    let current = fs::read_to_string(&path).map_err(|source| file("read", source))?;
    if current.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| file("write", source))
}
