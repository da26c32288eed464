//! The upstream servers, given by address or listed in files in the format of /etc/resolv.conf.
//! Files are re-read on demand when the last read is too old: the file changes when a machine moves
//! to another network.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clock::SharedClock;
use jiff::Timestamp;

const DNS_PORT: u16 = 53;
/// How long the contents of a file are cached.
const FILE_TTL: Duration = Duration::from_secs(5);

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the upstream servers from {path}")]
pub struct UpstreamError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

enum Source {
    Address(SocketAddr),
    File(PathBuf),
}

/// The upstream servers for names outside the cluster.
pub struct Upstreams {
    sources: Vec<Source>,
    /// Our own addresses: a query forwarded to them would loop forever.
    own: Vec<SocketAddr>,
    clock: SharedClock,
    cached: ArcSwap<Cached>,
}

struct Cached {
    since: Timestamp,
    servers: Arc<Vec<SocketAddr>>,
}

impl Upstreams {
    /// `texts` are addresses (with a port, if not 53) or paths of files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn new(
        texts: &[String],
        own: Vec<SocketAddr>,
        clock: SharedClock,
    ) -> Result<Self, UpstreamError> {
        let source = |text: &String| match server(text) {
            Some(address) => Source::Address(address),
            None => Source::File(text.into()),
        };
        let sources: Vec<Source> = texts.iter().map(source).collect();
        let servers = Arc::new(read(&sources, &own)?);
        let cached = ArcSwap::from_pointee(Cached { since: clock.now(), servers });
        Ok(Self { sources, own, clock, cached })
    }

    /// The servers, in the order to try them. If a file has become unreadable, they stay unchanged.
    pub fn current(&self) -> Arc<Vec<SocketAddr>> {
        let cached = self.cached.load();
        let now = self.clock.now();
        let age = Duration::try_from(now.duration_since(cached.since)).unwrap_or(FILE_TTL);
        let files = self.sources.iter().any(|source| matches!(source, Source::File(_)));
        if !files || age < FILE_TTL {
            return Arc::clone(&cached.servers);
        }
        let servers = match read(&self.sources, &self.own) {
            Ok(servers) if servers == *cached.servers => Arc::clone(&cached.servers),
            Ok(servers) => {
                tracing::info!(?servers, "the upstream servers have changed");
                Arc::new(servers)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot update the upstream servers");
                Arc::clone(&cached.servers)
            }
        };
        self.cached.store(Arc::new(Cached { since: now, servers: Arc::clone(&servers) }));
        servers
    }
}

fn read(sources: &[Source], own: &[SocketAddr]) -> Result<Vec<SocketAddr>, UpstreamError> {
    let mut servers = Vec::new();
    for source in sources {
        match source {
            Source::Address(address) => servers.push(*address),
            Source::File(path) => servers.extend(in_file(path)?),
        }
    }
    servers.retain(|server| !own.contains(server));
    Ok(servers)
}

/// The servers listed in a file in the format of /etc/resolv.conf.
fn in_file(path: &Path) -> Result<Vec<SocketAddr>, UpstreamError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| UpstreamError { path: path.to_owned(), source })?;
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => server(address),
            _ => None,
        }
    };
    Ok(text.lines().filter_map(named).collect())
}

fn server(text: &str) -> Option<SocketAddr> {
    // A scope (%eth0) is meaningless in another network namespace.
    let ip = text.split('%').next().unwrap_or(text).parse::<IpAddr>();
    let with_port = || text.parse().ok();
    ip.ok().map(|ip| SocketAddr::new(ip, DNS_PORT)).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::ManualClock;

    #[test]
    fn a_file_is_read_again_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(
            "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver  fe80::1%eth0\nnameserver 10.96.0.10\nnameserver\n",
        );
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let texts = ["192.0.2.9:5353".to_owned(), path.to_string_lossy().into_owned()];
        let own = vec!["10.96.0.10:53".parse().unwrap()];
        let upstreams = Upstreams::new(&texts, own, Arc::new(clock.clone())).unwrap();
        let current =
            || -> Vec<String> { upstreams.current().iter().map(SocketAddr::to_string).collect() };
        let first = ["192.0.2.9:5353", "192.0.2.1:53", "[fe80::1]:53"];
        assert_eq!(current(), first);
        write("nameserver 192.0.2.2\n");
        assert_eq!(current(), first);
        clock.advance(FILE_TTL);
        assert_eq!(current(), ["192.0.2.9:5353", "192.0.2.2:53"]);
        std::fs::remove_file(&path).unwrap();
        clock.advance(FILE_TTL);
        assert_eq!(current(), ["192.0.2.9:5353", "192.0.2.2:53"]);
    }

    #[test]
    fn a_missing_file_is_an_error_at_start() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        assert!(Upstreams::new(&["/no/such/file".to_owned()], Vec::new(), clock).is_err());
    }
}
