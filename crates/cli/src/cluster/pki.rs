//! The cluster's certificates: the list of them, and keeping them valid on disk.
//!
//! [`certificates`] is the whole list, a pure function of names and addresses; [`ensure`] creates
//! missing ones and renews those that expire soon, were issued for other names, or were signed by a
//! CA that no longer exists. Valid ones are kept, so that running it again changes nothing.

mod issue;
mod verify;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::cluster::files;
use issue::Authority;

/// How long a certificate authority lasts.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long any other certificate lasts.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate with less than this left is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(120 * 24 * 3600);

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

/// The specification of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Path below the PKI folder, without its extension.
    pub path: String,
    /// Path of the authority that signs it, likewise.
    pub authority: &'static str,
    /// The user name (Kubernetes takes it from the common name).
    pub common_name: String,
    /// The group (Kubernetes takes it from the organisation).
    pub organization: Option<String>,
    pub usage: Usage,
    /// DNS names and addresses of a server.
    pub names: Vec<String>,
}

/// The cluster's authority.
pub const CLUSTER_AUTHORITY: &str = "ca";
/// etcd's own authority, so that the cluster's certificates do not give access to the store.
pub const ETCD_AUTHORITY: &str = "etcd/ca";

/// The authority of front proxies: who has a certificate of it can say whose requests it forwards.
pub const FRONT_PROXY_AUTHORITY: &str = "front-proxy-ca";
/// Their common name, which the apiserver is told.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// Whom the certificates are issued to.
#[derive(Clone, Debug)]
pub struct Subjects {
    /// DNS names and addresses of the apiserver, besides the Service's own.
    pub apiserver_names: Vec<String>,
    /// The `kubernetes` Service's address.
    pub kubernetes_service: Ipv4Addr,
    /// Name and address of each node.
    pub nodes: Vec<(String, String)>,
    /// DNS names and addresses of etcd; empty when there is none.
    pub etcd_names: Vec<String>,
}

