//! The socket between a log writer and clients of `attach`.
//!
//! The writer sends frames: a byte for the stream (1 output, 2 error), four bytes of length (big
//! endian), the bytes as the container wrote them. A client that does not keep up is dropped: a
//! container must not be blocked by a client.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use tokio::io::AsyncReadExt;

use super::LogStream;

/// Bytes buffered for a slow client.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Maximum number of clients.
const MAX_CLIENTS: usize = 32;
const HEADER_BYTES: usize = 5;
/// Asks a writer to exit, followed by the asking writer's number in eight bytes (big endian):
/// another writer of the same log was started, since an aborted start of the container is being
/// repeated.
const GIVE_WAY: u8 = b'q';
const GIVE_WAY_BYTES: usize = 9;
const GIVE_WAY_TIMEOUT: Duration = Duration::from_secs(1);
/// A frame that belongs to no stream: the writer is newer than the one that asks, and stays.
const STAYS: [u8; HEADER_BYTES] = [0; HEADER_BYTES];
const MAX_FRAME_BYTES: usize = 1 << 20;

/// The socket in a container's directory of streams.
pub(crate) fn attach_socket(directory: &Path) -> PathBuf {
    directory.join("attach")
}

/// A socket's path is limited to 107 bytes; through an open directory any path is short.
fn through_directory(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}

/// The writer's side.
pub(super) struct AttachServer {
    listener: UnixListener,
    /// Of the writers of a log, the one with the highest number writes it.
    number: u64,
    clients: Vec<Client>,
    give_way: bool,
}

struct Client {
    stream: UnixStream,
    waiting: VecDeque<u8>,
}

impl AttachServer {
    pub(super) fn bind(path: &Path, number: u64) -> io::Result<Self> {
        let (_directory, short) = through_directory(path)?;
        match std::fs::remove_file(&short) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&short)?;
        listener.set_nonblocking(true)?;
        Ok(AttachServer { listener, number, clients: Vec::new(), give_way: false })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Each client's socket, and whether bytes wait for it.
    pub(super) fn clients(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.clients.iter().map(|client| (client.stream.as_fd(), !client.waiting.is_empty()))
    }

