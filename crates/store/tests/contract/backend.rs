//! The servers under test. Every test has one of its own, so that revisions are the same on each.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use store::{
    EtcdConfig, Store,
    embedded::{Embedded, EmbeddedConfig},
};
use tempfile::TempDir;

/// etcd's port may be taken by someone else between our choosing it and etcd's binding it.
const START_ATTEMPTS: usize = 5;
/// How often a quiet watch is told how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

pub struct Backend {
    pub store: Store,
    server: Server,
}

enum Server {
    Etcd(Etcd),
    Embedded(TempDir),
}

impl Backend {
    /// The folder of an embedded store.
    #[allow(dead_code, reason = "the bench looks at it")]
    pub fn directory(&self) -> Option<&std::path::Path> {
        match &self.server {
            Server::Etcd(_) => None,
            Server::Embedded(directory) => Some(directory.path()),
        }
    }

    /// The memory that the store takes, in bytes: etcd's process, or this one.
    #[allow(dead_code, reason = "the bench looks at it")]
    pub fn resident_bytes(&self) -> u64 {
        match &self.server {
            Server::Etcd(etcd) => etcd.resident_bytes(),
            Server::Embedded(_) => resident_bytes("self"),
        }
    }

    pub async fn etcd() -> Backend {
        let etcd = Etcd::start();
        let store = Store::connect(&EtcdConfig::plain([&etcd.url]))
            .await
            .unwrap();
        Backend {
            store,
            server: Server::Etcd(etcd),
        }
    }

    pub async fn embedded() -> Backend {
        let directory = TempDir::with_prefix("skiff-store-embedded-").unwrap();
        let config = EmbeddedConfig {
            progress_interval: PROGRESS_INTERVAL,
            ..EmbeddedConfig::new(directory.path())
        };
        let store = Embedded::open(config).await.unwrap().store().await.unwrap();
        Backend {
            store,
            server: Server::Embedded(directory),
        }
    }
}

/// A one-member cluster in a folder of its own, killed on drop.
pub struct Etcd {
    pub url: String,
    child: Child,
    _data: TempDir,
}

impl Etcd {
    pub fn start() -> Etcd {
        Etcd::start_with("http", &[])
    }

    /// The memory that the process has, in bytes.
    #[allow(dead_code, reason = "the bench looks at it")]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.child.id().to_string())
    }

    /// Starts it with further options, its clients coming by this scheme.
    pub fn start_with(scheme: &str, options: &[String]) -> Etcd {
        for _ in 0..START_ATTEMPTS {
            if let Some(etcd) = Etcd::try_start(scheme, options) {
                return etcd;
            }
        }
        panic!("etcd did not start in {START_ATTEMPTS} attempts");
    }

    fn try_start(scheme: &str, options: &[String]) -> Option<Etcd> {
        let data = TempDir::with_prefix("skiff-store-etcd-").unwrap();
        let [client, peer] = free_ports();
        let (url, peer_url) = (
            format!("{scheme}://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let mut child = Command::new("etcd")
            .args(["--name", "contract", "--logger", "zap", "--log-level", "info"])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(["--experimental-watch-progress-notify-interval", "1s"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("contract={peer_url}")])
            .args(options)
            .arg("--data-dir")
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd is not installed: the contract suite needs Debian's `etcd-server` (apt-get install etcd-server)");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 {
            if line.contains("serving client traffic") {
                std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
                return Some(Etcd {
                    url,
                    child,
                    _data: data,
                });
            }
            line.clear();
        }
        child.wait().unwrap();
        None
    }
}

/// The resident memory of a process by its name under `/proc`.
#[allow(dead_code, reason = "the bench looks at it")]
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
