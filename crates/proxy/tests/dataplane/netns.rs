//! Network namespaces, each with a thread that keeps it alive, with small servers and clients
//! inside.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A request without a response for this long counts as dropped.
pub const DROP_TIMEOUT: Duration = Duration::from_millis(300);

/// A network namespace, and the thread that runs jobs inside it.
pub struct Netns {
    jobs: Option<Sender<Job>>,
    tid: i32,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    pub fn new() -> Self {
        let (jobs, queue) = channel::<Job>();
        let (ready, tid) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("network tests require root");
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in queue {
                job();
            }
        });
        let netns = Self { jobs: Some(jobs), tid: tid.recv().unwrap(), thread: Some(thread) };
        netns.ip("link set lo up");
        netns
    }

    /// The id of the thread, which identifies the namespace for `ip link ... netns`.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = channel();
        let job = move || reply.send(job()).unwrap();
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        answer.recv().expect("the job in the namespace panicked")
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.command("ip", arguments)
    }

    pub fn nft(&self, arguments: &str) -> String {
        self.command("nft", arguments)
    }

    fn command(&self, program: &'static str, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || {
            let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments}: {error}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub fn sysctl(&self, name: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/net/{name}"), value.to_owned());
        self.run(move || std::fs::write(path, value).unwrap());
    }

    /// Serves TCP and UDP, responding with its name and the client's address. A TCP connection
    /// stays open and gets a response to every byte.
    pub fn serve(&self, address: &str, name: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || answer(stream, name));
                }
            });
            let socket = UdpSocket::bind(address).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let line = format!("{name} {}", peer.ip());
                    socket.send_to(line.as_bytes(), peer).ok();
                }
            });
        });
    }

    pub fn connect(&self, address: &str) -> std::io::Result<Connection> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            // The machine may be suspended briefly, which interrupts a connect.
            let stream = loop {
                match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(Connection(stream))
        })
    }

    /// The response of the TCP server: its name and the client's address.
    pub fn ask(&self, address: &str) -> std::io::Result<String> {
        self.connect(address)?.ask()
    }

    /// The name of the server that responds.
    pub fn who(&self, address: &str) -> String {
        let answer = self.ask(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        answer.split(' ').next().unwrap().to_owned()
    }

    /// A UDP socket bound to the address.
    pub fn udp_at(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(DROP_TIMEOUT)).unwrap();
            socket
        })
    }

    /// A UDP socket connected to the address.
    pub fn udp(&self, address: &str) -> UdpFlow {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let any: IpAddr = match address {
                SocketAddr::V4(_) => "0.0.0.0".parse().unwrap(),
                SocketAddr::V6(_) => "::".parse().unwrap(),
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
            socket.connect(address).unwrap();
            UdpFlow(socket)
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.jobs = None;
        drop(self.thread.take().unwrap().join());
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        let line = format!("{name} {}\n", peer.ip());
        if stream.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

/// An open TCP connection to one of the servers.
pub struct Connection(TcpStream);

impl Connection {
    /// Like [`Self::ask`], with less patience.
    pub fn ask_within(&mut self, patience: Duration) -> std::io::Result<String> {
        self.0.set_read_timeout(Some(patience))?;
        self.ask()
    }

    pub fn ask(&mut self) -> std::io::Result<String> {
        self.0.write_all(b"?")?;
        let mut line = Vec::new();
        let mut byte = [0];
        while self.0.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        Ok(String::from_utf8(line).unwrap())
    }
}

/// A UDP flow to one of the servers.
pub struct UdpFlow(UdpSocket);

impl UdpFlow {
    pub fn ask(&self, patience: Duration) -> std::io::Result<String> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.send(b"?")?;
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
