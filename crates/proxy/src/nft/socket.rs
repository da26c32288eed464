//! The netlink socket: transactions and dumps. All calls are short and wait only for the kernel.

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
/// The size of the receive buffer; the kernel puts at most 32 KB of a dump into one datagram.
const RECEIVE_BYTES: usize = 64 * 1024;
const SEND_BUFFER_MIN: usize = 1 << 20;
/// Responses are queued in the socket until they are read, and a large transaction may yield an
/// error per message.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The number of attempts at a dump that is interrupted by changes.
const DUMP_TRIES: usize = 16;

/// Errors of netfilter requests.
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
    #[error("netfilter rejected message {message} of the transaction")]
    Refused {
        message: u32,
        #[source]
        source: Errno,
    },
    #[error("netfilter rejected the dump")]
    List(#[source] Errno),
    #[error("netfilter did not acknowledge the transaction")]
    NoAnswer,
    #[error("list the addresses of this node")]
    Addresses(#[source] Errno),
    #[error("the objects keep changing while they are listed")]
    Unstable,
}

/// A socket in the network namespace of the thread that opened it.
pub struct Socket {
    fd: OwnedFd,
    send_buffer: usize,
    sequence: u32,
}

/// A message from the kernel. The body starts after `nlmsghdr`.
pub struct Notification<'a> {
    /// `subsystem << 8 | type`.
    pub kind: u16,
    flags: u16,
    sequence: u32,
    /// The port id of the request that it refers to.
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

    /// The netlink port id of the requests, which identifies them in notifications.
    pub fn port(&self) -> Option<u32> {
        let address: NetlinkAddr = getsockname(self.fd.as_raw_fd()).ok()?;
        Some(address.pid())
    }

    /// Applies the transaction atomically.
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

    /// Sends a message and waits for its acknowledgement; `kind` is `subsystem << 8 | type`.
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

    /// Lists objects: `each` is called with the attributes of each. The results of an interrupted
    /// dump are discarded, so `each` collects into a `T` that is new for every attempt.
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

    /// Returns whether the dump was consistent.
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
        // The kernel includes its own overhead.
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

    /// The length of the next response; `None` if there is none, since the kernel responds before
    /// `send` returns.
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

/// The code of an error message, a negative errno; 0 is an acknowledgement.
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
