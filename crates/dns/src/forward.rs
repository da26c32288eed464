//! Forwards queries for names outside the cluster to the upstream servers, in the configured order,
//! each with a timeout, starting with the server that responded last. A new socket and id for each
//! query make responses hard to forge. No client can take more than its share of the queries in
//! flight.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cache::Cache;
use crate::upstream::Upstreams;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use runtime::shares::{Full, Shares};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The number of attempts per server.
const ROUNDS: usize = 2;
/// The maximum number of queries in flight; further ones fail immediately.
const CONCURRENCY_MAX: usize = 1024;
/// The share of one client in these.
const CLIENT_CONCURRENCY_MAX: usize = 64;
/// More than the size that we ask for: a response that is larger is cut off, and thus invalid.
const DATAGRAM_MAX: usize = 4096;
/// Responses of this size avoid fragmentation on virtually all networks (DNS Flag Day 2020).
pub const PAYLOAD_MAX: u16 = 1232;

/// Why a query could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("no upstream server is configured")]
    NoUpstream,
    #[error("{CONCURRENCY_MAX} queries are already waiting for upstream servers")]
    Busy,
    #[error("{CLIENT_CONCURRENCY_MAX} queries of the client are already waiting")]
    ClientBusy,
    #[error("no upstream server responded")]
    NoAnswer(#[source] io::Error),
}

/// Forwards queries to the upstream servers.
pub struct Forwarder {
    upstreams: Upstreams,
    /// The index of the server that responded last.
    preferred: AtomicUsize,
    in_flight: Shares,
    cache: Cache,
}

impl Forwarder {
    pub fn new(upstreams: Upstreams) -> Self {
        Self {
            upstreams,
            preferred: AtomicUsize::new(0),
            in_flight: Shares::new(CONCURRENCY_MAX, CLIENT_CONCURRENCY_MAX),
            cache: Cache::default(),
        }
    }

    /// The response of an upstream server to the query, perhaps an earlier one. `tcp` allows a
    /// response of any size.
    pub async fn resolve(
        &self,
        client: IpAddr,
        query: &Query,
        dnssec: bool,
        tcp: bool,
    ) -> Result<Message, ForwardError> {
        if let Some(response) = self.cache.get(query, dnssec) {
            return Ok(response);
        }
        let _permit = self.in_flight.take(client).map_err(|full| match full {
            Full::Whole => ForwardError::Busy,
            Full::Share => ForwardError::ClientBusy,
        })?;
        let response = self.ask(query, dnssec, tcp).await?;
        self.cache.insert(query, dnssec, &response);
        Ok(response)
    }

    async fn ask(&self, query: &Query, dnssec: bool, tcp: bool) -> Result<Message, ForwardError> {
        let upstreams = self.upstreams.current();
        let count = upstreams.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = None;
        for turn in 0..count * ROUNDS {
            let index = (first + turn) % count;
            let upstream = upstreams[index];
            let asked =
                tokio::time::timeout(TIMEOUT, query_server(upstream, query, dnssec, tcp)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(message) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(message);
                }
                Err(error) => {
                    tracing::debug!(%upstream, %error, "an upstream server did not respond");
                    failure = Some(error);
                }
            }
        }
        Err(failure.map_or(ForwardError::NoUpstream, ForwardError::NoAnswer))
    }
}

async fn query_server(
    upstream: SocketAddr,
    query: &Query,
    dnssec: bool,
    tcp: bool,
) -> io::Result<Message> {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_MAX).set_dnssec_ok(dnssec);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(io::Error::other)?;
    match tcp {
        true => query_tcp(upstream, &question, &bytes).await,
        false => query_udp(upstream, &question, &bytes).await,
    }
}

async fn query_udp(upstream: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else is late or forged.
        if let Some(message) = accept(question, &buffer[..length]) {
            return Ok(message);
        }
    }
}

async fn query_tcp(upstream: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    accept(question, &buffer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The message, if it is the response to the query.
fn accept(question: &Message, bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let is_response = message.metadata.message_type == MessageType::Response
        && message.metadata.id == question.metadata.id
        && message.queries == question.queries;
    is_response.then_some(message)
}
