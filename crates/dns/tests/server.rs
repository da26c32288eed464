//! The server over real sockets, in its own network namespace: UDP and TCP, truncation, forwarding
//! and its limits, clients, its address.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use client::mirror::Name as ServiceName;
use dns::address::Addresses;
use dns::clients::Clients;
use dns::forward::Forwarder;
use dns::handler::Handler;
use dns::records::{Backend, Entry, Records};
use dns::tcp::{self, CLIENT_CONNECTIONS_MAX};
use dns::upstream::Upstreams;
use dns::zone::Zone;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const LISTEN: &str = "10.96.0.10";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the test in a thread with its own network namespace, which goes away with the thread.
fn in_netns(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("network tests require root");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn records() -> Records {
    let mut records = Records::starting_at(1);
    let mut set = |name: &str, entry| records.set(&ServiceName::from(name), Some(entry));
    set(
        "default/web",
        Entry::ClusterIp { ips: vec!["10.96.0.20".parse().unwrap()], ports: Vec::new() },
    );
    set("default/out", Entry::ExternalName("www.example.org".into()));
    let backend = |n: u8| Backend {
        label: format!("pod-{n}").into(),
        ip: [10, 244, 0, n].into(),
        ports: Vec::new(),
    };
    set("default/many", Entry::Headless((1..=100).map(backend).collect()));
    records
}

/// A server on [`LISTEN`] with one dead and one live upstream server.
async fn start(records: Arc<ArcSwap<Records>>) -> (Server<Handler>, Addresses) {
    let ips: Vec<IpAddr> = vec![LISTEN.parse().unwrap()];
    let addresses = Addresses::add(&ips).await.unwrap();
    let servers = ["127.0.0.1:9".to_owned(), upstream().await.to_string()];
    let upstreams = Upstreams::new(&servers, Vec::new(), clock::system()).unwrap();
    let zone = Zone::new("cluster.local", ips).unwrap();
    let clients = Clients::new(addresses.netlink().clone());
    let handler = Handler::new(zone, records, Forwarder::new(upstreams), clients);
    let mut server = Server::new(handler.clone());
    server.register_socket(UdpSocket::bind((LISTEN, 53)).await.unwrap());
    let listener = TcpListener::bind((LISTEN, 53)).await.unwrap();
    tokio::spawn(tcp::serve(listener, handler, CancellationToken::new()));
    (server, addresses)
}

/// An upstream server that answers every query with 192.0.2.1, but truncates the response for
/// `large.example.org` over UDP, and never answers for `silent.*`.
async fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = upstream_answer(&buffer[..length]);
            if message.queries[0].name().to_string().starts_with("silent.") {
                continue;
            }
            if message.queries[0].name().to_string().starts_with("large.") {
                message.answers.clear();
                message.metadata.truncation = true;
            }
            socket.send_to(&message.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = usize::from(stream.read_u16().await.unwrap());
            let mut buffer = vec![0; length];
            stream.read_exact(&mut buffer).await.unwrap();
            let answer = upstream_answer(&buffer).to_vec().unwrap();
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn upstream_answer(question: &[u8]) -> Message {
    let mut message = Message::from_vec(question).unwrap().into_response();
    let name = message.queries[0].name().clone();
    message.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 1].into()))));
    message
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn over_udp(question: &Message) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect((LISTEN, 53)).await.unwrap();
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(TIMEOUT, socket.recv(&mut buffer)).await;
    Message::from_vec(&buffer[..received.unwrap().unwrap()]).unwrap()
}

async fn over_tcp(question: &Message) -> Message {
    let mut stream = TcpStream::connect((LISTEN, 53)).await.unwrap();
    ask(&mut stream, &question.to_vec().unwrap()).await.unwrap()
}

