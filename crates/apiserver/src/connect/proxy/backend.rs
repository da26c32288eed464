//! Connecting to the backend of a proxied name.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::ApiError;
use api::address::{self, Special};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, future, stream};
use rpc::api_v1::{Channel, Frame};
use rpc::kubelet_v1::kubelet_client::KubeletClient;
use rpc::kubelet_v1::{PortForwardOpen, PortForwardRequest, port_forward_request::Kind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;
use tonic::Streaming;
use tonic::transport;

use super::tls;
use crate::connect::kubelet_error;

/// How long connecting may take.
const DIAL: Duration = Duration::from_secs(30);
/// Frames queued for a kubelet.
const QUEUE: usize = 16;
/// The only connection of its stream.
const CONNECTION: u32 = 1;

/// A connection to a server.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Who answers a proxied request.
#[derive(Debug)]
pub enum Backend {
    /// Whoever listens there.
    Server(Server),
    /// The kubelet itself.
    Kubelet(transport::Channel),
}

/// An HTTP server.
#[derive(Debug)]
pub struct Server {
    pub route: Route,
    pub port: u16,
    pub https: bool,
}

/// How to connect to the server.
pub enum Route {
    Pod { kubelet: Box<KubeletClient<transport::Channel>>, open: PortForwardOpen },
    Direct(IpAddr),
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}

impl Route {
    /// A direct connection, without a kubelet.
    ///
    /// # Errors
    /// 400 for loopback and link-local addresses, which would mean something else on this machine
    /// than where they were written.
    pub fn direct(ip: &str) -> Result<Self, ApiError> {
        proxyable(ip).map(Self::Direct)
    }

    /// The address to connect to.
    fn host(&self) -> String {
        match self {
            Self::Pod { open, .. } => open.address.clone(),
            Self::Direct(ip) => ip.to_string(),
        }
    }
}

impl Server {
    /// `host:port`, or the host alone on the scheme's default port.
    pub fn authority(&self) -> String {
        let host = self.route.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let own = if self.https { 443 } else { 80 };
        if self.port == own { host } else { format!("{host}:{}", self.port) }
    }

    /// Connects, with TLS for `https`. Servers' certificates are not verified, as in Kubernetes:
    /// nobody can say which name they should have.
    ///
    /// # Errors
    /// When the connection is not established in time. A pod's refusal only shows at the first
    /// read.
    pub async fn connect(&self) -> Result<Box<dyn Io>, ApiError> {
        let dial = async {
            let io: Box<dyn Io> = match &self.route {
                Route::Pod { kubelet, open } => {
                    tunnel((**kubelet).clone(), open.clone(), self.port).await?
                }
                Route::Direct(ip) => Box::new(connect(*ip, self.port).await?),
            };
            if !self.https {
                return Ok(io);
            }
            let io = tls::connect(io, &self.route.host()).await;
            Ok(Box::new(io.map_err(|error| unreachable(&error))?) as Box<dyn Io>)
        };
        match tokio::time::timeout(DIAL, dial).await {
            Ok(connected) => connected,
            Err(elapsed) => Err(unreachable(&elapsed)),
        }
    }
}

/// An address that may be proxied to, in its canonical form.
///
/// # Errors
/// 400 for any other.
pub fn proxyable(ip: &str) -> Result<IpAddr, ApiError> {
    let ip = ip.parse().ok().map(address::canonical).filter(|ip| Special::of(*ip).is_none());
    ip.ok_or_else(|| ApiError::bad_request("address not allowed"))
}

/// Connects to an ordinary address. Whatever came before, this is what the connection goes to.
async fn connect(ip: IpAddr, port: u16) -> Result<TcpStream, ApiError> {
    let ip = proxyable(&ip.to_string())?;
    let stream = TcpStream::connect(SocketAddr::new(ip, port)).await;
    let stream = stream.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    Ok(stream)
}

/// The message to a client whose backend does not answer: the root cause.
pub fn unreachable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let reason = runtime::errors::root_cause(error);
    ApiError::service_unavailable(format!("error trying to reach service: {reason}"))
}

/// One connection through the kubelet's port forwarding, as a byte stream.
async fn tunnel(
    mut kubelet: KubeletClient<transport::Channel>,
    open: PortForwardOpen,
    port: u16,
) -> Result<Box<dyn Io>, ApiError> {
    let frame = move |data: Bytes| Frame {
        channel: Channel::Data.into(),
        data,
        port: port.into(),
        connection: CONNECTION,
        ..Frame::default()
    };
    let (input, receiver) = mpsc::channel(QUEUE);
    // An open frame and an empty one establish the connection.
    let first = [Kind::Open(open), Kind::Frame(frame(Bytes::new()))];
    let rest = ReceiverStream::new(receiver).map(Kind::Frame);
    let requests =
        stream::iter(first).chain(rest).map(|kind| PortForwardRequest { kind: Some(kind) });
    let output =
        kubelet.port_forward(requests).await.map_err(|status| kubelet_error(&status))?.into_inner();
    let sink = PollSender::new(input)
        .sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        .with(move |data| future::ok::<_, io::Error>(frame(data)));
    let reader = StreamReader::new(Box::pin(received(output)));
    let writer = SinkWriter::new(CopyToBytes::new(sink));
    Ok(Box::new(tokio::io::join(reader, writer)))
}

/// The connection's bytes, or why there are none.
fn received(output: Streaming<Frame>) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(output), |output| async {
        let mut output = output?;
        match output.message().await {
            Ok(Some(frame)) if frame.channel() == Channel::Failure => {
                let text = String::from_utf8_lossy(&frame.data).into_owned();
                Some((Err(io::Error::other(text)), None))
            }
            // An empty chunk would be the end of the stream to its reader.
            Ok(Some(frame)) => Some((Ok(frame.data), (!frame.end).then_some(output))),
            Ok(None) => None,
            Err(status) => Some((Err(io::Error::other(status.message().to_owned())), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_link_are_refused() {
        let refused =
            ["::1", "fe80::1", "::", "ff02::1", "localhost", "x", "", "127.1", "0x7f.0.0.1"];
        for ip in refused {
            assert!(Route::direct(ip).is_err(), "{ip}");
        }
        for ip in ["127.0.0.1", "127.9.9.9", "169.254.169.254", "0.0.0.0", "224.0.0.1"] {
            for ip in [ip.to_owned(), format!("::ffff:{ip}"), format!("::{ip}")] {
                assert!(Route::direct(&ip).is_err(), "{ip}");
            }
        }
        assert!(Route::direct("192.0.2.1").is_ok());
        let mapped = Route::direct("::ffff:192.0.2.1").unwrap();
        assert_eq!(mapped.host(), "192.0.2.1");
    }

    /// A route is not trusted to have been checked.
    #[tokio::test]
    async fn the_address_is_checked_again_when_connecting() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::ffff:127.0.0.1", "::1"] {
            let route = Route::Direct(ip.parse().unwrap());
            let refused = Server { route, port, https: false }.connect().await;
            assert_eq!(refused.err().map(|error| error.code()), Some(400), "{ip}");
        }
    }

    #[test]
    fn authorities() {
        let server =
            |ip: &str, port, https| Server { route: Route::direct(ip).unwrap(), port, https };
        assert_eq!(server("192.0.2.1", 80, false).authority(), "192.0.2.1");
        assert_eq!(server("192.0.2.1", 80, true).authority(), "192.0.2.1:80");
        assert_eq!(server("2001:db8::1", 81, false).authority(), "[2001:db8::1]:81");
    }
}
