//! The netlink socket: transactions and dumps. All calls are short and never wait for anybody but
//! the kernel.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, recv,
    sendto, setsockopt, socket, sockopt,
};

use super::message::HEADERS;
use super::{Attributes, Batch, Message};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Room for one answer; the kernel fills at most 32 KB of a dump into one datagram.
const RECEIVE_BYTES: usize = 64 * 1024;
const SEND_BUFFER_MIN: usize = 1 << 20;
/// Answers wait in the socket until they are read: errors of a large transaction come one for each
/// message.
const RECEIVE_BUFFER: usize = 4 << 20;
/// A dump that a change interrupted is started again this many times.
const DUMP_TRIES: usize = 16;

/// Why netfilter did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("open a netfilter socket")]
    Open(#[source] Errno),
    #[error("send {bytes} bytes to netfilter")]
    Send {
        bytes: usize,
        #[source]
        source: Errno,
    },
    #[error("receive from netfilter")]
    Receive(#[source] Errno),
    #[error("netfilter refused message {message} of the transaction")]
    Refused {
        message: u32,
        #[source]
        source: Errno,
    },
    #[error("netfilter refused to list")]
    List(#[source] Errno),
    #[error("netfilter did not acknowledge the transaction")]
    NoAnswer,
    #[error("what is there keeps changing while it is listed")]
    Unstable,
}

/// A socket in the network namespace of the thread that opened it.
pub struct Socket {
    fd: OwnedFd,
    send_buffer: usize,
    sequence: u32,
}

/// One message from the kernel. The body starts after `nlmsghdr`.
pub struct Notification<'a> {
    /// `subsystem << 8 | type`.
    pub kind: u16,
    flags: u16,
    sequence: u32,
    /// Whose request it is about.
    pub port: u32,
    pub body: &'a [u8],
}

impl Socket {
    pub fn open() -> Result<Self, NftError> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .map_err(NftError::Open)?;
        let mut socket = Self { fd, send_buffer: 0, sequence: 0 };
        socket.grow_send_buffer(SEND_BUFFER_MIN)?;
        setsockopt(&socket.fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(NftError::Open)?;
        Ok(socket)
    }

    /// The netlink port that requests come from, by which others tell them from theirs.
    pub fn port(&self) -> Option<u32> {
        let address: NetlinkAddr = getsockname(self.fd.as_raw_fd()).ok()?;
        Some(address.pid())
    }

    /// Applies the transaction, whole or not at all.
    pub fn apply(&mut self, batch: Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, acknowledged) = batch.finish();
        self.send(&bytes)?;
        let mut refused = None;
        let mut done = false;
        let mut buffer = vec![0; RECEIVE_BYTES];
        while let Some(length) = self.receive(&mut buffer)? {
            for answer in notifications(&buffer[..length]) {
                match error_code(&answer) {
                    Some(0) if answer.sequence == acknowledged => done = true,
                    Some(0) | None => {}
                    Some(code) => {
                        refused.get_or_insert((answer.sequence, Errno::from_raw(-code)));
                    }
                }
            }
        }
        match refused {
            Some((message, source)) => Err(NftError::Refused { message, source }),
            None if done => Ok(()),
            None => Err(NftError::NoAnswer),
        }
    }

    /// Sends one message that wants an acknowledgement and no answer; `kind` is `subsystem << 8 |
    /// type`.
    pub fn request(
        &mut self,
        kind: u16,
        family: u8,
        content: impl FnOnce(&mut Message),
    ) -> Result<(), NftError> {
        self.sequence += 1;
        let mut message = Message::default();
        message.begin(kind, REQUEST | ACK, self.sequence, family, 0);
        content(&mut message);
        message.end();
        self.send(message.bytes())?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        while let Some(length) = self.receive(&mut buffer)? {
            for answer in notifications(&buffer[..length]) {
                match error_code(&answer) {
                    Some(0) => return Ok(()),
                    Some(code) => {
                        return Err(NftError::Refused {
                            message: 0,
                            source: Errno::from_raw(-code),
                        });
                    }
                    None => {}
                }
            }
        }
        Err(NftError::NoAnswer)
    }

    /// Lists objects: `each` gets the attributes of every one. What was collected from an
    /// interrupted dump must be thrown away, so `each` writes into a `T` that starts afresh with
    /// every try.
    pub fn dump<T: Default>(
        &mut self,
        kind: u16,
        family: u8,
        content: impl Fn(&mut Message),
        mut each: impl FnMut(&mut T, Attributes<'_>),
    ) -> Result<T, NftError> {
        for _ in 0..DUMP_TRIES {
            let mut found = T::default();
            if self.dump_once(kind, family, &content, |attributes| each(&mut found, attributes))? {
                return Ok(found);
            }
        }
        Err(NftError::Unstable)
    }

    /// Whether the dump was consistent.
    fn dump_once(
        &mut self,
        kind: u16,
        family: u8,
        content: impl Fn(&mut Message),
        mut each: impl FnMut(Attributes<'_>),
    ) -> Result<bool, NftError> {
        const INTERRUPTED: u16 = 0x10;
        self.sequence += 1;
        let mut message = Message::default();
        message.begin(kind, REQUEST | DUMP, self.sequence, family, 0);
        content(&mut message);
        message.end();
        self.send(message.bytes())?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut consistent = true;
        while let Some(length) = self.receive(&mut buffer)? {
            for answer in notifications(&buffer[..length]) {
                if answer.sequence != self.sequence {
                    continue;
                }
                consistent &= answer.flags & INTERRUPTED == 0;
                match (answer.kind, error_code(&answer)) {
                    (DONE, _) => return Ok(consistent),
                    (_, Some(code)) if code != 0 => {
                        return Err(NftError::List(Errno::from_raw(-code)));
                    }
                    _ => each(Attributes(answer.body.get(4..).unwrap_or_default())),
                }
            }
        }
        Err(NftError::NoAnswer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NftError> {
        // The kernel counts its own overhead too.
        self.grow_send_buffer(bytes.len() + bytes.len() / 4)?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty())
            .map(drop)
            .map_err(|source| NftError::Send { bytes: bytes.len(), source })
    }

    fn grow_send_buffer(&mut self, bytes: usize) -> Result<(), NftError> {
        if bytes > self.send_buffer {
            setsockopt(&self.fd, sockopt::SndBufForce, &bytes).map_err(NftError::Open)?;
            self.send_buffer = bytes;
        }
        Ok(())
    }

    /// The length of the next answer, none if there is none: the kernel has answered before `send`
    /// returned.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>, NftError> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Ok(Some(length)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(NftError::Receive(error)),
            }
        }
    }
}

/// The code of an error message, negative as the kernel has it; 0 is an acknowledgement.
fn error_code(answer: &Notification<'_>) -> Option<i32> {
    if answer.kind != ERROR {
        return None;
    }
    Some(i32::from_ne_bytes(answer.body.get(0..4)?.try_into().ok()?))
}

/// The messages of a datagram.
pub fn notifications(mut bytes: &[u8]) -> impl Iterator<Item = Notification<'_>> {
    std::iter::from_fn(move || {
        let header = HEADERS - 4;
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        let answer = Notification {
            kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
            sequence: u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?),
            port: u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?),
            body: bytes.get(header..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(answer)
    })
}
