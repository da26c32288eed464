//! `portforward.k8s.io` over SPDY: for each connection the client opens an error stream and a data
//! stream with the headers `port`, `requestid` and `streamtype`
//! (`k8s.io/kubelet/pkg/cri/streaming/portforward`).

use std::collections::HashMap;

use bytes::Bytes;
use rpc::api_v1::{self as pb, Channel};

use super::{Effects, Frame, Headers, Protocol};

/// Streams of one client at once: two per connection.
const STREAMS_MAX: usize = 512;
/// RST_STREAM: a malformed request.
const PROTOCOL_ERROR: u32 = 1;
/// RST_STREAM: no further streams are accepted.
const REFUSED_STREAM: u32 = 3;

/// One forwarded connection. It is removed once the pod's side has closed.
#[derive(Debug, Default)]
struct ForwardedConnection {
    port: u16,
    data: Option<u32>,
    error: Option<u32>,
    /// Its result, while the error stream is still to come.
    ended: Option<Bytes>,
}

/// The open connections of a client.
#[derive(Debug, Default)]
pub struct PortForward {
    /// Named in errors: `NAME, uid UID`.
    pod: String,
    /// By request id.
    connections: HashMap<String, ForwardedConnection>,
    /// The connection of each stream.
    streams: HashMap<u32, String>,
}

impl PortForward {
    pub fn new(name: &str, uid: &str) -> Self {
        Self { pod: format!("{name}, uid {uid}"), ..Self::default() }
    }

    fn open(&mut self, stream: u32, headers: &Headers) -> Result<Effects, u32> {
        let is_data = match headers.get("streamtype") {
            Some("data") => true,
            Some("error") => false,
            _ => return Err(PROTOCOL_ERROR),
        };
        let port: u16 = headers
            .get("port")
            .and_then(|text| text.parse().ok())
            .filter(|port| *port > 0)
            .ok_or(PROTOCOL_ERROR)?;
        if self.streams.len() >= STREAMS_MAX || self.streams.contains_key(&stream) {
            return Err(REFUSED_STREAM);
        }
        // Very old clients send no id: their data stream directly follows its error stream.
        let id = match headers.get("requestid") {
            Some(id) => id.to_owned(),
            None => format!("#{}", if is_data { stream.saturating_sub(2) } else { stream }),
        };
        let connection = self.connections.entry(id.clone()).or_default();
        let place = if is_data { &mut connection.data } else { &mut connection.error };
        if place.is_some() {
            return Err(PROTOCOL_ERROR);
        }
        *place = Some(stream);
        connection.port = port;
        self.streams.insert(stream, id.clone());
        let mut effects = Effects::default();
        effects.to_client.push(Frame::SynReply { stream, fin: false, headers: Headers::default() });
        if is_data {
            // An empty frame opens the connection: the pod may be the one that speaks first.
            effects.to_kubelet.push(data(stream, port, Bytes::new(), false));
        } else if let Some(message) = connection.ended.take() {
            effects.to_client.push(last(stream, message));
            self.forget(&id);
        }
        Ok(effects)
    }

    fn forget(&mut self, id: &str) {
        if let Some(connection) = self.connections.remove(id) {
            for stream in [connection.data, connection.error].into_iter().flatten() {
                self.streams.remove(&stream);
            }
        }
    }

    /// The connection whose data stream this is.
    fn connection_of_data(&self, stream: u32) -> Option<(&str, &ForwardedConnection)> {
        let id = self.streams.get(&stream)?;
        let connection = self.connections.get(id)?;
        (connection.data == Some(stream)).then_some((id, connection))
    }

    fn reset(&mut self, stream: u32) -> Effects {
        let mut effects = Effects::default();
        let Some((id, connection)) = self.connection_of_data(stream) else {
            return effects;
        };
        let (id, port, error) = (id.to_owned(), connection.port, connection.error);
        effects.to_kubelet.push(pb::Frame {
            channel: Channel::Failure.into(),
            end: true,
            port: port.into(),
            connection: stream,
            ..pb::Frame::default()
        });
        effects.to_client.extend(error.map(|error| last(error, Bytes::new())));
        self.forget(&id);
        effects
    }
}

impl Protocol for PortForward {
    fn client(&mut self, frame: Frame) -> Effects {
        match frame {
            Frame::SynStream { stream, headers, .. } => {
                self.open(stream, &headers).unwrap_or_else(|status| Effects {
                    to_client: vec![Frame::RstStream { stream, status }],
                    ..Effects::default()
                })
            }
            Frame::Data { stream, fin, data: bytes } => {
                // Clients send nothing on error streams; a closed connection accepts nothing.
                let frame = self
                    .connection_of_data(stream)
                    .filter(|(_, connection)| connection.ended.is_none())
                    .map(|(_, connection)| data(stream, connection.port, bytes, fin));
                Effects { to_kubelet: frame.into_iter().collect(), ..Effects::default() }
            }
            Frame::RstStream { stream, .. } => self.reset(stream),
            _ => Effects::default(),
        }
    }

    fn kubelet(&mut self, frame: pb::Frame) -> Effects {
        let stream = frame.connection;
        let mut effects = Effects::default();
        let Some((id, connection)) = self.connection_of_data(stream) else {
            // The client has closed this connection, or the kubelet all of them.
            effects.done = frame.channel() == Channel::Status;
            return effects;
        };
        let message = match frame.channel() {
            Channel::Data => {
                if !frame.data.is_empty() || frame.end {
                    effects.to_client.push(Frame::Data {
                        stream,
                        fin: frame.end,
                        data: frame.data,
                    });
                }
                if !frame.end {
                    return effects;
                }
                Bytes::new()
            }
            Channel::Failure => {
                effects.to_client.push(last(stream, Bytes::new()));
                let text = String::from_utf8_lossy(&frame.data);
                format!("error forwarding port {} to pod {}: {text}", connection.port, self.pod)
                    .into()
            }
            _ => return effects,
        };
        let (id, error) = (id.to_owned(), connection.error);
        match error {
            Some(error) => {
                effects.to_client.push(last(error, message));
                self.forget(&id);
            }
            None => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ended = Some(message);
                }
            }
        }
        effects
    }

    fn ready(&self) -> bool {
        true
    }
}

/// The end of a stream, after the remaining data.
fn last(stream: u32, data: Bytes) -> Frame {
    Frame::Data { stream, fin: true, data }
}

fn data(stream: u32, port: u16, data: Bytes, end: bool) -> pb::Frame {
    pb::Frame { channel: Channel::Data.into(), data, end, port: port.into(), connection: stream }
}
