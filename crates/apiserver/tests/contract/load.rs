//! Load: what clients cost while they do not read, do not write, or are too many. The server runs in
//! a process of its own, so that its memory can be measured.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::api_v1 as pb;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Rest, Server, Tls};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const MIB: usize = 1 << 20;

/// What ten renewals of a Lease may take, each of which reads it first: a tenth of the time that
/// its holder has for one.
const RENEWALS: Duration = Duration::from_secs(10);

/// Renews a Lease a few times; each renewal must succeed, and soon.
async fn renew(node: &Rest) {
    let path = format!("{LEASES}/l");
    let begun = clock::instant();
    for _ in 0..10 {
        let mut lease = node.get(&path).await.expect(200);
        lease["spec"]["leaseTransitions"] =
            (lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0) + 1).into();
        node.send("PUT", &path, &lease).await.expect(200);
    }
    assert!(begun.elapsed() < RENEWALS, "ten renewals took {:?}", begun.elapsed());
}

/// The scheduler, with its Lease.
async fn scheduler(server: &Server) -> Rest {
    let scheduler = server.rest_as("system:kube-scheduler", &[]);
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "s"}});
    server.admin().post(LEASES, &lease).await.expect(201);
    let role = json!({"metadata": {"name": "l"}, "rules": [{"apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"], "resourceNames": ["l"], "verbs": ["get", "update"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system";
    server.admin().post(&format!("{rbac}/roles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "l"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "l"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
            "name": "system:kube-scheduler"}]});
    server.admin().post(&format!("{rbac}/rolebindings"), &binding).await.expect(201);
    scheduler
}

/// A connection over HTTP/1.1 that has sent half of a body.
async fn half_sent_http1(server: &Server) -> Option<Tls> {
    let mut stream = server.tls().await?;
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        2 * MIB
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    // The server may have closed it.
    stream.write_all(&vec![b' '; MIB]).await.ok();
    Some(stream)
}

type Sender = hyper::client::conn::http2::SendRequest<
    StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>,
>;

/// A connection over HTTP/2 with half of a body on each of several streams.
async fn half_sent_http2(server: &Server, path: &str, kind: &str, begin: &[u8]) -> Option<Sender> {
    let stream = TokioIo::new(server.tls().await?);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.ok()?;
    tokio::spawn(connection);
    for _ in 0..10 {
        let first = Ok(Frame::data(Bytes::copy_from_slice(begin)));
        let half = Ok(Frame::data(Bytes::from(vec![b' '; MIB])));
        let frames = futures::stream::iter([first, half]).chain(futures::stream::pending());
        let request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", kind)
            .body(StreamBody::new(frames.boxed()))
            .unwrap();
        sender.ready().await.ok()?;
        tokio::spawn(sender.send_request(request));
    }
    Some(sender)
}

/// Hundreds of connections without credentials, each with half of a body, or of a message of any
/// length, cost little and hinder nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_strangers_cost_nothing() {
    let server = Server::spawn(&[]).await;
    let scheduler = scheduler(&server).await;
    renew(&scheduler).await;
    let before = server.allocated();
    let (mut http1, mut http2) = (Vec::new(), Vec::new());
    let mut most = before;
    // gRPC's prefix: not compressed, and the length of the message.
    let length = |bytes: usize| [&[0][..], &u32::try_from(bytes).unwrap().to_be_bytes()].concat();
    let grpc = "/skiff.api.v1.Resources";
    for round in 0..60 {
        http1.push(half_sent_http1(&server).await.unwrap());
        let (path, kind, begin) = match round % 4 {
            0 => (MAPS.to_owned(), "application/json", Vec::new()),
            1 => (format!("{grpc}/Create"), "application/grpc", length(60 * MIB)),
            2 => (format!("{grpc}/Create"), "application/grpc", length(2 * MIB)),
            _ => (format!("{grpc}/Bind"), "application/grpc", length(2 * MIB)),
        };
        for _ in 0..4 {
            http2.push(half_sent_http2(&server, &path, kind, &begin).await.unwrap());
        }
        most = most.max(server.allocated());
        if round % 20 == 0 {
            renew(&scheduler).await;
        }
    }
    renew(&scheduler).await;
    most = most.max(server.allocated());
    let grown = most.saturating_sub(before);
    assert!(grown < 50 * MIB, "{} connections cost {} MiB", 60 * 5, grown / MIB);
    drop((http1, http2));
}

