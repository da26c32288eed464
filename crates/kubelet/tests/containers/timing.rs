//! How long a pod takes to start. Run with `cargo test -p kubelet --release --test containers --
//! --ignored timing --nocapture`.

use std::time::Duration;

use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures, which mean nothing on a busy machine"]
async fn pod_start() {
    let node = Node::new().await;
    let rounds = 20;
    let mut steps: [Vec<Duration>; 4] = Default::default();
    for round in 0..rounds {
        let config = node.pod_config(&format!("timing{round}"));
        let start = clock::monotonic();
        let pod = node.runtime.ensure_pod(&config).await.unwrap();
        steps[0].push(start.elapsed());
        let container = node.shell(&pod, "main", "sleep 1000");
        let start = clock::monotonic();
        let id = node.runtime.create(&pod, &container).await.unwrap();
        steps[1].push(start.elapsed());
        let start = clock::monotonic();
        node.runtime.start(&id).await.unwrap();
        steps[2].push(start.elapsed());
        let start = clock::monotonic();
        node.runtime.remove_pod(&config.pod.uid).await.unwrap();
        steps[3].push(start.elapsed());
    }
    for (name, times) in ["ensure pod", "create", "start", "remove pod"].iter().zip(&mut steps) {
        times.sort();
        println!("{name}: median {:?}, least {:?}", times[times.len() / 2], times[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures, which mean nothing on a busy machine"]
async fn many_pods_at_once() {
    let node = Node::new().await;
    let configs: Vec<_> = (0..20).map(|n| node.pod_config(&format!("many{n}"))).collect();
    let start = clock::monotonic();
    let starts = configs.iter().map(|config| async {
        let pod = node.runtime.ensure_pod(config).await.unwrap();
        node.start(&pod, &node.shell(&pod, "main", "sleep 1000")).await
    });
    let count = futures::future::join_all(starts).await.len();
    println!("{count} pods at once: {:?} each", start.elapsed() / 20);
    let start = clock::monotonic();
    let removals = configs.iter().map(|config| node.runtime.remove_pod(&config.pod.uid));
    futures::future::try_join_all(removals).await.unwrap();
    println!("their removal: {:?} each", start.elapsed() / 20);
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}
