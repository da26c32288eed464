//! When nodes are measured: not at all while nobody asks; from a question on again and again, until
//! nobody has asked for a while.
//!
//! The first question waits until every node has been measured twice, or has failed to be, but not
//! for long; a node that does not answer delays no later question and no other node.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::sample::{Sample, Usage};

/// Time between two samples, as metrics-server's `--metric-resolution`.
const INTERVAL: Duration = Duration::from_secs(15);
/// Time between the first two samples, after a question that found none.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question that found no samples waits for them.
const WAIT: Duration = Duration::from_secs(3);
/// How long nodes are measured after the last question.
const KEPT: Duration = Duration::from_secs(300);
/// Nodes that are asked at once.
const NODES_AT_ONCE: usize = 64;
/// Nodes whose figures are kept: as many as Kubernetes' largest clusters have.
const NODES_MAX: usize = 5_000;
/// Containers of a node whose figures are kept.
const CONTAINERS_MAX: usize = 2_000;

/// Where samples come from. It ends (`None`) when there is nobody left to measure for.
pub trait Source: Clone + Send + Sync + 'static {
    /// The names of all nodes.
    fn nodes(&self) -> Option<Vec<String>>;

    /// Measures a node. `None`: it does not answer.
    fn sample(&self, node: &str) -> impl Future<Output = Option<Sample>> + Send;
}

/// The last two samples of every node that answers.
#[derive(Clone, Default)]
pub struct Sampler {
    state: Arc<Mutex<State>>,
    /// Whether the first two samples have been taken.
    ready: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<String, Samples>,
    /// `None`: nothing is measured.
    asked: Option<Instant>,
}

#[derive(Default)]
struct Samples {
    before: Option<Sample>,
    last: Sample,
}

impl Sampler {
    /// Notes that somebody asks, and waits for the first samples if there are none.
    pub async fn ask(&self, source: &impl Source) {
        let mut ready = self.ready.subscribe();
        let asked = self.state.lock().asked.replace(clock::instant());
        if asked.is_none() {
            tokio::spawn(self.clone().run(source.clone()));
        }
        // Whoever does not get all figures in time gets those that there are.
        tokio::time::timeout(WAIT, ready.wait_for(|ready| *ready)).await.ok();
    }

    /// What a node uses.
    pub fn node(&self, name: &str) -> Option<Usage> {
        let state = self.state.lock();
        let samples = state.nodes.get(name)?;
        let before = samples.before.as_ref().and_then(|before| before.node.as_ref());
        samples.last.node?.since(before)
    }

    /// What each container of a pod on a node uses. `None`: that is not known of all of them.
    pub fn pod(&self, node: &str, key: &str) -> Option<Vec<(String, Usage)>> {
        let state = self.state.lock();
        let samples = state.nodes.get(node)?;
        let before = samples.before.as_ref().and_then(|before| before.pods.get(key));
        let containers = samples.last.pods.get(key)?.iter().map(|(name, point)| {
            let mut earlier = before.into_iter().flatten();
            let earlier = earlier.find(|(before, _)| before == name).map(|(_, point)| point);
            Some((name.clone(), point.since(earlier)?))
        });
        containers.collect::<Option<Vec<_>>>().filter(|containers| !containers.is_empty())
    }

    async fn run(self, source: impl Source) {
        let mut samples = 2;
        while self.round(&source, samples).await {
            self.ready.send_replace(true);
            samples = 1;
            tokio::time::sleep(INTERVAL).await;
            if self.is_idle() {
                break;
            }
        }
    }

    /// Whether nobody has asked for a while: then everything is forgotten.
    fn is_idle(&self) -> bool {
        let mut state = self.state.lock();
        let idle = state.asked.is_none_or(|asked| asked.elapsed() >= KEPT);
        if idle {
            *state = State::default();
            self.ready.send_replace(false);
        }
        idle
    }

    /// Measures all nodes so many times, those that failed the last time at the end, for no longer than until the
    /// next round is due. Whether there is anybody to measure for.
    async fn round(&self, source: &impl Source, samples: usize) -> bool {
        let Some(mut nodes) = source.nodes() else { return false };
        nodes.truncate(NODES_MAX);
        {
            let mut state = self.state.lock();
            let known: HashSet<&String> = nodes.iter().collect();
            state.nodes.retain(|name, _| known.contains(name));
            nodes.sort_by_cached_key(|name| !state.nodes.contains_key(name));
        }
        let measured = futures::stream::iter(nodes);
        let places = &Semaphore::new(NODES_AT_ONCE);
        let measured = measured.for_each_concurrent(None, |node| async move {
            for number in 0..samples {
                if number > 0 {
                    tokio::time::sleep(FIRST_INTERVAL).await;
                }
                let Ok(_place) = places.acquire().await else { break };
                let sample = tokio::time::timeout(NODE_TIMEOUT, source.sample(&node)).await;
                if !self.keep(&node, sample.ok().flatten()) {
                    break;
                }
            }
        });
        tokio::time::timeout(INTERVAL, measured).await.ok();
        true
    }

    /// Keeps a sample, and the one before. Whether there is one.
    fn keep(&self, node: &str, sample: Option<Sample>) -> bool {
        let mut state = self.state.lock();
        let before = state.nodes.remove(node).map(|samples| samples.last);
        let Some(mut last) = sample else { return false };
        let mut left = CONTAINERS_MAX;
        last.pods.retain(|_, containers| {
            let fits = containers.len() <= left;
            left = left.saturating_sub(containers.len());
            fits
        });
        state.nodes.insert(node.to_owned(), Samples { before, last });
        true
    }
}

#[cfg(test)]
mod tests;