async fn ask(stream: &mut TcpStream, question: &[u8]) -> std::io::Result<Message> {
    stream.write_u16(u16::try_from(question.len()).unwrap()).await?;
    stream.write_all(question).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await?;
    Ok(Message::from_vec(&buffer).unwrap())
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn names_of_the_cluster_over_udp_and_tcp() {
    in_netns(async || {
        let records = Arc::new(ArcSwap::from_pointee(records()));
        let (_server, _addresses) = start(records.clone()).await;
        let web = question("Web.default.svc.cluster.local.", RecordType::A);
        for answer in [over_udp(&web).await, over_tcp(&web).await] {
            assert_eq!(data(&answer), ["10.96.0.20"]);
            assert_eq!(answer.metadata.id, web.metadata.id);
            assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
            assert_eq!(answer.answers[0].name.to_string(), "Web.default.svc.cluster.local.");
            assert_eq!(answer.answers[0].ttl, 5);
        }
        let missing = over_udp(&question("no.default.svc.cluster.local.", RecordType::A)).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
        let empty = over_udp(&question("web.default.svc.cluster.local.", RecordType::AAAA)).await;
        assert_eq!(empty.metadata.response_code, ResponseCode::NoError);
        assert_eq!(empty.authorities.len(), 1);
        let mut changed = Records::clone(&records.load());
        changed.set(&"default/web".into(), None);
        records.store(Arc::new(changed));
        let gone = over_udp(&web).await;
        assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    });
}

#[test]
fn responses_are_truncated_over_udp_and_complete_over_tcp() {
    in_netns(async || {
        let (_server, _addresses) = start(Arc::new(ArcSwap::from_pointee(records()))).await;
        let mut many = question("many.default.svc.cluster.local.", RecordType::A);
        let cut = over_udp(&many).await;
        assert!(cut.metadata.truncation && cut.answers.len() < 40);
        let whole = over_tcp(&many).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 100);
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        many.set_edns(edns);
        let larger = over_udp(&many).await;
        assert!(larger.answers.len() > cut.answers.len());
    });
}

#[test]
fn other_names_are_forwarded() {
    in_netns(async || {
        let (_server, _addresses) = start(Arc::new(ArcSwap::from_pointee(records()))).await;
        let other = over_udp(&question("www.example.org.", RecordType::A)).await;
        assert_eq!(data(&other), ["192.0.2.1"]);
        assert!(!other.metadata.authoritative);
        let alias = over_udp(&question("out.default.svc.cluster.local.", RecordType::A)).await;
        assert_eq!(data(&alias), ["www.example.org.", "192.0.2.1"]);
        let large = question("large.example.org.", RecordType::A);
        assert!(over_udp(&large).await.metadata.truncation);
        assert_eq!(data(&over_tcp(&large).await), ["192.0.2.1"]);
    });
}

#[test]
fn a_client_cannot_keep_others_from_asking() {
    in_netns(async || {
        let (_server, _addresses) = start(Arc::new(ArcSwap::from_pointee(records()))).await;
        let from = async |ip: &str, question: &Message| {
            let socket = UdpSocket::bind((ip, 0)).await.unwrap();
            socket.send_to(&question.to_vec().unwrap(), (LISTEN, 53)).await.unwrap();
            socket
        };
        let answer = async |socket: &UdpSocket| {
            let mut buffer = [0; 4096];
            let received = tokio::time::timeout(TIMEOUT, socket.recv(&mut buffer)).await;
            Message::from_vec(&buffer[..received.unwrap().unwrap()]).unwrap().metadata.response_code
        };
        let mut waiting = Vec::new();
        for n in 0..64 {
            let silent = question(&format!("silent.n{n}.example.org."), RecordType::A);
            waiting.push(from("127.0.0.2", &silent).await);
        }
        // Its share is used up: even a question that would be answered at once fails.
        let known = |n: u8| question(&format!("www{n}.example.org."), RecordType::A);
        assert_eq!(answer(&from("127.0.0.2", &known(1)).await).await, ResponseCode::ServFail);
        assert_eq!(answer(&from("127.0.0.3", &known(2)).await).await, ResponseCode::NoError);
        // Names of the cluster are answered without asking anyone, and known names from the cache.
        let web = question("web.default.svc.cluster.local.", RecordType::A);
        for question in [web, known(2)] {
            assert_eq!(answer(&from("127.0.0.2", &question).await).await, ResponseCode::NoError);
        }
        // The share comes back with the failures.
        for socket in &waiting {
            assert_eq!(answer(socket).await, ResponseCode::ServFail);
        }
        assert_eq!(answer(&from("127.0.0.2", &known(1)).await).await, ResponseCode::NoError);
    });
}

