//! Bindings, pipelined over one stream.
//!
//! Requests are sent as they arrive; responses come in any order. When the stream breaks, the
//! outcome of every request without a response is unknown, and the caller retries it.

use std::collections::HashMap;
use std::time::Duration;

use client::Client;
use rpc::api_v1::{BindRequest, BindResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Maximum number of bindings in flight. The caller never has more without an outcome, so that
/// neither of the two channels between caller and task is ever full and they cannot deadlock.
pub const IN_FLIGHT: usize = 1024;
/// Delay before a broken stream is reopened.
const REOPEN: Duration = Duration::from_millis(200);

/// The outcome of a binding.
#[derive(Debug)]
pub struct Outcome {
    pub uid: String,
    /// `Err`: the message of the apiserver, or that the outcome is unknown.
    pub result: Result<(), String>,
}

/// Sends `requests` until the channel is closed or `shutdown` is cancelled.
pub async fn run(
    client: Client,
    mut requests: mpsc::Receiver<BindRequest>,
    outcomes: mpsc::Sender<Outcome>,
    shutdown: CancellationToken,
) {
    // The stream is opened when there is something to bind: an idle scheduler has none.
    while let Some(first) = shutdown.run_until_cancelled(requests.recv()).await.flatten() {
        let mut pending = HashMap::new();
        let reason = match pump(&client, first, &mut requests, &outcomes, &mut pending).await {
            Ok(()) => return,
            Err(reason) => reason,
        };
        tracing::warn!(%reason, pending = pending.len(), "binding stream broke");
        for uid in pending.into_values() {
            let outcome = Outcome { uid, result: Err(format!("the response was lost: {reason}")) };
            if outcomes.send(outcome).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(REOPEN).await;
    }
}

/// Sends requests and receives responses over one stream. `Ok`: the channel of requests is closed.
async fn pump(
    client: &Client,
    first: BindRequest,
    requests: &mut mpsc::Receiver<BindRequest>,
    outcomes: &mpsc::Sender<Outcome>,
    pending: &mut HashMap<u64, String>,
) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    pending.insert(first.id, first.uid.clone());
    sender.send(first).await.map_err(|_| "closed".to_owned())?;
    let opened = client.resources().bind(ReceiverStream::new(receiver)).await;
    let mut responses = opened.map_err(|status| status.message().to_owned())?.into_inner();
    loop {
        tokio::select! {
            request = requests.recv(), if pending.len() < IN_FLIGHT => {
                let Some(request) = request else { return Ok(()) };
                pending.insert(request.id, request.uid.clone());
                sender.send(request).await.map_err(|_| "closed by the apiserver".to_owned())?;
            }
            response = responses.message() => {
                let response = response.map_err(|status| status.message().to_owned())?.ok_or("ended by the apiserver")?;
                let Some(uid) = pending.remove(&response.id) else { continue };
                if outcomes.send(Outcome { uid, result: result(&response) }).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn result(response: &BindResponse) -> Result<(), String> {
    if response.code == 0 {
        return Ok(());
    }
    let message =
        api::status::decode_status(&response.status_json).ok().and_then(|status| status.message);
    Err(message.unwrap_or_else(|| format!("code {}", response.code)))
}
