//! The framing, and the interpretation of a client's frames.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rpc::api_v1::{self as pb, Channel};

use super::{Decoder, Encoder, Frame, Headers, PortForward, Protocol, RemoteCommand, SpdyError};
use crate::connect::Streams;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Headers(owned.collect())
}

fn open(stream: u32, pairs: &[(&str, &str)]) -> Frame {
    Frame::SynStream { stream, fin: false, headers: headers(pairs) }
}

fn reply(stream: u32) -> Frame {
    Frame::SynReply { stream, fin: false, headers: Headers::default() }
}

fn data(stream: u32, text: &str, fin: bool) -> Frame {
    Frame::Data { stream, fin, data: Bytes::copy_from_slice(text.as_bytes()) }
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut out = BytesMut::new();
    for frame in frames {
        encoder.encode(frame, &mut out);
    }
    out.to_vec()
}

/// Decodes bytes that arrive in pieces; joins the pieces of data frames.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, SpdyError> {
    let mut decoder = Decoder::new();
    let mut frames: Vec<Frame> = Vec::new();
    for chunk in bytes.chunks(piece) {
        decoder.push(chunk);
        while let Some(frame) = decoder.next()? {
            match (frames.last_mut(), frame) {
                (
                    Some(Frame::Data { stream, fin: fin @ false, data }),
                    Frame::Data { stream: next, fin: last, data: more },
                ) if *stream == next => {
                    *data = [data.as_ref(), more.as_ref()].concat().into();
                    *fin = last;
                }
                (_, frame) => frames.push(frame),
            }
        }
    }
    Ok(frames)
}

#[test]
fn frames_survive_the_wire_in_any_pieces() {
    let frames = [
        open(1, &[("streamtype", "error"), ("port", "8080")]),
        open(3, &[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]),
        reply(1),
        data(3, &"x".repeat(70_000), true),
        data(1, "", true),
        Frame::RstStream { stream: 3, status: 5 },
        Frame::Ping(7),
        Frame::GoAway { last: 3, status: 0 },
    ];
    let wire = bytes(&frames);
    for piece in [1, 7, 100, wire.len()] {
        assert_eq!(decode(&wire, piece).unwrap(), frames, "pieces of {piece}");
    }
}

/// A SYN_STREAM as client-go writes it: Go's zlib, priority in the top bits.
#[test]
fn other_frames_are_skipped() {
    let settings = [0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0];
    let window = [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0];
    let ping = bytes(&[Frame::Ping(1)]);
    let wire = [&settings[..], &window[..], &ping[..]].concat();
    assert_eq!(decode(&wire, 5).unwrap(), [Frame::Ping(1)]);
}

#[test]
fn bad_bytes_are_errors() {
    let table: [(&[u8], SpdyError); 4] = [
        (&[0x80, 2, 0, 6, 0, 0, 0, 4], SpdyError::Version(2)),
        (&[0x80, 3, 0, 6, 0, 0xff, 0, 0], SpdyError::TooLong(0xff_0000)),
        (&[0x80, 3, 0, 6, 0, 0, 0, 0], SpdyError::TooShort(6)),
        (
            &[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9],
            SpdyError::Headers("the zlib stream is broken"),
        ),
    ];
    for (wire, error) in table {
        assert_eq!(decode(wire, 100).unwrap_err(), error);
    }
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_panics(wire in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
        let mut wire = wire;
        if let [first, second, third, ..] = wire.as_mut_slice() {
            (*first, *second, *third) = (0x80, 3, 0);
        }
        decode(&wire, piece).ok();
    }

    #[test]
    fn headers_survive(pairs in prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,40}"), 0..8)) {
        let frames = [
            Frame::SynStream { stream: 1, fin: false, headers: Headers(pairs.clone()) },
            Frame::SynReply { stream: 1, fin: true, headers: Headers(pairs) },
        ];
        prop_assert_eq!(decode(&bytes(&frames), 64).unwrap(), frames);
    }
}

fn to_pod(connection: u32, text: &str, end: bool) -> pb::Frame {
    pb::Frame {
        channel: Channel::Data.into(),
        data: Bytes::copy_from_slice(text.as_bytes()),
        end,
        port: 80,
        connection,
    }
}

/// Opens the streams 1 (error) and 3 (data) to port 80.
fn forward() -> PortForward {
    let mut forward = PortForward::new("web", "u1");
    let error = open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
    assert_eq!(forward.client(error).to_client, [reply(1)]);
    let opened =
        forward.client(open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]));
    assert_eq!(opened.to_client, [reply(3)]);
    assert_eq!(opened.to_kubelet, [to_pod(3, "", false)]);
    forward
}

