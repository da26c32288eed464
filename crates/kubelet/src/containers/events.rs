//! Events of containers.
//!
//! One subscription to containerd feeds every [`Runtime::events`]. It also records exits (see
//! `reap`), whether or not there are subscribers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use containerd_client::events::{TaskDelete, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::{broadcast, mpsc};

use super::{
    ContainerEventKind, ContainerId, Containerd, EVENT_QUEUE, Inner, Result, Runtime, RuntimeError,
    RuntimeEvent,
};
use super::{record, task};

/// Topic of an event of our own that shows that a subscription works: containerd answers a
/// subscriber only when there is an event.
const PROBE_TOPIC: &str = "/skiff/subscribed";
const PROBE_INTERVAL: Duration = Duration::from_millis(25);
/// Pauses after a lost subscription.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
const RECONNECT: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(RECONNECT_MAX)
    .without_max_times();

impl Runtime {
    /// Starts a stream of events. It begins with [`RuntimeEvent::Resync`], recovers when containerd
    /// restarts (with another `Resync`), and ends when the receiver is dropped.
    pub fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(relay(self.inner.events.subscribe(), sender));
        receiver
    }

    pub(super) fn start_event_pump(&self) {
        let pump = tokio::spawn(pump(Arc::downgrade(&self.inner), self.inner.containerd.clone()));
        let first = self.inner.pump.set(pump.abort_handle());
        assert!(first.is_ok(), "the event pump is started once, when the runtime is created");
    }
}

/// Passes events on to one receiver, which has to list anew what it was too slow for.
async fn relay(mut source: broadcast::Receiver<RuntimeEvent>, sender: mpsc::Sender<RuntimeEvent>) {
    let mut next = RuntimeEvent::Resync;
    // An error: the receiver is gone.
    while sender.send(next).await.is_ok() {
        let received = tokio::select! {
            received = source.recv() => received,
            () = sender.closed() => return,
        };
        next = match received {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => RuntimeEvent::Resync,
            Err(broadcast::error::RecvError::Closed) => return,
        };
    }
}

/// Subscribes, forwards, and subscribes again when the stream breaks.
async fn pump(inner: Weak<Inner>, containerd: Containerd) {
    let mut pauses = RECONNECT.build();
    while let Err(error) = forward(&inner, &containerd, &mut pauses).await {
        let pause = pauses.next().unwrap_or(RECONNECT_MAX);
        tracing::info!(%error, ?pause, "lost containerd's event stream; subscribing again");
        tokio::time::sleep(pause).await;
    }
}

/// Forwards events until the stream breaks (an error) or the runtime is gone.
async fn forward(
    inner: &Weak<Inner>,
    containerd: &Containerd,
    pauses: &mut ExponentialBackoff,
) -> Result<()> {
    let filter = |topic: &str| format!("namespace=={:?},topic=={topic:?}", containerd.namespace());
    let topics = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete", PROBE_TOPIC];
    let request = SubscribeRequest { filters: topics.into_iter().map(filter).collect() };
    let lost = |status: tonic::Status| RuntimeError::from_status("subscribe to events", &status);
    let mut events = containerd.events();
    let subscribing = events.subscribe(request);
    tokio::pin!(subscribing);
    let mut stream = loop {
        tokio::select! {
            answer = &mut subscribing => break answer.map_err(lost)?.into_inner(),
            () = tokio::time::sleep(PROBE_INTERVAL) => probe(containerd).await?,
        }
    };
    *pauses = RECONNECT.build();
    let Some(runtime) = inner.upgrade() else {
        return Ok(());
    };
    runtime.publish(RuntimeEvent::Resync);
    runtime.reap_all().await?;
    drop(runtime);
    while let Some(envelope) = stream.message().await.map_err(lost)? {
        let Some(runtime) = inner.upgrade() else {
            return Ok(());
        };
        runtime.handle(&envelope).await;
    }
    Err(RuntimeError::Unavailable { message: "the event stream ended".to_string() })
}

