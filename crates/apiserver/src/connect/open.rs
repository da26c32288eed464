//! Opens streams to kubelets, so that a refusal is still an ordinary error.
//!
//! A log is opened at once. A session acts in a container from its first message on, so it is only
//! prepared here, and dialed when its client has been accepted.

use api::ApiError;
use api::status::FieldError;
use futures::StreamExt;
use rpc::kubelet_v1 as pb;
use rpc::kubelet_v1::kubelet_client::KubeletClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::target::{self, PodOnNode};
use super::{Connection, Session, SessionKind, Stream, Streams, kubelet_error};
use super::{admit, proxy};
use crate::core::Call;
use crate::response::Response;

/// Frames queued for a kubelet.
const QUEUE: usize = 32;

/// A session that nothing has been dialed for yet.
pub struct Opening {
    pub kind: SessionKind,
    kubelet: KubeletClient<Channel>,
    first: First,
}

/// The first message to the kubelet.
enum First {
    Exec(pb::ExecOpen),
    Attach(pb::AttachOpen),
    PortForward(pb::PortForwardOpen),
}

impl Opening {
    /// Opens the session at the kubelet.
    ///
    /// # Errors
    /// The kubelet's refusal, 500 when it cannot be reached.
    pub async fn dial(self) -> Result<Session, ApiError> {
        let mut kubelet = self.kubelet;
        let (input, receiver) = mpsc::channel(QUEUE);
        let frames = ReceiverStream::new(receiver);
        let answer = match self.first {
            First::Exec(open) => {
                use pb::exec_request::Kind;
                let kinds = futures::stream::iter([Kind::Open(open)]);
                let kinds = kinds.chain(frames.map(Kind::Frame));
                kubelet.exec(kinds.map(|kind| pb::ExecRequest { kind: Some(kind) })).await
            }
            First::Attach(open) => {
                use pb::attach_request::Kind;
                let kinds = futures::stream::iter([Kind::Open(open)]);
                let kinds = kinds.chain(frames.map(Kind::Frame));
                kubelet.attach(kinds.map(|kind| pb::AttachRequest { kind: Some(kind) })).await
            }
            First::PortForward(open) => {
                use pb::port_forward_request::Kind;
                let kinds = futures::stream::iter([Kind::Open(open)]);
                let kinds = kinds.chain(frames.map(Kind::Frame));
                let requests = kinds.map(|kind| pb::PortForwardRequest { kind: Some(kind) });
                kubelet.port_forward(requests).await
            }
        };
        let output = answer.map_err(|status| kubelet_error(&status))?.into_inner();
        Ok(Session { kind: self.kind, input, output })
    }
}

/// Opens the target's streaming subresource.
///
/// # Errors
/// 405 for any other subresource and for methods that a stream does not have, 400 and 404 for a pod
/// or container that cannot be streamed, 500 when the kubelet of a log cannot be reached, 503 when
/// there is no endpoint to proxy to.
pub async fn open(call: Call<'_>) -> Result<Response, ApiError> {
    let admitted = admit::admit(call).await?;
    let call = match &admitted {
        Some((target, options)) => Call { target, options, ..call },
        None => call,
    };
    if call.target.subresource == "proxy" {
        let connection = proxy::find(call).await?;
        return Ok(Response::Connect(Box::new(connection)));
    }
    let verb = call.verb.as_str();
    let stream = Stream::of(call.target)
        .filter(|stream| verb == "get" || (verb == "create" && stream.is_session()))
        .ok_or_else(|| ApiError::method_not_allowed(call.row(), verb))?;
    let found = target::find(call).await?;
    let connection = match stream {
        Stream::Log => log(call, &found).await?,
        Stream::Exec => Connection::Session(command(call, &found, true)?),
        Stream::Attach => Connection::Session(command(call, &found, false)?),
        Stream::PortForward => Connection::Session(port_forward(call, &found)?),
    };
    Ok(Response::Connect(Box::new(connection)))
}