    /// Accepts clients. One that cannot be accepted is gone again.
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, waiting: VecDeque::new() });
            }
        }
    }

    /// Sends bytes to every client.
    pub(super) fn send(&mut self, stream: LogStream, bytes: &[u8]) {
        if self.clients.is_empty() {
            return;
        }
        let mark = if stream == LogStream::Stdout { 1 } else { 2 };
        for chunk in bytes.chunks(MAX_FRAME_BYTES) {
            let length = u32::try_from(chunk.len()).expect("frames are at most a mebibyte");
            for client in &mut self.clients {
                client.waiting.push_back(mark);
                client.waiting.extend(length.to_be_bytes());
                client.waiting.extend(chunk);
            }
        }
        self.flush();
    }

    /// Sends buffered bytes without blocking, and drops clients that are gone or lag too far
    /// behind.
    pub(super) fn flush(&mut self) {
        self.clients
            .retain_mut(|client| client.flush() && client.waiting.len() <= MAX_WAITING_BYTES);
    }

    /// True once a newer writer of the same log has asked for it.
    pub(super) fn must_give_way(&self) -> bool {
        self.give_way
    }

    /// Drops clients that have closed their side. The only message from a client is [`GIVE_WAY`].
    pub(super) fn drop_closed(&mut self) {
        let mut asked = [0; GIVE_WAY_BYTES];
        let (number, give_way) = (self.number, &mut self.give_way);
        self.clients.retain_mut(|client| match client.stream.read(&mut asked) {
            Ok(GIVE_WAY_BYTES) if asked[0] == GIVE_WAY => {
                let asker = asked[1..].try_into().map(u64::from_be_bytes);
                let newer = asker.is_ok_and(|asker| asker > number);
                *give_way |= newer;
                if !newer {
                    client.waiting.extend(STAYS);
                    client.flush();
                }
                newer
            }
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
    }
}

impl Client {
    /// Returns false if the client is gone.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let (head, _) = self.waiting.as_slices();
            match self.stream.write(head) {
                Ok(0) => return false,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Asks the writer at a socket to give way to the one with this number, and waits a while for it to
/// hang up. Returns false if it stays, being newer. Returns true if there is none.
pub(super) fn ask_to_give_way(path: &Path, number: u64) -> bool {
    let answer = through_directory(path).and_then(|(_directory, short)| {
        let mut stream = UnixStream::connect(short)?;
        let mut question = [GIVE_WAY; GIVE_WAY_BYTES];
        question[1..].copy_from_slice(&number.to_be_bytes());
        stream.write_all(&question)?;
        stream.set_read_timeout(Some(GIVE_WAY_TIMEOUT))?;
        let mut answer = Vec::new();
        stream.take(MAX_WAITING_BYTES as u64).read_to_end(&mut answer)?;
        Ok(BytesMut::from(answer.as_slice()))
    });
    // The lock shows whether it gave way.
    let Ok(mut answer) = answer else {
        return true;
    };
    loop {
        match take_frame(&mut answer) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// The client's side: output from now on, until the writer exits.
pub(crate) async fn attach_output(
    path: &Path,
) -> io::Result<impl Stream<Item = io::Result<(LogStream, Bytes)>> + Send + use<>> {
    let (directory, short) = through_directory(path)?;
    let mut stream = tokio::net::UnixStream::connect(&short).await?;
    drop(directory);
    Ok(async_stream::try_stream! {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        while stream.read_buf(&mut buffer).await? > 0 {
            while let Some(frame) = take_frame(&mut buffer)? {
                yield frame;
            }
        }
    })
}

/// Takes a whole frame off the front, if there is one.
fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<(LogStream, Bytes)>> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let stream = match buffer[0] {
        1 => LogStream::Stdout,
        2 => LogStream::Stderr,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if buffer.len() < HEADER_BYTES + length {
        buffer.reserve(HEADER_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some((stream, buffer.split_to(length).freeze())))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn frames_pass_and_a_deep_path_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = attach_socket(&deep);
        let mut server = AttachServer::bind(&path, 1).unwrap();
        let mut output = Box::pin(attach_output(&path).await.unwrap());
        server.accept();
        server.send(LogStream::Stderr, b"hello");
        server.send(LogStream::Stdout, &[7; 70_000]);
        assert_eq!(
            output.next().await.unwrap().unwrap(),
            (LogStream::Stderr, Bytes::from_static(b"hello"))
        );
        let (stream, bytes) = loop {
            server.flush();
            if let Ok(Some(item)) =
                tokio::time::timeout(std::time::Duration::from_millis(5), output.next()).await
            {
                break item.unwrap();
            }
        };
        assert_eq!((stream, bytes.len()), (LogStream::Stdout, 70_000));
        drop(server);
        assert!(output.next().await.is_none());
    }

    #[test]
    fn a_writer_gives_way_to_a_newer_one_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = attach_socket(directory.path());
        let asking = |number| {
            let path = path.clone();
            let mut server = AttachServer::bind(&path, 5).unwrap();
            let asker = std::thread::spawn(move || ask_to_give_way(&path, number));
            while !asker.is_finished() && !server.must_give_way() {
                server.accept();
                server.drop_closed();
            }
            let given = server.must_give_way();
            drop(server);
            assert_eq!(asker.join().unwrap(), given);
            given
        };
        assert!(!asking(4));
        assert!(!asking(5));
        assert!(asking(6));
        assert!(ask_to_give_way(&path, 1), "nobody listens any more");
    }

    #[test]
    fn clients_and_what_waits_for_them_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = attach_socket(directory.path());
        let mut server = AttachServer::bind(&path, 1).unwrap();
        let connect = || std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mut clients = Vec::new();
        for _ in 0..MAX_CLIENTS + 5 {
            clients.push(connect());
            server.accept();
        }
        assert_eq!(server.clients.len(), MAX_CLIENTS);
        // None of them reads.
        for _ in 0..8 {
            server.send(LogStream::Stdout, &vec![7; MAX_WAITING_BYTES / 4]);
            server.flush();
            assert!(server.clients.iter().all(|client| client.waiting.len() <= MAX_WAITING_BYTES));
        }
        assert!(server.clients.is_empty(), "those that are too far behind are disconnected");
    }
}