#[test]
fn a_connection_is_forwarded_and_ends() {
    let mut forward = forward();
    let sent = forward.client(data(3, "GET", false));
    assert_eq!(sent.to_kubelet, [to_pod(3, "GET", false)]);
    let closed = forward.client(data(3, "", true));
    assert_eq!(closed.to_kubelet, [to_pod(3, "", true)]);
    let answer = forward.kubelet(to_pod(3, "200", false));
    assert_eq!(answer.to_client, [data(3, "200", false)]);
    let end = forward.kubelet(to_pod(3, "", true));
    assert_eq!(end.to_client, [data(3, "", true), data(1, "", true)]);
    // It is forgotten.
    assert_eq!(forward.client(data(3, "more", false)), super::Effects::default());
    assert_eq!(forward.kubelet(to_pod(3, "more", false)), super::Effects::default());
}

#[test]
fn a_refused_connection_reports_why() {
    let mut forward = forward();
    let failed = forward.kubelet(pb::Frame {
        channel: Channel::Failure.into(),
        ..to_pod(3, "connection refused", true)
    });
    let text = "error forwarding port 80 to pod web, uid u1: connection refused";
    assert_eq!(failed.to_client, [data(3, "", true), data(1, text, true)]);
}

#[test]
fn a_reset_connection_is_closed() {
    let mut forward = forward();
    let reset = forward.client(Frame::RstStream { stream: 3, status: 5 });
    assert_eq!(reset.to_client, [data(1, "", true)]);
    assert_eq!(reset.to_kubelet.len(), 1);
    assert_eq!(reset.to_kubelet[0].channel(), Channel::Failure);
    assert!(reset.to_kubelet[0].end);
}

#[test]
fn malformed_streams_are_reset() {
    let table: [&[(&str, &str)]; 4] = [
        &[("port", "80")],
        &[("streamtype", "data")],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "stdin"), ("port", "80")],
    ];
    for pairs in table {
        let mut forward = PortForward::new("web", "u1");
        let refused = forward.client(open(1, pairs));
        assert!(matches!(refused.to_client[..], [Frame::RstStream { stream: 1, .. }]), "{pairs:?}");
        assert_eq!(refused.to_kubelet, []);
    }
}

#[test]
fn a_command_starts_when_its_streams_are_open() {
    let mut command =
        RemoteCommand::new(Streams { stdin: true, stdout: true, ..Streams::default() });
    for (stream, kind) in [(1, "error"), (3, "stdin")] {
        let opened = command.client(open(stream, &[("streamtype", kind)]));
        assert_eq!(opened.to_client, [reply(stream)]);
        assert!(!command.ready());
    }
    let unwanted = command.client(open(5, &[("streamtype", "stderr")]));
    assert!(matches!(unwanted.to_client[..], [Frame::RstStream { .. }]));
    command.client(open(7, &[("streamtype", "stdout")]));
    assert!(command.ready());
    let input = command.client(data(3, "in", true));
    assert_eq!(input.to_kubelet[0].channel(), Channel::Stdin);
    assert!(input.to_kubelet[0].end);
    let frame = |channel: Channel, text: &'static str| pb::Frame {
        channel: channel.into(),
        data: text.into(),
        ..pb::Frame::default()
    };
    let output = command.kubelet(frame(Channel::Stdout, "out"));
    assert_eq!(output.to_client, [data(7, "out", false)]);
    let end = command.kubelet(frame(Channel::Status, "{}"));
    assert_eq!(end.to_client, [data(1, "{}", true), data(7, "", true)]);
    assert!(end.done);
}

#[test]
fn sizes_may_come_in_pieces() {
    let mut command = RemoteCommand::new(Streams { stdout: true, tty: true, ..Streams::default() });
    command.client(open(1, &[("streamtype", "resize")]));
    let table = [
        ("{\"Width\":80,", None),
        ("\"Height\":24}\n", Some("{\"Width\":80,\"Height\":24}")),
        ("{\"Width\":1}\n{\"Width\":2}\n{\"Wi", Some("{\"Width\":2}")),
        ("dth\":3}\n", Some("{\"Width\":3}")),
    ];
    for (piece, expected) in table {
        let sent = command.client(data(1, piece, false)).to_kubelet;
        let sizes: Vec<&[u8]> = sent.iter().map(|frame| frame.data.as_ref()).collect();
        let expected: Vec<&[u8]> = expected.iter().map(|size| size.as_bytes()).collect();
        assert_eq!(sizes, expected, "{piece}");
    }
}
