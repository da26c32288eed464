//! Uses real namespaces: a "node" and its "pods" are network namespaces that exist as long as the
//! threads in them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::*;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread in it runs jobs.
struct Netns {
    jobs: Option<Sender<Job>>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    fn new() -> Self {
        let (jobs, queue) = channel::<Job>();
        let (ready, path) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the network tests run as root");
            let (pid, tid) = (std::process::id(), nix::unistd::gettid());
            ready.send(format!("/proc/{pid}/task/{tid}/ns/net")).unwrap();
            for job in queue {
                job();
            }
        });
        Self { jobs: Some(jobs), path: path.recv().unwrap().into(), thread: Some(thread) }
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = channel();
        let job = move || reply.send(job()).unwrap();
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        answer.recv().expect("the job in the namespace panicked")
    }

    fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// Serves one line per connection for as long as the test runs.
    fn serve(&self, address: SocketAddr, line: &'static str) {
        self.run(move || {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let peer = stream.peer_addr().unwrap().ip();
                    stream.write_all(format!("{line} {peer}").as_bytes()).unwrap();
                }
            });
        });
    }

    /// The server's answer: its line, and the client address it saw.
    fn ask(&self, address: SocketAddr) -> std::io::Result<String> {
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    fn block_on<T: Send + 'static>(&self, job: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(job())
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.jobs = None;
        drop(self.thread.take().unwrap().join());
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A node with the address 192.168.7.2 on an uplink of MTU 1400 to 192.168.7.1.
fn node_and_machine() -> (Netns, Netns) {
    let (node, machine) = (Netns::new(), Netns::new());
    let path = machine.path.clone();
    node.run(move || {
        ip("link set lo up");
        let tid = path.components().nth(4).unwrap().as_os_str().to_str().unwrap().to_owned();
        ip(&format!("link add up0 mtu 1400 type veth peer name down0 mtu 1400 netns {tid}"));
        ip("address add 192.168.7.2/24 dev up0");
        ip("link set up0 up");
        ip("route add default via 192.168.7.1");
    });
    machine.ip("address add 192.168.7.1/24 dev down0");
    machine.ip("link set down0 up");
    machine.ip("route add 10.9.1.0/24 via 192.168.7.2");
    (node, machine)
}

fn node_ip() -> IpAddr {
    "192.168.7.2".parse().unwrap()
}

async fn open(dir: &Path) -> PodNetwork {
    let ranges = ["10.9.1.0/24".parse().unwrap(), "fd00:9::/64".parse().unwrap()];
    PodNetwork::open(&ranges, node_ip(), dir).await.unwrap()
}

fn socket(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 8080)
}

#[test]
fn pods_the_node_and_the_machine_reach_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (node, machine) = node_and_machine();
    let (a, b) = (Netns::new(), Netns::new());
    let (root, paths) = (dir.path().to_owned(), [a.path.clone(), b.path.clone()]);
    let [ips_a, ips_b] = node.block_on(async move || {
        let network = open(&root).await;
        [
            network.setup("uid-a", &paths[0]).await.unwrap(),
            network.setup("uid-b", &paths[1]).await.unwrap(),
        ]
    });
    assert_eq!(ips_a.0[0], "10.9.1.1".parse::<IpAddr>().unwrap());
    for (pod, ips, line) in [(&a, &ips_a, "a"), (&b, &ips_b, "b")] {
        for ip in &ips.0 {
            pod.serve(socket(*ip), line);
        }
    }
    for (from, to) in ips_a.0.iter().zip(&ips_b.0) {
        assert_eq!(a.ask(socket(*to)).unwrap(), format!("b {from}"));
        assert_eq!(b.ask(socket(*from)).unwrap(), format!("a {to}"));
        assert_eq!(a.ask(socket(*from)).unwrap(), format!("a {from}"));
    }
    let primary = ips_a.0[0];
    assert_eq!(node.ask(socket(primary)).unwrap(), "a 192.168.7.2");
    assert_eq!(machine.ask(socket(primary)).unwrap(), "a 192.168.7.1");
    node.serve(socket(node_ip()), "node");
    assert_eq!(a.ask(socket(node_ip())).unwrap(), "node 10.9.1.1");
    a.run(|| TcpListener::bind("127.0.0.1:0").map(drop)).expect("the loopback is up");
    assert!(a.ip("link show eth0").contains("mtu 1400"));
    let free: SocketAddr = "10.9.1.77:1".parse().unwrap();
    let error = a.ask(free).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
}

