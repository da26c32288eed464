//! Deployments: rollouts over ReplicaSets (`k8s.io/kubernetes/pkg/controller/deployment`).

mod apply;
mod plan;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::labels::{Selector, SelectorError};
use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::owner::{self, controlled_by, controller_key, uid};
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;
use plan::{Observed, plan};

struct Deployments {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    deployments: Arc<Cache<Deployment>>,
    sets: Arc<Cache<ReplicaSet>>,
    pods: Arc<Cache<Pod>>,
}

/// Adds the controller; its keys are Deployments.
pub fn start(wiring: &mut Wiring) {
    let controller = Deployments {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("deployment-controller"),
        clock: wiring.clock.clone(),
        deployments: wiring.cache(),
        sets: wiring.cache(),
        pods: wiring.cache(),
    };
    let (deployments, sets) = (wiring.cache::<Deployment>(), wiring.cache::<ReplicaSet>());
    // Recreate waits for the last old pod to be gone; the status of its set reports that too early.
    let recreated = move |change: &Change<Pod>| {
        if change.new.as_deref().is_some_and(|pod| !api::pod::is_terminal(pod)) {
            return None;
        }
        let set = sets.get(&controller_key::<ReplicaSet>(&change.last().metadata)?)?;
        let key = controller_key::<Deployment>(&set.metadata)?;
        sets::is_recreate(&*deployments.get(&key)?).then_some(key)
    };
    wiring
        .controller(controller)
        .of::<Deployment>()
        .selects::<Deployment, ReplicaSet>(selector)
        .maps(recreated)
        .start();
}

fn selector(deployment: &Deployment) -> Result<Selector, SelectorError> {
    Selector::from_label_selector(Some(&deployment.spec.selector))
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(Next::Change);
        };
        let selector = selector(&deployment);
        let any = |_: &ReplicaSet| true;
        let sets = owner::claim_all(&self.client, &*deployment, selector, &self.sets, any).await?;
        let pods = sets
            .iter()
            .map(|set| {
                let pods = self.pods.indexed(&controlled_by(uid(&set.metadata)));
                let running = pods.iter().filter(|pod| !api::pod::is_terminal(pod));
                (uid(&set.metadata).to_owned(), running.count())
            })
            .collect::<HashMap<_, _>>();
        let observed = Observed { deployment: &deployment, sets, pods };
        let plan = plan(&observed, self.clock.now());
        let next = plan.requeue_after.into();
        self.apply(&deployment, plan).await?;
        Ok(next)
    }
}