fn reference(found: &PodOnNode, container: String) -> pb::ContainerRef {
    let metadata = &found.pod.metadata;
    pb::ContainerRef {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        pod: metadata.name.clone().unwrap_or_default(),
        uid: api::pod::uid_on_node(&found.pod).unwrap_or_default().to_owned(),
        container,
    }
}

async fn log(call: Call<'_>, found: &PodOnNode) -> Result<Connection, ApiError> {
    let options = call.options;
    let [since_seconds, tail_lines, limit_bytes] = log_limits(call)?;
    let container = target::container(&found.pod, options.parameter("container"))?;
    let Some(node) = &found.node else {
        return Ok(Connection::Log(None));
    };
    let request = pb::LogsRequest {
        container: Some(reference(found, container)),
        follow: options.flag("follow"),
        previous: options.flag("previous"),
        timestamps: options.flag("timestamps"),
        since_seconds,
        since_time: options.parameter("sinceTime").map(str::to_owned),
        tail_lines,
        limit_bytes,
        stream: options.parameter("stream").unwrap_or_default().to_owned(),
    };
    let mut client = call.core.kubelets.client(node)?;
    let chunks = client.logs(request).await.map_err(|status| kubelet_error(&status))?;
    Ok(Connection::Log(Some(chunks.into_inner())))
}

/// `sinceSeconds`, `tailLines` and `limitBytes` (`ValidatePodLogOptions`).
fn log_limits(call: Call<'_>) -> Result<[Option<i64>; 3], ApiError> {
    let mut errors = Vec::new();
    let mut number = |name: &str, min: i64, problem: &str| {
        let text = call.options.parameter(name).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let number = crate::options::integer(text)?;
        if number < min {
            errors.push(FieldError::invalid(name, number, problem));
        }
        Ok(Some(number))
    };
    let tail = number("tailLines", 0, "must be greater than or equal to 0")?;
    let bytes = number("limitBytes", 1, "must be greater than 0")?;
    let since = number("sinceSeconds", 1, "must be greater than 0")?;
    if since.is_some() && call.options.parameter("sinceTime").is_some() {
        let problem = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("", problem));
    }
    if errors.is_empty() {
        return Ok([since, tail, bytes]);
    }
    let name = &call.target.name;
    let mut error = ApiError::invalid_kind("PodLogOptions", name, &errors);
    let details = error.status_mut().details.get_or_insert_default();
    details.kind = Some("PodLogOptions".to_owned());
    details.name = Some(name.clone());
    Err(error)
}

fn command(call: Call<'_>, found: &PodOnNode, exec: bool) -> Result<Opening, ApiError> {
    let options = call.options;
    let container = target::container(&found.pod, options.parameter("container"))?;
    let node = target::running_node(found)?;
    let tty = options.flag("tty");
    let streams = Streams {
        stdin: options.flag("stdin"),
        stdout: options.flag("stdout"),
        stderr: options.flag("stderr") && !tty,
        tty,
    };
    let Streams { stdin, stdout, stderr, .. } = streams;
    if !stdin && !stdout && !stderr {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let container = Some(reference(found, container));
    let first = if exec {
        let command: Vec<String> = options.values("command").map(str::to_owned).collect();
        if command.is_empty() {
            return Err(ApiError::bad_request("you must specify a command"));
        }
        First::Exec(pb::ExecOpen { container, command, stdin, stdout, stderr, tty })
    } else {
        First::Attach(pb::AttachOpen { container, stdin, stdout, stderr, tty })
    };
    let kubelet = call.core.kubelets.client(node)?;
    Ok(Opening { kind: SessionKind::RemoteCommand(streams), kubelet, first })
}

fn port_forward(call: Call<'_>, found: &PodOnNode) -> Result<Opening, ApiError> {
    let kubelet = call.core.kubelets.client(target::running_node(found)?)?;
    let own = reference(found, String::new());
    let kind = SessionKind::PortForward { pod: own.pod.clone(), uid: own.uid.clone() };
    let first = First::PortForward(pb::PortForwardOpen {
        namespace: own.namespace,
        pod: own.pod,
        uid: own.uid,
        address: String::new(),
    });
    Ok(Opening { kind, kubelet, first })
}