/// What a pod sends with an address that is not its own does not arrive, on a node whose kernel
/// would let it pass.
#[test]
fn a_pod_cannot_send_from_a_foreign_address() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _machine) = node_and_machine();
    let pod = Netns::new();
    let (root, path) = (dir.path().to_owned(), pod.path.clone());
    let own = node.block_on(async move || {
        for which in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "0").unwrap();
        }
        open(&root).await.setup("uid", &path).await.unwrap().0[0]
    });
    let server = node.run(|| UdpSocket::bind(socket(node_ip())).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    pod.run(move || {
        ip("address add 10.9.1.200/32 dev lo");
        for from in ["10.9.1.200".parse().unwrap(), own] {
            let socket_of_pod = UdpSocket::bind((from, 0)).unwrap();
            socket_of_pod.send_to(b"x", socket(node_ip())).unwrap();
        }
    });
    // A link keeps the order, so that what arrives first is what was not dropped.
    let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(peer.ip(), own);
}

#[test]
fn setup_and_teardown_can_be_repeated_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _machine) = node_and_machine();
    let pod = Netns::new();
    pod.serve("127.0.0.1:0".parse().unwrap(), "");
    let (root, path) = (dir.path().to_owned(), pod.path.clone());
    let before = node.block_on(async move || {
        let network = open(&root).await;
        let ips = network.setup("uid", &path).await.unwrap();
        // Numbers and names only: the carrier comes up asynchronously.
        let links = || -> Vec<String> {
            let listing = ip("-oneline link show type veth");
            let first_two = |line: &str| line.split_whitespace().take(2).collect::<String>();
            listing.lines().map(first_two).collect()
        };
        let before = links();
        assert_eq!(network.setup("uid", &path).await.unwrap(), ips);
        assert_eq!(links(), before, "the link was created again");
        ips
    });
    // A new process, and a new namespace for the same pod.
    let next = Netns::new();
    let (root, path) = (dir.path().to_owned(), next.path.clone());
    let after = node.block_on(async move || {
        let network = open(&root).await;
        assert_eq!(network.pods().len(), 1);
        network.setup("uid", &path).await.unwrap()
    });
    assert_eq!(before, after);
    next.serve(socket(after.0[0]), "next");
    assert_eq!(node.ask(socket(after.0[0])).unwrap(), "next 192.168.7.2");
    let root = dir.path().to_owned();
    node.block_on(async move || {
        let network = open(&root).await;
        network.teardown("uid").await.unwrap();
        network.teardown("uid").await.unwrap();
        assert!(network.pods().is_empty());
        let routes = ip("route show proto 172");
        assert_eq!(routes.trim(), "unreachable 10.9.1.0/24 metric 30000");
        assert!(!ip("-oneline link show type veth").contains(": veth"));
    });
}

#[test]
fn fifty_pods_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _machine) = node_and_machine();
    let pods: Vec<Netns> = (0..50).map(|_| Netns::new()).collect();
    let paths: Vec<PathBuf> = pods.iter().map(|pod| pod.path.clone()).collect();
    let root = dir.path().to_owned();
    let (all, one) = node.block_on(async move || {
        let network = open(&root).await;
        let clock = clock::instant();
        network.setup("uid-0", &paths[0]).await.unwrap();
        let one = clock.elapsed();
        let setups = paths.iter().enumerate().map(|(n, path)| {
            let network = &network;
            async move { network.setup(&format!("uid-{n}"), path).await.unwrap() }
        });
        let ips = futures::future::join_all(setups).await;
        let distinct: BTreeSet<IpAddr> = ips.iter().map(|ips| ips.0[0]).collect();
        assert_eq!(distinct.len(), 50);
        (clock.elapsed(), one)
    });
    println!("one pod in {one:?}, fifty in {all:?}");
}