/// A client that connects and does not say who it is has ten seconds for it.
#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let server = Server::start().await;
    // The head of a TLS record of 512 bytes, of which nothing follows.
    for begin in [&[][..], &[0x16, 0x03, 0x01, 0x02, 0x00]] {
        let mut stream = server.tcp().await.unwrap();
        stream.write_all(begin).await.unwrap();
        let begun = clock::instant();
        let closed = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
        assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    }
    server.stop().await;
}

/// One connection has at most 250 requests open; the next wait for one of them to end.
#[tokio::test]
async fn no_more_streams_are_open_than_the_bound() {
    const STREAMS: usize = 250;
    let server = Server::start().await;
    let identity = server.identity("kubernetes-admin", &["system:masters"]);
    let stream = TokioIo::new(server.tls_with(Some(identity)).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let watch = format!("https://localhost{MAPS}?watch=1");
    let ask = |sender: &mut hyper::client::conn::http2::SendRequest<Empty<Bytes>>, uri: &str| {
        sender.send_request(http::Request::get(uri).body(Empty::new()).unwrap())
    };
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        open.push(ask(&mut sender, &watch).await.unwrap());
    }
    let mut next = std::pin::pin!(ask(&mut sender, "https://localhost/livez"));
    let waited = tokio::time::timeout(Duration::from_millis(500), next.as_mut()).await;
    assert!(waited.is_err(), "the request was answered: {waited:?}");
    open.pop();
    let answer = tokio::time::timeout(Duration::from_secs(10), next).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    server.stop().await;
}

/// Creates ConfigMaps of `size` bytes.
async fn fill(admin: &Rest, count: usize, size: usize) {
    let create = |number: usize| async move {
        let map =
            json!({"metadata": {"name": format!("m{number}")}, "data": {"k": "x".repeat(size)}});
        admin.post(MAPS, &map).await.expect(201);
    };
    futures::stream::iter(0..count).for_each_concurrent(32, create).await;
}

/// Clients that ask for large lists and read nothing but the head of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_nobody_reads_cost_little() {
    const LISTS: usize = 300;
    let server = Server::spawn(&[]).await;
    let (admin, scheduler) = (server.admin(), scheduler(&server).await);
    fill(&admin, 1_000, 20_000).await;
    let size = admin.get(MAPS).await.text.len();
    assert!(size > 20_000_000, "{size}");
    let before = server.allocated();
    let identity = server.identity("kubernetes-admin", &["system:masters"]);
    let ask = |number: usize| {
        let (server, identity) = (&server, identity.clone());
        async move {
            let mut stream = server.tls_with(Some(identity)).await.unwrap();
            let accept = match number % 4 {
                0 => "accept-encoding: gzip\r\n",
                1 => "accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n",
                _ => "",
            };
            let head = format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\n{accept}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            stream
        }
    };
    let mut most = before;
    let mut held = Vec::new();
    // All answers are held at the end; a slow machine cannot begin them all within time limits.
    let mut asked = futures::stream::iter(0..LISTS).map(ask).buffer_unordered(8);
    while let Some(stream) = asked.next().await {
        held.push(stream);
        most = most.max(server.allocated());
    }
    renew(&scheduler).await;
    most = most.max(server.allocated());
    let grown = most.saturating_sub(before);
    assert!(grown < 400 * MIB, "{LISTS} lists of {size} bytes cost {} MiB", grown / MIB);
    // A fifteenth of what they would cost as a whole.
    assert!(grown * 15 < LISTS * size, "{grown} of {}", LISTS * size);
    drop(asked);
}

