//! `skiff-log`: writes one container's log. Started by containerd's shim, one for each container; a program of
//! its own so that it is small.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubelet::logs::run_logger_if_asked().unwrap_or_else(|| {
        eprintln!("skiff-log writes a container's log; the kubelet has containerd start it");
        ExitCode::FAILURE
    })
}
