//! Bindings, pipelined over one stream.
//!
//! Requests go down the stream as they come; answers come back in any order. When the stream
//! breaks, every request without an answer is reported as unknown: the caller looks again.

use std::collections::HashMap;
use std::time::Duration;

use client::Client;
use rpc::api_v1::{BindRequest, BindResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Bindings on their way at once. The caller has no more than these without an outcome, so that
/// neither of the two queues between us can be full: nobody waits for a receiver that waits for
/// him.
pub const IN_FLIGHT: usize = 1024;
/// Pause before a broken stream is opened again.
const REOPEN: Duration = Duration::from_millis(200);

/// How a binding ended.
#[derive(Debug)]
pub struct Outcome {
    pub uid: String,
    /// `Err`: what the apiserver said, or that nobody knows.
    pub result: Result<(), String>,
}

/// Sends what comes from `requests` until it is closed or `shutdown`.
pub async fn run(
    client: Client,
    mut requests: mpsc::Receiver<BindRequest>,
    outcomes: mpsc::Sender<Outcome>,
    shutdown: CancellationToken,
) {
    // The stream is opened when there is something to bind, so that an idle scheduler holds none.
    while let Some(first) = shutdown.run_until_cancelled(requests.recv()).await.flatten() {
        let mut pending = HashMap::new();
        let reason = match pump(&client, first, &mut requests, &outcomes, &mut pending).await {
            Ok(()) => return,
            Err(reason) => reason,
        };
        tracing::warn!(%reason, pending = pending.len(), "binding stream broke");
        for uid in pending.into_values() {
            let outcome = Outcome { uid, result: Err(format!("the answer was lost: {reason}")) };
            if outcomes.send(outcome).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(REOPEN).await;
    }
}

/// One stream's life. `Ok`: the requests ended.
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