async fn probe(containerd: &Containerd) -> Result<()> {
    // Any registered message will do; nobody else listens to the topic.
    let event = TaskOom { container_id: "skiff".to_string() };
    let event = Any { type_url: TaskOom::full_name(), value: event.encode_to_vec() };
    let request = PublishRequest { topic: PROBE_TOPIC.to_string(), event: Some(event) };
    let sent = containerd.events().publish(request).await;
    sent.map_err(|status| RuntimeError::from_status("publish event", &status))?;
    Ok(())
}

impl Inner {
    /// Passes an event to the subscribers, if there are any.
    fn publish(&self, event: RuntimeEvent) {
        // An error only means that there are no subscribers.
        self.events.send(event).ok();
    }

    /// Records the exit of every stopped task.
    async fn reap_all(self: &Arc<Self>) -> Result<()> {
        for task in self.tasks().await? {
            if matches!(task.state, task::TaskState::Stopped { .. }) {
                self.reap_in_background(task.id);
            }
        }
        Ok(())
    }

    async fn handle(self: &Arc<Self>, envelope: &Envelope) {
        let Some((id, kind)) = decode(envelope) else {
            return;
        };
        if matches!(kind, ContainerEventKind::Exited { .. }) {
            self.reap_in_background(id.clone());
        }
        let pod_uid = self.pod_of_container(&id).await;
        self.publish(RuntimeEvent::Container { id: ContainerId(id), pod_uid, kind });
    }

    async fn pod_of_container(&self, id: &str) -> String {
        if let Some(pod_uid) = self.pod_of.lock().get(id) {
            return pod_uid.clone();
        }
        match self.record(id).await {
            Ok(Some(container)) => {
                container.labels.get(record::POD_UID).cloned().unwrap_or_default()
            }
            Ok(None) => String::new(),
            Err(error) => {
                tracing::debug!(container = %id, %error, "cannot look up the pod of an event");
                String::new()
            }
        }
    }
}

/// The container and kind of a task event; `None` for events of execs and our own probe.
fn decode(envelope: &Envelope) -> Option<(String, ContainerEventKind)> {
    let value = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/start" => TaskStart::decode(value)
            .ok()
            .map(|event| (event.container_id, ContainerEventKind::Started)),
        "/tasks/oom" => {
            TaskOom::decode(value).ok().map(|event| (event.container_id, ContainerEventKind::Oom))
        }
        "/tasks/exit" => TaskExit::decode(value)
            .ok()
            .filter(|event| event.id == event.container_id)
            .map(|event| {
                let exit_code = task::exit_code(event.exit_status);
                (event.container_id, ContainerEventKind::Exited { exit_code })
            }),
        "/tasks/delete" => TaskDelete::decode(value)
            .ok()
            .filter(|event| event.id.is_empty() || event.id == event.container_id)
            .map(|event| (event.container_id, ContainerEventKind::Deleted)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver that does not keep up gets what fits into the queues, and what it missed as one
    /// request to list.
    #[tokio::test]
    async fn a_receiver_that_is_late_lists_anew() {
        let (events, source) = broadcast::channel(EVENT_QUEUE);
        let (sender, mut receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(relay(source, sender));
        assert_eq!(receiver.recv().await, Some(RuntimeEvent::Resync));
        for number in 0..4 * EVENT_QUEUE {
            events.send(event(number)).unwrap();
            if number % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(events);
        let mut received = Vec::new();
        while let Some(event) = receiver.recv().await {
            received.push(event);
        }
        // Both queues, the one event between them, and the request.
        assert!(received.len() <= 2 * EVENT_QUEUE + 2, "{}", received.len());
        assert!(received.contains(&RuntimeEvent::Resync));
        assert_eq!(received.last(), Some(&event(4 * EVENT_QUEUE - 1)));
    }

    fn event(number: usize) -> RuntimeEvent {
        let (id, pod_uid) = (ContainerId(number.to_string()), String::new());
        RuntimeEvent::Container { id, pod_uid, kind: ContainerEventKind::Started }
    }
}
