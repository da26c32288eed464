//! Opens a stream to the kubelet, so that its refusal is still an ordinary error.

use api::ApiError;
use api::status::FieldError;
use futures::StreamExt;
use rpc::kubelet_v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::proxy;
use super::target::{self, PodOnNode};
use super::{Connection, Session, SessionKind, Streams, kubelet_error};
use crate::core::Call;
use crate::response::Response;

/// Frames queued for a kubelet.
const QUEUE: usize = 32;

/// Opens the target's streaming subresource.
///
/// # Errors
/// 400 and 404 for a pod or container that cannot be streamed, 500 when the kubelet cannot be
/// reached, 503 when there is no endpoint to proxy to.
pub async fn open(call: Call<'_>) -> Result<Response, ApiError> {
    let subresource = call.target.subresource.as_str();
    if subresource == "proxy" {
        let connection = proxy::find(call).await?;
        return Ok(Response::Connect(Box::new(connection)));
    }
    let found = target::find(call).await?;
    let connection = match subresource {
        "log" => log(call, &found).await?,
        "exec" | "attach" => session(call, &found, subresource == "exec").await?,
        _ => port_forward(call, &found).await?,
    };
    Ok(Response::Connect(Box::new(connection)))
}

fn reference(found: &PodOnNode, container: String) -> pb::ContainerRef {
    let metadata = &found.pod.metadata;
    pb::ContainerRef {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        pod: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
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

async fn session(call: Call<'_>, found: &PodOnNode, exec: bool) -> Result<Connection, ApiError> {
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
    let mut client = call.core.kubelets.client(node)?;
    let (input, receiver) = mpsc::channel(QUEUE);
    let reference = Some(reference(found, container));
    let answer = if exec {
        let command: Vec<String> = options
            .parameters
            .iter()
            .filter(|(name, _)| name == "command")
            .map(|(_, value)| value.clone())
            .collect();
        if command.is_empty() {
            return Err(ApiError::bad_request("you must specify a command"));
        }
        let open = pb::ExecOpen { container: reference, command, stdin, stdout, stderr, tty };
        let first = pb::ExecRequest { kind: Some(pb::exec_request::Kind::Open(open)) };
        let rest = ReceiverStream::new(receiver)
            .map(|frame| pb::ExecRequest { kind: Some(pb::exec_request::Kind::Frame(frame)) });
        client.exec(futures::stream::iter([first]).chain(rest)).await
    } else {
        let open = pb::AttachOpen { container: reference, stdin, stdout, stderr, tty };
        let first = pb::AttachRequest { kind: Some(pb::attach_request::Kind::Open(open)) };
        let rest = ReceiverStream::new(receiver)
            .map(|frame| pb::AttachRequest { kind: Some(pb::attach_request::Kind::Frame(frame)) });
        client.attach(futures::stream::iter([first]).chain(rest)).await
    };
    let output = answer.map_err(|status| kubelet_error(&status))?.into_inner();
    Ok(Connection::Session(Session { kind: SessionKind::RemoteCommand(streams), input, output }))
}

async fn port_forward(call: Call<'_>, found: &PodOnNode) -> Result<Connection, ApiError> {
    let node = target::running_node(found)?;
    let mut client = call.core.kubelets.client(node)?;
    let (input, receiver) = mpsc::channel(QUEUE);
    let own = reference(found, String::new());
    let kind = SessionKind::PortForward { pod: own.pod.clone(), uid: own.uid.clone() };
    let open = pb::PortForwardOpen {
        namespace: own.namespace,
        pod: own.pod,
        uid: own.uid,
        address: String::new(),
    };
    let first = pb::PortForwardRequest { kind: Some(pb::port_forward_request::Kind::Open(open)) };
    let rest = ReceiverStream::new(receiver).map(|frame| pb::PortForwardRequest {
        kind: Some(pb::port_forward_request::Kind::Frame(frame)),
    });
    let answer = client.port_forward(futures::stream::iter([first]).chain(rest)).await;
    let output = answer.map_err(|status| kubelet_error(&status))?.into_inner();
    Ok(Connection::Session(Session { kind, input, output }))
}
