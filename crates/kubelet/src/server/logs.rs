//! Logs.

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use rpc::kubelet_v1::{LogChunk, LogsRequest};
use tonic::Status;

use super::frames::Bytes;
use super::service::Service;
use crate::containers::ContainerState;
use crate::logs::{LogQuery, LogStream, read_log};
use crate::pod::pod_ext::PodExt;

impl Service {
    pub(super) async fn read_logs(&self, request: LogsRequest) -> Result<Bytes, Status> {
        let query = self.query(&request)?;
        let container = request.container.unwrap_or_default();
        let (known, name, mut attempts) = self.attempts(&container).await?;
        let pod = known.pod.pod_name();
        attempts.retain(|one| !matches!(one.state, ContainerState::Created));
        if request.previous {
            attempts.pop();
        }
        let Some(attempt) = attempts.pop() else {
            return Err(if request.previous {
                Status::invalid_argument(format!(
                    "previous terminated container \"{name}\" in pod \"{pod}\" not found"
                ))
            } else {
                let reason = waiting_reason(&known.pod, &name);
                Status::invalid_argument(format!(
                    "container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}"
                ))
            });
        };
        let chunks = read_log(&attempt.log_path, query);
        Ok(Box::pin(chunks.map(|chunk| match chunk {
            Ok(data) => Ok(LogChunk { data }),
            Err(error) => Err(Status::internal(error.to_string())),
        })))
    }

    fn query(&self, request: &LogsRequest) -> Result<LogQuery, Status> {
        let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let since = match (&request.since_time, request.since_seconds) {
            (Some(time), _) => Some(
                time.parse::<Timestamp>()
                    .map_err(|error| Status::invalid_argument(format!("sinceTime: {error}")))?,
            ),
            (None, Some(seconds)) => {
                let now = self.context.clock.now();
                now.saturating_sub(SignedDuration::from_secs(seconds)).ok()
            }
            (None, None) => None,
        };
        Ok(LogQuery {
            follow: request.follow,
            tail_lines: positive(request.tail_lines),
            since,
            timestamps: request.timestamps,
            limit_bytes: positive(request.limit_bytes),
            stream: match request.stream.as_str() {
                "Stdout" => Some(LogStream::Stdout),
                "Stderr" => Some(LogStream::Stderr),
                _ => None,
            },
        })
    }
}

fn waiting_reason(pod: &k8s_openapi::api::core::v1::Pod, name: &str) -> String {
    let status = pod.status_ref();
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|one| one.name == name)
        .and_then(|one| one.state.clone()?.waiting?.reason)
        .unwrap_or_else(|| "ContainerCreating".to_owned())
}
