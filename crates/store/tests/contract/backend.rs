//! The servers under test. Each test starts its own, so that revisions are reproducible.

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

/// Another process may take etcd's port between our choosing it and etcd's binding it.
const START_ATTEMPTS: usize = 5;
/// The interval of progress notifications to idle watches.
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
    /// The directory of an embedded store.
    #[allow(dead_code, reason = "used by the bench")]
    pub fn directory(&self) -> Option<&std::path::Path> {
        match &self.server {
            Server::Etcd(_) => None,
            Server::Embedded(directory) => Some(directory.path()),
        }
    }

    /// The resident memory of the store's process in bytes: etcd's, or this one.
    #[allow(dead_code, reason = "used by the bench")]
    pub fn resident_bytes(&self) -> u64 {
        match &self.server {
            Server::Etcd(etcd) => etcd.resident_bytes(),
            Server::Embedded(_) => resident_bytes("self"),
        }
    }

    pub async fn etcd() -> Backend {
        let etcd = Etcd::start();
        let store = Store::connect(&EtcdConfig::plain([&etcd.url])).await.unwrap();
        Backend { store, server: Server::Etcd(etcd) }
    }

    pub async fn embedded() -> Backend {
        let directory = TempDir::with_prefix("skiff-store-embedded-").unwrap();
        let config = EmbeddedConfig {
            progress_interval: PROGRESS_INTERVAL,
            ..EmbeddedConfig::new(directory.path())
        };
        let store = Embedded::open(config).await.unwrap().store().await.unwrap();
        Backend { store, server: Server::Embedded(directory) }
    }
}

/// A one-member cluster in its own directory, killed on drop.
pub struct Etcd {
    pub url: String,
    peer_url: String,
    options: Vec<String>,
    data: TempDir,
    child: Option<Child>,
}

impl Etcd {
    pub fn start() -> Etcd {
        Etcd::start_with("http", &[])
    }

    /// The resident memory of the process, in bytes.
    #[allow(dead_code, reason = "used by the bench")]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.child.as_ref().expect("etcd is running").id().to_string())
    }

    /// Starts etcd with additional options, with client URLs of this scheme.
    pub fn start_with(scheme: &str, options: &[String]) -> Etcd {
        for _ in 0..START_ATTEMPTS {
            if let Some(etcd) = Etcd::try_start(scheme, options) {
                return etcd;
            }
        }
        panic!("etcd did not start in {START_ATTEMPTS} attempts");
    }

    fn try_start(scheme: &str, options: &[String]) -> Option<Etcd> {
        let [client, peer] = free_ports();
        let mut etcd = Etcd {
            url: format!("{scheme}://127.0.0.1:{client}"),
            peer_url: format!("http://127.0.0.1:{peer}"),
            options: options.to_vec(),
            data: TempDir::with_prefix("skiff-store-etcd-").unwrap(),
            child: None,
        };
        etcd.run().then_some(etcd)
    }

    /// Kills the process, as in a crash.
    #[allow(dead_code, reason = "the bench has no outages")]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("etcd is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts the process, with the same data and ports as before, and waits until it serves;
    /// returns whether it does.
    pub fn run(&mut self) -> bool {
        let (url, peer_url) = (&self.url, &self.peer_url);
        let mut child = Command::new("etcd")
            .args(["--name", "contract", "--logger", "zap", "--log-level", "info"])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(["--experimental-watch-progress-notify-interval", "1s"])
            .args(["--listen-client-urls", url, "--advertise-client-urls", url])
            .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
            .args(["--initial-cluster", &format!("contract={peer_url}")])
            .args(&self.options)
            .arg("--data-dir")
            .arg(self.data.path())
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
                self.child = Some(child);
                return true;
            }
            line.clear();
        }
        child.wait().unwrap();
        false
    }
}

/// The resident memory of a process, given its directory under `/proc`.
#[allow(dead_code, reason = "used by the bench")]
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
