//! Logs as containers really write them.

use kubelet::logs::{LogQuery, LogStream};

use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn rotation_loses_nothing() {
    let node = Node::with_logs(|logs| {
        logs.max_size_bytes = 64 << 10;
        logs.max_files = 20;
    })
    .await;
    let pod = node.pod("rotate").await;
    let id = node.start(&pod, &node.shell(&pod, "main", "seq 1 12000; echo last >&2")).await;
    let followed = node.log(&id).await;
    let read = node.read_log(&id, LogQuery::default()).await;
    assert!(followed == read, "{} bytes followed, {} read", followed.len(), read.len());
    let numbers: Vec<u32> = read.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers, (1..=12000).collect::<Vec<u32>>());
    let directory =
        node.runtime.status(&id).await.unwrap().log_path.parent().unwrap().to_path_buf();
    assert!(std::fs::read_dir(directory).unwrap().count() > 3, "it was rotated");
    let query =
        LogQuery { tail_lines: Some(3000), stream: Some(LogStream::Stdout), ..LogQuery::default() };
    let tail = node.read_log(&id, query).await;
    assert_eq!((tail.lines().count(), tail.lines().next()), (3000, Some("9001")));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_and_one_without_an_end() {
    let node = Node::new().await;
    let pod = node.pod("lines").await;
    let id = node
        .start(
            &pod,
            &node.shell(&pod, "main", "head -c 200000 /dev/zero | tr '\\0' x; echo; echo -n open"),
        )
        .await;
    let log = node.log(&id).await;
    assert_eq!(log, format!("{}\nopen\n", "x".repeat(200_000)));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}
