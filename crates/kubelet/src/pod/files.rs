//! Files that a pod's containers share or that belong to one of them: hosts, resolv.conf, hostname,
//! termination messages. Blocks on the file system.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::context::Context;
use super::hosts::{HostName, hosts_file, resolv_conf};
use super::pod_ext::PodExt;
use super::status::{MESSAGE_FILE_BYTES, message_file};

/// Where the shared files are.
#[derive(Clone, Debug)]
pub struct SharedFiles {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
    pub hostname: PathBuf,
}

/// Writes the pod's shared files. Repeating it is harmless.
pub fn write_shared(
    context: &Context,
    pod: &Pod,
    ips: &[IpAddr],
    name: &HostName,
) -> io::Result<SharedFiles> {
    let directory = context.directories.pod(pod.uid());
    fs::create_dir_all(&directory)?;
    let node_hosts = if pod.host_network() {
        Some(fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        None
    };
    let node_resolv = fs::read_to_string(&context.node.resolv_conf).unwrap_or_default();
    let hosts = directory.join("etc-hosts");
    write(&hosts, &hosts_file(pod, ips, name, node_hosts.as_deref()))?;
    let resolv = directory.join("resolv.conf");
    write(&resolv, &resolv_conf(pod, &context.node.dns, &node_resolv))?;
    let hostname = directory.join("hostname");
    write(&hostname, &format!("{}\n", name.hostname))?;
    Ok(SharedFiles { hosts, resolv_conf: resolv, hostname })
}

/// In place, since containers hold the file itself; only if it is to change.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Makes the (empty) file behind `terminationMessagePath` of one attempt.
pub fn make_message_file(directory: &Path, attempt: u32) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    if let Some(forgotten) = attempt.checked_sub(3) {
        // Most often it is not there any more.
        fs::remove_file(message_file(directory, forgotten)).ok();
    }
    let path = message_file(directory, attempt);
    fs::write(&path, b"")?;
    // Whatever user the container runs as may write it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

/// What a container left as its last words; empty when nothing.
pub fn read_message_file(directory: &Path, attempt: u32) -> String {
    let mut text = Vec::new();
    let read = fs::File::open(message_file(directory, attempt))
        .and_then(|file| file.take(MESSAGE_FILE_BYTES as u64).read_to_end(&mut text));
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// Removes the directory of a pod; mounts in it must be gone. Missing is fine.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
