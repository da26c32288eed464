//! Whether the node admits a new pod, and room for critical ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::PodWorkers;
use crate::pod::admission::preemption::victims;
use crate::pod::admission::{Refusal, Rejection, admit, permit, with_own};
use crate::pod::pod_ext::PodExt;
use crate::pod::worker::Desired;
use crate::pod::worker::handle::WorkerHandle;
use crate::pod::worker::state::{Eviction, PREEMPTED, PREEMPTING};

/// A critical pod that has no worker yet. If the kubelet restarts, it preempts again.
pub(super) struct Preemptor {
    pub(super) pod: Arc<Pod>,
    /// The uids of the pods that make room for it.
    victims: BTreeSet<String>,
}

enum Decision {
    Admitted,
    Rejected(Rejection),
    /// Once these pods have gone.
    After(Vec<Arc<Pod>>),
}

impl PodWorkers {
    /// Starts the worker of a new pod: to run it, or to fail it if the node does not admit it. A
    /// critical pod may have to wait for others to go.
    pub(super) fn admit(&mut self, pod: Arc<Pod>) {
        let handle = Arc::new(WorkerHandle::default());
        let mut rejected = false;
        match self.decide(&pod) {
            Decision::Admitted => {}
            Decision::Rejected(rejection) => {
                let message = rejection.message.clone();
                self.context.recorder.pod_warning(&pod, &rejection.reason, message);
                handle.evict(Eviction::rejected(rejection));
                rejected = true;
            }
            Decision::After(victims) => {
                self.preempt(&victims);
                let victims = victims.iter().map(|victim| victim.uid().to_owned()).collect();
                self.preemptors.insert(pod.uid().to_owned(), Preemptor { pod, victims });
                return;
            }
        }
        let mirror = self.mirrors.of(&pod);
        let desired = Desired { pod, mirror, vanished: false };
        self.start(desired, handle, rejected, Duration::ZERO);
    }

    fn decide(&self, pod: &Pod) -> Decision {
        let decided = pod.is_terminal()
            || pod.deletion_deadline().is_some()
            || self.survivors.contains(pod.uid())
            || pod.status_ref().start_time.is_some();
        if decided {
            return Decision::Admitted;
        }
        let app_armor = self.context.runtime.supports_app_armor();
        if let Err(rejection) = permit(&self.context.node.allowed_unsafe_sysctls, app_armor, pod) {
            return Decision::Rejected(rejection);
        }
        let others = self.admitted();
        let taken: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
        let pressures = *self.pressures.borrow();
        let context = &self.context;
        let own = &context.node.allocatable;
        let node = with_own(&self.node.borrow(), own, &context.devices.offers());
        match admit(&node, &pressures, &taken, pod) {
            Ok(()) => Decision::Admitted,
            Err(Refusal::Rejection(rejection)) => Decision::Rejected(rejection),
            Err(Refusal::Insufficient(missing)) => match victims(pod, &others, &missing) {
                Ok(victims) => Decision::After(victims),
                Err(rejection) => Decision::Rejected(rejection),
            },
        }
    }

    /// The pods that hold resources.
    fn admitted(&self) -> Vec<Arc<Pod>> {
        self.workers
            .values()
            .filter(|running| !running.rejected)
            .map(|running| running.desired.borrow().clone())
            // A force-deleted pod still terminates, but no longer holds resources.
            .filter(|desired| !desired.vanished && !desired.is_terminal())
            .map(|desired| desired.pod)
            .collect()
    }

    fn preempt(&self, victims: &[Arc<Pod>]) {
        for victim in victims {
            let Some(running) = self.workers.get(victim.uid()) else {
                continue;
            };
            self.context.recorder.pod_warning(victim, PREEMPTING, PREEMPTED);
            running.handle.evict(Eviction::preempted(victim.spec_grace_seconds()));
        }
    }

    /// Admits the critical pods that have got room.
    pub(super) fn admit_preemptors(&mut self) {
        if self.preemptors.is_empty() {
            return;
        }
        let holding: BTreeSet<String> =
            self.admitted().iter().map(|pod| pod.uid().to_owned()).collect();
        let free = |preemptor: &Preemptor| preemptor.victims.is_disjoint(&holding);
        let ready = self.preemptors.iter().filter(|(_, preemptor)| free(preemptor));
        let ready: Vec<String> = ready.map(|(uid, _)| uid.clone()).collect();
        for uid in ready {
            if let Some(preemptor) = self.preemptors.remove(&uid) {
                self.admit(preemptor.pod);
            }
        }
    }
}
