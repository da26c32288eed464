//! exec and attach over SPDY, `v4.channel.k8s.io`: the client opens a stream for each of its
//! channels, named by the header `streamtype`, and the server begins when it has them all
//! (`k8s.io/kubelet/pkg/cri/streaming/remotecommand`).

use bytes::Bytes;
use rpc::api_v1::{self as pb, Channel};

use super::{Effects, Frame, Headers, Protocol};
use crate::connect::Streams;

/// Longest terminal size message that is buffered, in bytes. Longer ones are malformed.
const SIZE_MAX_BYTES: usize = 4 << 10;
/// RST_STREAM: a malformed request.
const PROTOCOL_ERROR: u32 = 1;

/// The client's streams.
#[derive(Debug)]
pub struct RemoteCommand {
    wanted: Vec<Channel>,
    open: Vec<(Channel, u32)>,
    /// An incomplete size message.
    size: Vec<u8>,
}

impl RemoteCommand {
    pub fn new(streams: Streams) -> Self {
        let wanted = [
            (true, Channel::Status),
            (streams.stdin, Channel::Stdin),
            (streams.stdout, Channel::Stdout),
            (streams.stderr, Channel::Stderr),
            (streams.tty, Channel::Resize),
        ];
        Self {
            wanted: wanted
                .into_iter()
                .filter_map(|(wanted, channel)| wanted.then_some(channel))
                .collect(),
            open: Vec::new(),
            size: Vec::new(),
        }
    }

    fn stream(&self, wanted: Channel) -> Option<u32> {
        let mut open = self.open.iter();
        open.find(|(channel, _)| *channel == wanted).map(|(_, stream)| *stream)
    }

    /// The latest complete size: sizes are concatenated JSON objects.
    fn resize(&mut self, data: &[u8]) -> Option<pb::Frame> {
        if self.size.len() + data.len() > SIZE_MAX_BYTES {
            self.size.clear();
        }
        self.size.extend_from_slice(&data[..data.len().min(SIZE_MAX_BYTES)]);
        let end = self.size.iter().rposition(|byte| *byte == b'}')? + 1;
        let begin = self.size[..end].iter().rposition(|byte| *byte == b'{')?;
        let size = Bytes::copy_from_slice(&self.size[begin..end]);
        self.size.drain(..end);
        Some(pb::Frame { channel: Channel::Resize.into(), data: size, ..pb::Frame::default() })
    }

    fn channel(&self, wanted: u32) -> Option<Channel> {
        let mut open = self.open.iter();
        open.find(|(_, stream)| *stream == wanted).map(|(channel, _)| *channel)
    }
}

impl Protocol for RemoteCommand {
    fn client(&mut self, frame: Frame) -> Effects {
        let mut effects = Effects::default();
        match frame {
            Frame::SynStream { stream, headers, .. } => {
                let channel = headers.get("streamtype").and_then(channel);
                let channel = channel.filter(|channel| {
                    self.wanted.contains(channel) && self.stream(*channel).is_none()
                });
                effects.to_client.push(match channel {
                    Some(channel) => {
                        self.open.push((channel, stream));
                        Frame::SynReply { stream, fin: false, headers: Headers::default() }
                    }
                    None => Frame::RstStream { stream, status: PROTOCOL_ERROR },
                });
            }
            Frame::Data { stream, fin, data } => match self.channel(stream) {
                Some(Channel::Stdin) => effects.to_kubelet.push(pb::Frame {
                    channel: Channel::Stdin.into(),
                    data,
                    end: fin,
                    ..pb::Frame::default()
                }),
                Some(Channel::Resize) => effects.to_kubelet.extend(self.resize(&data)),
                _ => {}
            },
            Frame::RstStream { stream, .. } if self.channel(stream) == Some(Channel::Stdin) => {
                effects.to_kubelet.push(pb::Frame {
                    channel: Channel::Stdin.into(),
                    end: true,
                    ..pb::Frame::default()
                });
            }
            _ => {}
        }
        effects
    }

    fn kubelet(&mut self, frame: pb::Frame) -> Effects {
        let mut effects = Effects::default();
        let channel = frame.channel();
        let ends = channel == Channel::Status;
        if let Some(stream) = self.stream(channel)
            && (!frame.data.is_empty() || frame.end || ends)
        {
            effects.to_client.push(Frame::Data {
                stream,
                fin: frame.end || ends,
                data: frame.data,
            });
        }
        if ends {
            for output in [Channel::Stdout, Channel::Stderr] {
                effects.to_client.extend(self.stream(output).map(|stream| Frame::Data {
                    stream,
                    fin: true,
                    data: Bytes::new(),
                }));
            }
        }
        effects.done = ends;
        effects
    }

    fn ready(&self) -> bool {
        self.open.len() == self.wanted.len()
    }
}

fn channel(name: &str) -> Option<Channel> {
    Some(match name {
        "error" => Channel::Status,
        "stdin" => Channel::Stdin,
        "stdout" => Channel::Stdout,
        "stderr" => Channel::Stderr,
        "resize" => Channel::Resize,
        _ => return None,
    })
}
