//! Files mounted into a pod's containers: hosts, resolv.conf, hostname, termination messages.
//! Blocks on the file system.

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

/// The paths of the files that all containers share.
#[derive(Clone, Debug)]
pub struct SharedFiles {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
    pub hostname: PathBuf,
}

/// Writes the pod's shared files. Idempotent.
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

/// In place, since containers have the file itself mounted; only if it changes.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Creates the (empty) file behind `terminationMessagePath` for one attempt.
pub fn make_message_file(directory: &Path, attempt: u32) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    if let Some(forgotten) = attempt.checked_sub(3) {
        // Usually it is gone already.
        fs::remove_file(message_file(directory, forgotten)).ok();
    }
    let path = message_file(directory, attempt);
    fs::write(&path, b"")?;
    // Any user of the container may write it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

/// A container's termination message; may be empty.
pub fn read_message_file(directory: &Path, attempt: u32) -> String {
    let mut text = Vec::new();
    let read = fs::File::open(message_file(directory, attempt))
        .and_then(|file| file.take(MESSAGE_FILE_BYTES as u64).read_to_end(&mut text));
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// Removes the directory of a pod if it exists; there must be no mounts in it.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