/// Every certificate of a cluster, with kubeadm's identities.
pub fn certificates(subjects: &Subjects) -> Vec<Certificate> {
    let client = |path: &str, common_name: &str, organization: Option<&str>| Certificate {
        path: path.to_owned(),
        authority: CLUSTER_AUTHORITY,
        common_name: common_name.to_owned(),
        organization: organization.map(str::to_owned),
        usage: Usage::Client,
        names: Vec::new(),
    };
    let server = |path: &str, authority, common_name: &str, names| Certificate {
        path: path.to_owned(),
        authority,
        common_name: common_name.to_owned(),
        organization: None,
        usage: Usage::Server,
        names,
    };
    let mut apiserver_names = subjects.apiserver_names.clone();
    apiserver_names.extend(
        [
            "localhost",
            "127.0.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned),
    );
    apiserver_names.push(subjects.kubernetes_service.to_string());
    apiserver_names.sort();
    apiserver_names.dedup();

    let masters = Some("system:masters");
    let mut all = vec![
        server("apiserver", CLUSTER_AUTHORITY, "kube-apiserver", apiserver_names),
        client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", masters),
        client("admin", "kubernetes-admin", masters),
        client("scheduler", "system:kube-scheduler", None),
        server(
            "scheduler-server",
            CLUSTER_AUTHORITY,
            "system:kube-scheduler",
            vec!["kube-scheduler".to_owned()],
        ),
        client("controller-manager", "system:kube-controller-manager", None),
        client("proxy", "system:kube-proxy", None),
        client("dns", "system:dns", None),
        Certificate {
            authority: FRONT_PROXY_AUTHORITY,
            ..client("front-proxy-client", FRONT_PROXY, None)
        },
    ];
    for (node, address) in &subjects.nodes {
        let identity = format!("system:node:{node}");
        all.push(client(&format!("nodes/{node}/kubelet"), &identity, Some("system:nodes")));
        let names = vec![node.clone(), address.clone()];
        let path = format!("nodes/{node}/kubelet-server");
        all.push(server(&path, CLUSTER_AUTHORITY, &identity, names));
    }
    if !subjects.etcd_names.is_empty() {
        let names = subjects.etcd_names.clone();
        all.push(server("etcd/server", ETCD_AUTHORITY, "etcd", names));
        let mut store_client = client("etcd/apiserver-client", "kube-apiserver-etcd-client", None);
        store_client.authority = ETCD_AUTHORITY;
        all.push(store_client);
    }
    all
}

/// Ensures that the folder has every certificate, valid at `now`; returns the paths of those that
/// were created or renewed. Also creates the key pair that signs ServiceAccount tokens.
///
/// # Errors
/// When a file cannot be read or written, or an existing key cannot be used.
pub fn ensure(
    folder: &Path,
    wanted: &[Certificate],
    now: SystemTime,
) -> anyhow::Result<Vec<String>> {
    let mut made = Vec::new();
    for path in [CLUSTER_AUTHORITY, ETCD_AUTHORITY, FRONT_PROXY_AUTHORITY] {
        let signs = || wanted.iter().filter(|certificate| certificate.authority == path);
        if signs().next().is_none() {
            continue;
        }
        let (authority, fresh) = ensure_authority(folder, path, now)?;
        if fresh {
            made.push(path.to_owned());
        }
        for certificate in signs() {
            if !verify::is_valid(folder, certificate, authority.pem(), now, RENEW_BEFORE)? {
                let (pem, key) = authority.issue(certificate, now, LIFETIME)?;
                write_pair(folder, &certificate.path, &pem, &key)?;
                made.push(certificate.path.clone());
            }
        }
    }
    if !(folder.join("sa.key").exists() && folder.join("sa.pub").exists()) {
        let (private, public) = issue::key_pair()?;
        files::replace(&folder.join("sa.key"), private.as_bytes(), 0o600)?;
        files::replace(&folder.join("sa.pub"), public.as_bytes(), 0o644)?;
        made.push("sa".to_owned());
    }
    Ok(made)
}

/// How many of the certificates on disk the next [`ensure`] will renew because they expire soon.
///
/// # Errors
/// When a file exists and cannot be read.
pub fn expiring_soon(
    folder: &Path,
    wanted: &[Certificate],
    now: SystemTime,
) -> anyhow::Result<usize> {
    let mut found = 0;
    for certificate in wanted {
        let path = folder.join(format!("{}.crt", certificate.path));
        let lasts =
            files::read_if_there(&path)?.is_none_or(|pem| verify::lasts(&pem, now, RENEW_BEFORE));
        found += usize::from(!lasts);
    }
    Ok(found)
}

fn ensure_authority(
    folder: &Path,
    path: &str,
    now: SystemTime,
) -> anyhow::Result<(Authority, bool)> {
    let certificate = files::read_if_there(&folder.join(format!("{path}.crt")))?;
    let key = files::read_if_there(&folder.join(format!("{path}.key")))?;
    if let (Some(certificate), Some(key)) = (certificate, key)
        && verify::lasts(&certificate, now, RENEW_BEFORE)
    {
        let authority = Authority::load(certificate, &key)
            .with_context(|| format!("the certificate authority {path} cannot be used"))?;
        return Ok((authority, false));
    }
    let common_name = match path {
        CLUSTER_AUTHORITY => "kubernetes",
        ETCD_AUTHORITY => "etcd-ca",
        other => other,
    };
    let (authority, key) = Authority::create(common_name, now, AUTHORITY_LIFETIME)?;
    write_pair(folder, path, authority.pem(), &key)?;
    Ok((authority, true))
}

fn write_pair(folder: &Path, path: &str, certificate: &str, key: &str) -> anyhow::Result<()> {
    files::replace(&folder.join(format!("{path}.key")), key.as_bytes(), 0o600)?;
    files::replace(&folder.join(format!("{path}.crt")), certificate.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests;
