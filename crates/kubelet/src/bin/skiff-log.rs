//! `skiff-log`: writes one container's log. containerd's shim starts one per container, so it is a
//! separate, small program. It also makes the namespaces of pods that have a user namespace.

use std::process::ExitCode;

fn main() -> ExitCode {
    let asked = kubelet::logs::run_logger_if_asked().or_else(kubelet::containers::run_if_asked);
    asked.unwrap_or_else(|| {
        eprintln!("skiff-log writes a container's log; containerd starts it for the kubelet");
        ExitCode::FAILURE
    })
}
