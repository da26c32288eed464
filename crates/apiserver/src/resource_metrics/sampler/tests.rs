use jiff::Timestamp;

use super::super::sample::Point;
use super::*;

/// Nodes that use half a processor each; one whose name is `mute` never answers.
#[derive(Clone)]
struct Fake {
    nodes: Arc<Mutex<Vec<String>>>,
    samples: Arc<Mutex<usize>>,
    started: Instant,
    containers: usize,
}

impl Fake {
    fn of(nodes: &[&str]) -> Self {
        let nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
        let (nodes, samples) = (Arc::new(Mutex::new(nodes)), Arc::default());
        Self { nodes, samples, started: clock::instant(), containers: 1 }
    }

    fn samples(&self) -> usize {
        *self.samples.lock()
    }
}

impl Source for Fake {
    fn nodes(&self) -> Option<Vec<String>> {
        Some(self.nodes.lock().clone())
    }

    async fn sample(&self, node: &str) -> Option<Sample> {
        *self.samples.lock() += 1;
        if node == "mute" {
            return std::future::pending().await;
        }
        let passed = self.started.elapsed();
        let time = Timestamp::UNIX_EPOCH + passed;
        let cpu_ns = u64::try_from(passed.as_nanos()).unwrap() / 2;
        let point = Point { time, start: None, cpu_ns, memory_bytes: 5 };
        let containers = (0..self.containers).map(|number| (format!("c{number}"), point));
        let pods = HashMap::from([("n/p".to_owned(), containers.collect())]);
        Some(Sample { node: Some(point), pods })
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_measured_while_nobody_asks() {
    let (sampler, source) = (Sampler::default(), Fake::of(&["a"]));
    tokio::time::sleep(KEPT).await;
    assert_eq!(source.samples(), 0);
    sampler.ask(&source).await;
    assert_eq!(source.samples(), 2, "two samples for the first question");
    assert_eq!(sampler.node("a").unwrap().cpu_nanos, 500_000_000);
    assert_eq!(sampler.pod("a", "n/p").unwrap()[0].1.window, FIRST_INTERVAL);
    assert_eq!(sampler.pod("a", "n/q"), None);
    tokio::time::sleep(INTERVAL + FIRST_INTERVAL).await;
    assert_eq!(source.samples(), 3);
    assert_eq!(sampler.node("a").unwrap().window, INTERVAL);
    tokio::time::sleep(KEPT).await;
    let taken = source.samples();
    assert!((20..24).contains(&taken), "{taken}");
    tokio::time::sleep(10 * KEPT).await;
    assert_eq!(source.samples(), taken, "it has ended");
    assert_eq!(sampler.node("a"), None, "everything is forgotten");
    sampler.ask(&source).await;
    assert!(sampler.node("a").is_some() && source.samples() == taken + 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_costs_the_others_nothing() {
    let (sampler, source) = (Sampler::default(), Fake::of(&["a", "mute"]));
    let started = clock::instant();
    sampler.ask(&source).await;
    assert!(started.elapsed() <= WAIT + FIRST_INTERVAL);
    assert!(sampler.node("a").is_some() && sampler.node("mute").is_none());
    tokio::time::sleep(NODE_TIMEOUT).await;
    let asked = clock::instant();
    sampler.ask(&source).await;
    assert_eq!(asked.elapsed(), Duration::ZERO, "only the first question waits");
    *source.nodes.lock() = vec!["mute".to_owned()];
    tokio::time::sleep(INTERVAL + NODE_TIMEOUT).await;
    assert_eq!(sampler.node("a"), None, "it is gone");
}

#[tokio::test(start_paused = true)]
async fn no_more_figures_are_kept_than_the_bounds() {
    let names: Vec<String> = (0..NODES_MAX + 10).map(|number| number.to_string()).collect();
    let mut source = Fake::of(&[]);
    source.containers = CONTAINERS_MAX + 1;
    *source.nodes.lock() = vec!["a".to_owned()];
    let sampler = Sampler::default();
    sampler.ask(&source).await;
    assert!(sampler.node("a").is_some());
    assert_eq!(sampler.pod("a", "n/p"), None, "a pod beyond the bound");
    source.containers = 1;
    *source.nodes.lock() = names;
    let sampler = Sampler::default();
    sampler.ask(&source).await;
    assert_eq!(sampler.state.lock().nodes.len(), NODES_MAX);
}
