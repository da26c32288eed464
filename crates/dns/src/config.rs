//! Flags, read once and validated.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use runtime::flags::CommonFlags;

const DNS_PORT: u16 = 53;

/// Flags of `skiff-dns`.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "skiff-dns",
    version,
    about = "Answers the DNS queries of a node's pods."
)]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    /// Kubeconfig with the apiserver's address and our credentials.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// The address to listen at; it is added to `lo` while the server runs.
    #[arg(
        long,
        value_name = "IP",
        value_delimiter = ',',
        default_value = "10.96.0.10"
    )]
    pub listen: Vec<IpAddr>,

    /// The port to listen at, over UDP and TCP.
    #[arg(long, default_value_t = DNS_PORT)]
    pub port: u16,

    /// The domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Where other names are asked for: the address of a server (with a port, if it is not 53), or a file in the form
    /// of /etc/resolv.conf.
    #[arg(
        long,
        value_name = "FILE|IP",
        value_delimiter = ',',
        default_value = "/etc/resolv.conf"
    )]
    pub upstream: Vec<String>,
}

impl Config {
    /// The upstream servers. Our own address is none, or questions would go round for ever.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn upstreams(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let mut upstreams = Vec::new();
        for text in &self.upstream {
            if let Some(address) = server(text) {
                upstreams.push(address);
                continue;
            }
            let path = Path::new(text);
            let file = std::fs::read_to_string(path);
            let file = file.with_context(|| format!("read the upstream servers from {text}"))?;
            upstreams.extend(servers(&file));
        }
        let own = |address: &SocketAddr| {
            self.listen.contains(&address.ip()) && address.port() == self.port
        };
        upstreams.retain(|address| !own(address));
        Ok(upstreams)
    }
}

/// The servers named in a file in the form of /etc/resolv.conf.
fn servers(file: &str) -> impl Iterator<Item = SocketAddr> {
    file.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else {
            return None;
        };
        server(address)
    })
}

fn server(text: &str) -> Option<SocketAddr> {
    // A scope (%eth0) means nothing in another namespace.
    let ip = text.split('%').next().unwrap_or(text).parse::<IpAddr>();
    let with_port = || text.parse().ok();
    ip.ok()
        .map(|ip| SocketAddr::new(ip, DNS_PORT))
        .or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let file = "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver  fe80::1%eth0\noptions ndots:2\nnameserver\n";
        let found: Vec<String> = servers(file).map(|address| address.to_string()).collect();
        assert_eq!(found, ["192.0.2.1:53", "[fe80::1]:53"]);
        assert_eq!(
            server("192.0.2.1:5353"),
            Some("192.0.2.1:5353".parse().unwrap())
        );
        assert_eq!(server("/etc/resolv.conf"), None);
    }
}
