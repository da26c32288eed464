//! `skiff-log`: writes one container's log. containerd's shim starts one per container, so it is a
//! separate, small program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubelet::logs::run_logger_if_asked().unwrap_or_else(|| {
        eprintln!("skiff-log writes a container's log; containerd starts it for the kubelet");
        ExitCode::FAILURE
    })
}
