//! Port forwarding: connections made inside the pod's network namespace. Each has a task and a
//! short queue; one whose pod does not read blocks the others of its stream, and nothing else.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::{Stream, StreamExt};
use nix::sched::{CloneFlags, setns};
use rpc::api_v1::{Channel, Frame};
use rpc::kubelet_v1::{PortForwardRequest as Message, port_forward_request::Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::frames::{CHUNK, Frames, Out, channel};
use super::service::Service;
use crate::pod::manager::ManagedPod;
use crate::pod::pod_ext::PodExt;

/// Chunks queued for a slow connection.
const QUEUE: usize = 16;
/// Timeout for connecting.
const DIAL: Duration = Duration::from_secs(20);
/// Maximum connections per stream.
const CONNECTIONS_MAX: usize = 256;

impl Service {
    pub(super) async fn forward_ports(
        &self,
        mut incoming: Streaming<Message>,
    ) -> Result<Frames, Status> {
        let Some(Message { kind: Some(Kind::Open(open)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        let known = self.pod(&open.namespace, &open.pod, &open.uid)?;
        let target = self.target(&known, &open.address)?;
        let (out, frames) = channel();
        tokio::spawn(run(target, incoming, out));
        Ok(frames)
    }

    fn target(&self, known: &ManagedPod, address: &str) -> Result<ForwardTarget, Status> {
        let wanted =
            match address {
                "" => None,
                text => Some(text.parse::<IpAddr>().map_err(|error| {
                    Status::invalid_argument(format!("address {text:?}: {error}"))
                })?),
            };
        let addresses = match wanted {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        if known.pod.host_network() {
            // From inside a pod nothing is reachable that the pod could not reach itself; from the
            // node, only what is the node's.
            if let Some(address) = wanted.filter(|one| !self.context.node.ips.contains(one)) {
                return Err(Status::invalid_argument(format!(
                    "{address} is not an address of this node"
                )));
            }
            return Ok(ForwardTarget { netns: None, addresses });
        }
        let path = self.context.directories.pod(known.pod.uid()).join("ns/net");
        if !path.exists() {
            return Err(Status::failed_precondition(format!(
                "pod {} is not running",
                known.pod.pod_name()
            )));
        }
        Ok(ForwardTarget { netns: Some(path), addresses })
    }
}

/// The target of connections.
#[derive(Clone)]
struct ForwardTarget {
    /// `None`: the node's network namespace.
    netns: Option<PathBuf>,
    /// Tried one after another.
    addresses: Vec<IpAddr>,
}

async fn run(
    target: ForwardTarget,
    mut incoming: impl Stream<Item = Result<Message, Status>> + Unpin,
    out: Out,
) {
    let mut connections: HashMap<u32, mpsc::Sender<Frame>> = HashMap::new();
    // Ids only grow: a late frame of an older connection does not open one.
    let mut newest = None;
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            () = out.closed() => return,
        };
        let kind = match message {
            Some(Ok(Message { kind })) => kind,
            None => return finish(&connections, &out).await,
            Some(Err(_)) => return,
        };
        let Some(Kind::Frame(frame)) = kind else {
            continue;
        };
        connections.retain(|_, connection| !connection.is_closed());
        let number = frame.connection;
        if frame.channel() == Channel::Failure {
            connections.remove(&number);
            newest = newest.max(Some(number));
            continue;
        }
        if newest < Some(number) {
            newest = Some(number);
            if connections.len() >= CONNECTIONS_MAX {
                let text = format!("more than {CONNECTIONS_MAX} connections at once");
                // The caller may be gone.
                out.send(Ok(failure(frame.port, number, text))).await.ok();
                continue;
            }
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(connection(target.clone(), frame.port, number, receiver, out.clone()));
            connections.insert(number, sender);
        }
        // A closed connection takes no more data; its end was reported already.
        if let Some(connection) = connections.get(&number) {
            connection.send(frame).await.ok();
        }
    }
}

/// The caller has closed its side: closes all connections for writing and waits for their ends.
async fn finish(connections: &HashMap<u32, mpsc::Sender<Frame>>, out: &Out) {
    let ends = async {
        for connection in connections.values() {
            let end = Frame { end: true, ..Frame::default() };
            // It may have ended already.
            connection.send(end).await.ok();
        }
        for connection in connections.values() {
            connection.closed().await;
        }
    };
    tokio::select! {
        () = ends => {}
        () = out.closed() => {}
    }
}

fn failure(port: u32, connection: u32, text: String) -> Frame {
    Frame { channel: Channel::Failure.into(), data: text.into(), end: true, port, connection }
}

async fn connection(
    target: ForwardTarget,
    port: u32,
    number: u32,
    mut input: mpsc::Receiver<Frame>,
    out: Out,
) {
    let reply = |data: Vec<u8>, end: bool| Frame {
        channel: Channel::Data.into(),
        data: data.into(),
        end,
        port,
        connection: number,
    };
    let at = target.addresses[0];
    let stream = match dial(target, port).await {
        Ok(stream) => stream,
        Err(error) => {
            let text = format!("failed to connect to {at}:{port} inside the pod: {error}");
            // The caller may be gone.
            out.send(Ok(failure(port, number, text))).await.ok();
            return;
        }
    };
    let (mut reader, mut writer) = stream.into_split();
    // Until the other side closes the connection, or is gone.
    let inward = async {
        let mut open = true;
        while let Some(frame) = input.recv().await {
            if !open {
                continue;
            }
            open = writer.write_all(&frame.data).await.is_ok() && !frame.end;
            if !open {
                // The pod may have closed first.
                writer.shutdown().await.ok();
            }
        }
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let data = reply(buffer[..count].to_vec(), false);
                    if out.send(Ok(data)).await.is_err() {
                        return;
                    }
                }
            }
        }
        // The caller may be gone.
        out.send(Ok(reply(Vec::new(), true))).await.ok();
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
        () = out.closed() => {}
    }
}

async fn dial(target: ForwardTarget, port: u32) -> std::io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(std::io::Error::other)?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A dedicated thread: it changes its network namespace, then exits.
    std::thread::Builder::new().name("dial".to_owned()).spawn(move || {
        // The receiver is gone: the connection is closed.
        sender.send(connect(&target, port)).ok();
    })?;
    let stream = receiver.await.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

/// The first connection that succeeds, else the error of the first address.
fn connect(target: &ForwardTarget, port: u16) -> std::io::Result<std::net::TcpStream> {
    if let Some(netns) = &target.netns {
        setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    }
    let mut failed = None;
    for address in &target.addresses {
        match std::net::TcpStream::connect_timeout(&SocketAddr::new(*address, port), DIAL) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn no_more_connections_are_open_than_the_bound() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                held.push(listener.accept().await.unwrap());
            }
        });
        let target = ForwardTarget { netns: None, addresses: vec![Ipv4Addr::LOCALHOST.into()] };
        let last = u32::try_from(CONNECTIONS_MAX).unwrap() + 1;
        let open = (1..=last).map(move |connection| {
            let frame = Frame { connection, port, ..Frame::default() };
            Ok(Message { kind: Some(Kind::Frame(frame)) })
        });
        let (out, mut frames) = channel();
        let messages = stream::iter(open).chain(stream::pending());
        let running = tokio::spawn(run(target, Box::pin(messages), out));
        let refused = frames.next().await.unwrap().unwrap();
        assert_eq!((refused.connection, refused.channel()), (last, Channel::Failure));
        let text = String::from_utf8_lossy(&refused.data).into_owned();
        assert!(text.contains("more than 256 connections at once"), "{text}");
        running.abort();
        accepting.abort();
    }
}
