//! `skiff port-forward`: forwards local ports to a pod.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use rpc::api_v1::{Channel, Frame};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::usage;
use crate::request::pods::{name, object_reference, pods_of};
use crate::request::stream::{Input, open, pod_target};

const CHUNK: usize = 32 << 10;
/// Frames queued for one local connection.
const QUEUE: usize = 64;

#[derive(clap::Args)]
pub struct Args {
    /// POD, TYPE/NAME, svc/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    target: String,
    /// PORT, LOCAL:PORT, :PORT
    #[arg(value_name = "[LOCAL:]PORT")]
    ports: Vec<String>,
    /// Local addresses to listen on
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    address: Vec<String>,
}

/// The receiving ends of local connections, by connection id.
type Connections = Arc<Mutex<HashMap<u32, mpsc::Sender<Frame>>>>;

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if args.ports.is_empty() {
        return Err(usage(
            "port-forward",
            "TYPE/NAME and list of ports are required for port-forward",
        ));
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let named = object_reference(&client, &resources, &args.target)?;
    let service: Option<Value> = match named.resource.kind.as_str() {
        "Service" => {
            Some(serde_json::from_slice(&client.get_object(named.target("")).await?.json)?)
        }
        _ => None,
    };
    let pods = pods_of(&client, &named).await?;
    let pod = &pods[0];
    if api::pod::phase(pod) != "Running" {
        bail!(
            "unable to forward port because pod is not running. Current status={}",
            api::pod::phase(pod)
        );
    }
    let session =
        open(&client, pod_target(client.default_namespace(), name(pod), "portforward"), &[])
            .await?;
    let connections: Connections = Arc::default();
    let next = Arc::new(AtomicU32::new(1));
    for spec in &args.ports {
        let (local, remote) = parse(spec)?;
        let remote = pod_port(service.as_ref(), pod, &remote)?;
        for address in &args.address {
            for listener in listen(address, local.unwrap_or(remote)).await? {
                println!("Forwarding from {} -> {remote}", listener.local_addr()?);
                tokio::spawn(accept(
                    listener,
                    remote,
                    session.input.clone(),
                    connections.clone(),
                    next.clone(),
                ));
            }
        }
    }
    let mut output = session.output;
    while let Some(frame) = output.message().await.map_err(client::Error::from)? {
        let receiver = connections.lock().get(&frame.connection).cloned();
        // Frames of a closed connection are dropped.
        if let Some(receiver) = receiver
            && receiver.send(frame).await.is_err()
        {
            tracing::debug!("a connection closed early");
        }
    }
    bail!("lost connection to pod")
}

/// `8080`, `80:8080`, `:8080`, and service port names.
fn parse(spec: &str) -> anyhow::Result<(Option<u16>, String)> {
    let (local, remote) = match spec.split_once(':') {
        Some(("", remote)) => (Some(0), remote),
        Some((local, remote)) => {
            let local =
                local.parse().with_context(|| format!("error parsing local port {local:?}"))?;
            (Some(local), remote)
        }
        None if spec.parse::<u64>().is_ok_and(|port| port > u64::from(u16::MAX)) => {
            bail!(
                "error parsing local port '{spec}': strconv.ParseUint: parsing {spec:?}: value out of range"
            )
        }
        None => (spec.parse().ok(), spec),
    };
    if remote.is_empty() {
        bail!("invalid port format '{spec}'");
    }
    Ok((local, remote.to_owned()))
}

/// Resolves a port to the pod's: a number, a container port's name, or a Service's port.
fn pod_port(service: Option<&Value>, pod: &Pod, word: &str) -> anyhow::Result<u16> {
    let mut wanted = word.to_owned();
    if let Some(service) = service {
        let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let port = ports
            .iter()
            .find(|port| port["port"].as_u64() == word.parse().ok() || port["name"] == word)
            .with_context(|| {
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                format!("Service {name} does not have a service port {word}")
            })?;
        wanted = match &port["targetPort"] {
            Value::String(name) => name.clone(),
            Value::Null => port["port"].to_string(),
            number => number.to_string(),
        };
    }
    if let Ok(number) = wanted.parse() {
        return Ok(number);
    }
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let named = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(wanted.as_str()));
    named
        .and_then(|port| u16::try_from(port.container_port).ok())
        .with_context(|| format!("Pod '{}' does not have a named port '{wanted}'", name(pod)))
}

/// Listens on an address; for `localhost` on both loopback addresses, or the one that exists,
/// whatever the machine resolves the name to.
async fn listen(address: &str, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let failed = || format!("unable to listen on {address}:{port}");
    if address != "localhost" {
        let address: IpAddr = address
            .parse()
            .map_err(|_| anyhow!("error parsing address {address:?}: invalid IP"))?;
        let listener = TcpListener::bind((address, port)).await;
        return Ok(vec![listener.with_context(failed)?]);
    }
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let port = match &first {
        Ok(listener) => listener.local_addr()?.port(),
        Err(_) => port,
    };
    match (first, TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await) {
        (Err(error), Err(_)) => Err(error).with_context(failed),
        (first, second) => Ok(first.into_iter().chain(second).collect()),
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    input: Input,
    connections: Connections,
    next: Arc<AtomicU32>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        println!("Handling connection for {port}");
        let id = next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(QUEUE);
        connections.lock().insert(id, sender);
        let (input, connections) = (input.clone(), connections.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(socket, id, port, &input, receiver).await {
                eprintln!("error forwarding port {port}: {error:#}");
            }
            connections.lock().remove(&id);
        });
    }
}

async fn forward(
    socket: TcpStream,
    connection: u32,
    port: u16,
    input: &Input,
    mut frames: mpsc::Receiver<Frame>,
) -> anyhow::Result<()> {
    let frame = |data: Vec<u8>, end: bool| Frame {
        channel: Channel::Data.into(),
        data: data.into(),
        end,
        port: port.into(),
        connection,
    };
    let (mut reader, mut writer) = socket.into_split();
    // An empty frame opens the connection on the other side, even if the server speaks first.
    input.send(frame(Vec::new(), false)).await;
    let up = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = reader.read(&mut buffer).await.unwrap_or(0);
            if !input.send(frame(buffer[..length].to_vec(), length == 0)).await || length == 0 {
                return;
            }
        }
    };
    let down = async {
        while let Some(frame) = frames.recv().await {
            if frame.channel() == Channel::Failure {
                bail!("{}", String::from_utf8_lossy(&frame.data));
            }
            writer.write_all(&frame.data).await?;
            if frame.end {
                writer.shutdown().await?;
                return Ok(());
            }
        }
        Ok(())
    };
    // The upload may end long before the download, which ends the connection.
    let up = async {
        up.await;
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = down => result,
        () = up => Ok(()),
    };
    if result.is_err() {
        input.send(Frame { channel: Channel::Failure.into(), ..frame(Vec::new(), true) }).await;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_specs() {
        assert_eq!(parse("8080").unwrap(), (Some(8080), "8080".into()));
        assert_eq!(parse("80:8080").unwrap(), (Some(80), "8080".into()));
        assert_eq!(parse(":http").unwrap(), (Some(0), "http".into()));
        assert!(parse("x:1").is_err() && parse("1:").is_err());
    }
}
