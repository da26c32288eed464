//! Readiness notification to the supervisor (`skiff up`, systemd) by the sd_notify protocol: a
//! datagram `READY=1` to the socket named by `$NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1`; does nothing if `$NOTIFY_SOCKET` is not set.
pub fn ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let path = path.to_string_lossy();
    let sent = UnixDatagram::unbound().and_then(|socket| match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)
            .and_then(|address| socket.send_to_addr(b"READY=1\n", &address)),
        None => socket.send_to(b"READY=1\n", &*path),
    });
    if let Err(error) = sent {
        tracing::warn!(%error, socket = %path, "cannot notify the supervisor of readiness");
    }
}
