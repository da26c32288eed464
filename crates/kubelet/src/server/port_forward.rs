//! Port forwarding: connections made inside the pod's network namespace.

use std::collections::HashMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rpc::api_v1::{Channel, Frame};
use rpc::kubelet_v1::{PortForwardRequest as Message, port_forward_request::Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::frames::{CHUNK, Frames, Out, channel};
use super::service::Service;
use crate::pod::object::PodExt;

/// Chunks that wait for a slow connection.
const QUEUE: usize = 16;
/// Connections of one stream at most.
const CONNECTIONS_MAX: usize = 256;

impl Service {
    pub(super) async fn forward_ports(
        &self,
        mut incoming: Streaming<Message>,
    ) -> Result<Frames, Status> {
        let Some(Message {
            kind: Some(Kind::Open(open)),
        }) = incoming.message().await?
        else {
            return Err(Status::invalid_argument("the first message must be open"));
        };
        let known = self.pod(&open.namespace, &open.pod, &open.uid)?;
        let netns = if known.pod.host_network() {
            None
        } else {
            let path = self.context.directories.pod(known.pod.uid()).join("ns/net");
            if !path.exists() {
                return Err(Status::failed_precondition(format!(
                    "pod {} is not running",
                    open.pod
                )));
            }
            Some(path)
        };
        let (out, frames) = channel();
        tokio::spawn(run(netns, incoming, out));
        Ok(frames)
    }
}

async fn run(netns: Option<PathBuf>, mut incoming: Streaming<Message>, out: Out) {
    let mut connections: HashMap<u32, mpsc::Sender<Frame>> = HashMap::new();
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = out.closed() => return,
        };
        let Ok(Some(Message { kind })) = message else {
            return;
        };
        let Some(Kind::Frame(frame)) = kind else {
            continue;
        };
        connections.retain(|_, connection| !connection.is_closed());
        let number = frame.connection;
        if !connections.contains_key(&number) {
            if frame.end || connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(connection(
                netns.clone(),
                frame.port,
                number,
                receiver,
                out.clone(),
            ));
            connections.insert(number, sender);
        }
        // A connection that has ended takes nothing more; its end was told already.
        if let Some(connection) = connections.get(&number) {
            connection.send(frame).await.ok();
        }
    }
}

async fn connection(
    netns: Option<PathBuf>,
    port: u32,
    number: u32,
    mut input: mpsc::Receiver<Frame>,
    out: Out,
) {
    let reply = |channel: Channel, data: Vec<u8>, end: bool| Frame {
        channel: channel.into(),
        data: data.into(),
        end,
        port,
        connection: number,
    };
    let stream = match dial(netns, port).await {
        Ok(stream) => stream,
        Err(error) => {
            let text = format!("failed to connect to localhost:{port} inside the pod: {error}");
            // Whoever asked may have gone.
            out.send(Ok(reply(Channel::Failure, text.into_bytes(), true)))
                .await
                .ok();
            return;
        }
    };
    let (mut reader, mut writer) = stream.into_split();
    let inward = async {
        while let Some(frame) = input.recv().await {
            if writer.write_all(&frame.data).await.is_err() || frame.end {
                break;
            }
        }
        // The other side may have closed first.
        writer.shutdown().await.ok();
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let data = reply(Channel::Data, buffer[..count].to_vec(), false);
                    if out.send(Ok(data)).await.is_err() {
                        return;
                    }
                }
            }
        }
        // Whoever asked may have gone.
        out.send(Ok(reply(Channel::Data, Vec::new(), true)))
            .await
            .ok();
    };
    tokio::select! {
        () = async { tokio::join!(inward, std::future::pending::<()>()); } => {}
        () = outward => {}
    }
}

async fn dial(netns: Option<PathBuf>, port: u32) -> std::io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(std::io::Error::other)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Some(netns) = netns else {
        return TcpStream::connect(address).await;
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own: it changes its network namespace and ends with it.
    std::thread::Builder::new()
        .name("dial".to_owned())
        .spawn(move || {
            // Nobody waits any more: the connection closes.
            sender.send(connect_in(&netns, address)).ok();
        })?;
    let stream = receiver.await.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn connect_in(netns: &Path, address: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    std::net::TcpStream::connect(address)
}