/// Over gRPC, where the messages of a list wait for a client that does not take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_over_grpc_that_nobody_reads_cost_little() {
    const LISTS: usize = 200;
    let server = Server::spawn(&[]).await;
    let (admin, scheduler) = (server.admin(), scheduler(&server).await);
    fill(&admin, 500, 20_000).await;
    let before = server.allocated();
    let mut held = Vec::new();
    for _ in 0..LISTS {
        let target = pb::Target {
            version: "v1".into(),
            resource: "configmaps".into(),
            ..pb::Target::default()
        };
        let list = pb::ListRequest { target: Some(target), ..pb::ListRequest::default() };
        let mut pages = server.grpc().list(list).await.unwrap().into_inner();
        let page = pages.message().await.unwrap().unwrap();
        assert!(!page.items.is_empty());
        held.push(pages);
    }
    renew(&scheduler).await;
    // This client's windows take up to 4 MiB of each list, which no longer are the server's.
    let grown = server.allocated().saturating_sub(before);
    assert!(grown < 200 * MIB, "{LISTS} lists of 10 MB cost {} MiB", grown / MIB);
}

/// Without priority and fairness: when the seats of writes are taken, further writes are refused,
/// and reads and administrators are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_limited_by_kind() {
    let limits = [
        "--enable-priority-and-fairness=false",
        "--max-mutating-requests-inflight=1",
        "--max-requests-inflight=1",
    ];
    let server = Server::start_with(&limits).await;
    let admin = server.admin();
    let bob = server.rest_as("bob", &[]);
    let role = json!({"metadata": {"name": "bob"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    admin.post(bindings, &role).await.expect(201);
    let map = |name: &str| json!({"metadata": {"name": name}});
    bob.post(MAPS, &map("a")).await.expect(201);

    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{");
    let mut streams = Vec::new();
    // Until a half-sent request has taken the seat; the first may itself have met one that was taken.
    let mut number = 0;
    let refused = loop {
        if number % 20 == 0 {
            let mut stream = server.tls_as("bob", &[]).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        number += 1;
        let answer = bob.post(MAPS, &map(&format!("b{number}"))).await;
        if answer.code != 201 {
            break answer;
        }
    };
    assert_eq!(refused.headers["retry-after"], "1");
    let status = refused.expect(429);
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    bob.get(MAPS).await.expect(200);
    admin.post(MAPS, &map("c")).await.expect(201);
    server.admin().get("/readyz").await.expect(200);

    drop(streams);
    // Until the server has noticed.
    while bob.delete(&format!("{MAPS}/a")).await.code == 429 {
        tokio::task::yield_now().await;
    }
    bob.get(&format!("{MAPS}/a")).await.expect(404);
    server.stop().await;
}

/// After a load the server soon has little more than before it, however often there is one. What it
/// keeps on purpose (events, pages of the store) is within the allowance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_comes_back_after_a_load() {
    let server = Server::spawn(&["--watch-cache-window-mib=2"]).await;
    let admin = server.admin();
    admin.get("/readyz").await.expect(200);
    let fresh = server.allocated();
    let allowed = fresh + fresh / 2 + 10 * MIB;
    for round in 0..3 {
        fill(&admin, 2_000, 2_000).await;
        let most = server.allocated();
        admin.delete(MAPS).await.expect(200);
        let left = admin.get(MAPS).await.expect(200);
        assert_eq!(left["items"], Value::Array(Vec::new()));
        let until = clock::instant() + Duration::from_secs(60);
        let mut least = usize::MAX;
        while server.allocated() > allowed {
            least = least.min(server.allocated());
            let shown = [fresh, most, least, allowed].map(|bytes| bytes / 1_000);
            assert!(clock::instant() < until, "round {round}: {shown:?} kB");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let shown = [fresh, most, server.allocated(), allowed].map(|bytes| bytes / 1_000);
        eprintln!("round {round}: fresh, most, left, allowed: {shown:?} kB");
    }
}

/// An apiserver whose etcd hangs says so, and that it has returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_notices_a_store_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let port = || {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let (client, peer) = (port(), port());
    let url = format!("http://127.0.0.1:{client}");
    let peer_url = format!("http://127.0.0.1:{peer}");
    let etcd = std::process::Command::new("etcd")
        .args(["--data-dir", &folder.path().display().to_string(), "--log-level", "fatal"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--initial-cluster", &format!("default={peer_url}")])
        .spawn()
        .unwrap();
    let etcd = KillOnDrop(etcd);
    while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let server = Server::start_with(&[&format!("--etcd-servers={url}")]).await;
    let admin = server.admin();
    let until = async |path: &str, code: u16| loop {
        let answer = admin.get(path).await;
        if answer.code == code {
            break answer.text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for path in ["/readyz", "/livez", "/healthz"] {
        until(path, 200).await;
    }
    etcd.signal("STOP");
    let stopped = clock::instant();
    let text = until("/readyz", 500).await;
    // Within two seconds, and the time of asking.
    assert!(stopped.elapsed() < Duration::from_secs(3), "{:?}", stopped.elapsed());
    assert!(text.contains("[-]etcd failed: reason withheld\n"), "{text}");
    assert!(text.contains("[+]ping ok\n"), "{text}");
    let text = until("/livez?verbose", 500).await;
    assert!(text.contains("[-]etcd failed"), "{text}");
    admin.get("/livez/ping").await.expect(200);
    admin.get("/readyz?exclude=etcd").await.expect(200);
    requests_end_in_time(&admin).await;
    etcd.signal("CONT");
    until("/readyz", 200).await;
    // The write that nobody waited for has been carried out.
    until(&format!("{MAPS}/late"), 200).await;
    let text = until("/livez?verbose", 200).await;
    assert!(text.starts_with("[+]ping ok\n[+]etcd ok\n"), "{text}");
    assert!(text.ends_with("ok\nlivez check passed\n"), "{text}");
    server.stop().await;
}

/// An apiserver whose own store has ended no longer claims to be of use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_notices_that_the_embedded_store_has_ended() {
    let server = Server::start().await;
    let admin = server.admin();
    for path in ["/readyz", "/livez", "/healthz"] {
        admin.get(path).await.expect(200);
    }
    server.embedded().stop().await.unwrap();
    let stopped = clock::instant();
    for path in ["/readyz", "/livez", "/healthz"] {
        loop {
            let answer = admin.get(path).await;
            if answer.code == 500 && answer.text.contains("[-]etcd failed: reason withheld\n") {
                break;
            }
            assert!(stopped.elapsed() < Duration::from_secs(3), "{path}: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    server.stop().await;
}

/// Requests to a server whose store hangs end when their time is over, as long as that is for them.
async fn requests_end_in_time(admin: &Rest) {
    let late = async |answer: crate::server::Answer, message: &str| {
        let status = answer.expect(504);
        assert_eq!(status["reason"], "Timeout");
        assert_eq!(
            status["message"],
            format!("Timeout: request did not complete within {message}")
        );
    };
    let begun = clock::instant();
    let map = json!({"metadata": {"name": "late"}});
    late(
        admin.post(&format!("{MAPS}?timeout=300ms"), &map).await,
        "requested timeout - context deadline exceeded",
    )
    .await;
    late(admin.get(&format!("{MAPS}?timeout=300ms")).await, "the allotted timeout").await;
    // Far from the minute that requests have by themselves, and from three seconds of a read.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

struct KillOnDrop(std::process::Child);

impl KillOnDrop {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
