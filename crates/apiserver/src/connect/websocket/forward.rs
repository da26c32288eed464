//! Port forwarding over WebSocket channels: the i-th port of the query has channel 2i for data and
//! 2i+1 for its error, and each begins with the port's number, two bytes, little endian
//! (`k8s.io/kubelet/pkg/cri/streaming/portforward`, `websocket.go`).

use std::collections::HashSet;

use api::ApiError;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::request::Parts;
use rpc::api_v1::{Channel, Frame};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tonic::Streaming;

use super::{close, message, split};
use crate::connect::Session;
use crate::connect::upgrade::Socket;
use crate::rest::parse_query;

/// Ports of one connection: each has two channels, and a channel number is a byte.
const PORTS_MAX: usize = 128;

/// The ports in the query: `ports=80&ports=81`, or `ports=80,81`.
///
/// # Errors
/// 400 when there are none, too many, or an invalid one.
pub fn ports(parts: &Parts) -> Result<Vec<u16>, ApiError> {
    let query = parse_query(parts.uri.query().unwrap_or_default());
    let texts =
        query.iter().filter(|(name, _)| name == "ports").flat_map(|(_, value)| value.split(','));
    let mut ports = Vec::new();
    for text in texts {
        let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        ports.push(
            port.ok_or_else(|| {
                ApiError::bad_request(format!("unable to parse {text:?} as a port"))
            })?,
        );
    }
    if ports.is_empty() {
        return Err(ApiError::bad_request("query parameter \"ports\" is required"));
    }
    if ports.len() > PORTS_MAX {
        return Err(ApiError::bad_request(format!("more than {PORTS_MAX} ports at once")));
    }
    Ok(ports)
}

/// Transports one connection to each port until all have ended or the client disconnects.
pub async fn forward(socket: Socket, session: Session, ports: &[u16]) {
    let (mut sink, stream) = socket.split();
    let inward = to_kubelet(stream, session.input, ports);
    let outward = to_client(&mut sink, session.output, ports);
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
    // The client may have disconnected already.
    sink.send(close()).await.ok();
    sink.close().await.ok();
}

/// The connection of a port's index: they are numbered from 1.
fn connection(index: usize) -> u32 {
    u32::try_from(index + 1).expect("ports are few")
}

/// Forwards the client's messages until it disconnects.
async fn to_kubelet(mut stream: SplitStream<Socket>, input: mpsc::Sender<Frame>, ports: &[u16]) {
    let frame = |index: usize, data: Bytes| Frame {
        channel: Channel::Data.into(),
        data,
        end: false,
        port: ports[index].into(),
        connection: connection(index),
    };
    for index in 0..ports.len() {
        input.send(frame(index, Bytes::new())).await.ok();
    }
    while let Some(Ok(message)) = stream.next().await {
        let Some((channel, data)) = split(message) else {
            return;
        };
        let index =
            channel.filter(|channel| channel % 2 == 0).map(|channel| usize::from(channel / 2));
        if let Some(index) = index.filter(|index| *index < ports.len()) {
            // A kubelet that accepts nothing more may still have output.
            input.send(frame(index, data)).await.ok();
        }
    }
}

async fn to_client(
    sink: &mut SplitSink<Socket, Message>,
    mut output: Streaming<Frame>,
    ports: &[u16],
) {
    let mut open = HashSet::new();
    for (index, port) in (0u8..).zip(ports) {
        open.insert(index);
        for channel in [2 * index, 2 * index + 1] {
            if sink.send(message(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
    }
    while !open.is_empty() {
        let Ok(Some(frame)) = output.message().await else {
            return;
        };
        let index = frame.connection.checked_sub(1);
        let Some(index) = index.and_then(|index| u8::try_from(index).ok()) else {
            continue;
        };
        let (channel, data) = match frame.channel() {
            Channel::Data => (2 * index, frame.data),
            Channel::Failure => (2 * index + 1, frame.data),
            _ => continue,
        };
        if open.contains(&index)
            && !data.is_empty()
            && sink.send(message(channel, &data)).await.is_err()
        {
            return;
        }
        if frame.end {
            open.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        let ports = |query: &str| {
            let request = http::Request::get(format!("/x?{query}")).body(()).unwrap();
            ports(&request.into_parts().0)
        };
        assert_eq!(ports("ports=80&ports=81").unwrap(), [80, 81]);
        assert_eq!(ports("ports=80,81").unwrap(), [80, 81]);
        for bad in ["", "ports=", "ports=0", "ports=70000", "ports=a"] {
            assert_eq!(ports(bad).unwrap_err().code(), 400, "{bad:?}");
        }
    }
}