#[test]
fn a_client_has_its_share_of_the_connections() {
    in_netns(async || {
        let (_server, _addresses) = start(Arc::new(ArcSwap::from_pointee(records()))).await;
        let mut held = Vec::new();
        for _ in 0..CLIENT_CONNECTIONS_MAX {
            held.push(TcpStream::connect((LISTEN, 53)).await.unwrap());
        }
        // Connections are accepted in order, so all of these are served by the time that one more
        // is closed.
        let mut late = TcpStream::connect((LISTEN, 53)).await.unwrap();
        let closed = tokio::time::timeout(TIMEOUT, late.read_u16()).await.unwrap();
        assert!(closed.is_err(), "{closed:?}");
        // Another client has its own.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(format!("{LISTEN}:53").parse().unwrap()).await.unwrap();
        let web = question("web.default.svc.cluster.local.", RecordType::A).to_vec().unwrap();
        let answer = ask(&mut other, &web).await.unwrap();
        assert_eq!(data(&answer), ["10.96.0.20"]);
        // What is not a query gets an error, and the connection goes on.
        let answer = ask(&mut other, b"\x12\x34 is not a query").await.unwrap();
        assert_eq!(answer.metadata.id, 0x1234);
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        let answer = ask(&mut held[0], &web).await.unwrap();
        assert_eq!(data(&answer), ["10.96.0.20"]);
        // A place comes back, once the server has noticed.
        drop(held.pop());
        let again = async {
            loop {
                let mut stream = TcpStream::connect((LISTEN, 53)).await.unwrap();
                if ask(&mut stream, &web).await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(TIMEOUT, again).await.unwrap();
    });
}

#[test]
fn only_this_node_and_its_pods_may_ask() {
    let ip = |arguments: &str| {
        let done = std::process::Command::new("ip").args(arguments.split(' ')).status();
        assert!(done.unwrap().success(), "{arguments}");
    };
    let outside = move |address: &'static str| {
        let (ready, tid) = std::sync::mpsc::channel();
        let (go, start) = std::sync::mpsc::channel::<()>();
        let web = question("web.default.svc.cluster.local.", RecordType::A);
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid()).unwrap();
            start.recv().unwrap();
            ip(&format!("address add {address}/32 dev eth0"));
            ip("link set eth0 up");
            ip("route add 192.0.2.1 dev eth0");
            ip("route add default via 192.0.2.1");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { (over_udp(&web).await, over_tcp(&web).await) })
        });
        (tid.recv().unwrap(), go, thread)
    };
    in_netns(async move || {
        let (_server, _addresses) = start(Arc::new(ArcSwap::from_pointee(records()))).await;
        let clients = [
            ("10.244.0.5", " proto 172", ResponseCode::NoError),
            ("192.0.2.77", "", ResponseCode::Refused),
        ];
        ip("address add 192.0.2.1/24 dev lo");
        for (n, (address, route, expected)) in clients.into_iter().enumerate() {
            let (tid, go, thread) = outside(address);
            ip(&format!("link add veth{n} type veth peer name eth0 netns {tid}"));
            std::fs::write(format!("/proc/sys/net/ipv4/conf/veth{n}/proxy_arp"), "1").unwrap();
            ip(&format!("link set veth{n} up"));
            ip(&format!("route add {address} dev veth{n}{route}"));
            go.send(()).unwrap();
            let answers =
                tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
            for answer in [answers.0, answers.1] {
                assert_eq!(answer.metadata.response_code, expected, "{address}");
            }
        }
    });
}

#[test]
fn the_address_is_on_lo_while_it_is_needed() {
    in_netns(async || {
        let ips: Vec<IpAddr> =
            ["127.0.0.1", LISTEN, "fd00::10"].map(|ip| ip.parse().unwrap()).into();
        let shown = || {
            let output = std::process::Command::new("ip").args(["address", "show", "lo"]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let before = shown();
        // The first server is killed: its addresses remain, and the second reuses them.
        drop(Addresses::add(&ips).await.unwrap());
        let addresses = Addresses::add(&ips).await.unwrap();
        assert!(shown().contains("inet 10.96.0.10/32 scope host lo"), "{}", shown());
        assert!(shown().contains("inet6 fd00::10/128"));
        addresses.remove().await.unwrap();
        assert_eq!(shown(), before);
    });
}
