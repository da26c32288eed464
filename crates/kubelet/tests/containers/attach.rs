//! Attaching to containers: standard input and terminals.

use futures::StreamExt;
use kubelet::containers::{AttachRequest, AttachSession, ContainerConfig, RuntimeError};
use kubelet::logs::LogStream;
use tokio::io::AsyncWriteExt;

use crate::node::{Node, PATIENCE};

const ALL: AttachRequest = AttachRequest { stdin: true, stdout: true, stderr: true };

/// Reads an attached container's output until it has written `text`.
async fn read_until(session: &mut AttachSession, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let next =
            tokio::time::timeout(PATIENCE, session.output.next()).await.expect("output comes");
        let (_, bytes) = next.expect("the container runs").unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn input_without_a_terminal_survives_the_kubelet() {
    let mut node = Node::new().await;
    let pod = node.pod("stdin").await;
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..node.shell(
            &pod,
            "main",
            "echo ready; while read line; do echo got $line; echo err >&2; done; echo end",
        )
    };
    let id = node.start(&pod, &config).await;
    node.wait_log(&id, "ready").await;
    node.restart_kubelet().await;
    let mut session = node.runtime.attach(&id, ALL).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    read_until(&mut session, "got one\n").await;
    // The first client's end is the end of the input.
    drop(stdin);
    assert_eq!(node.wait_exit(&id).await.exit_code, 0);
    let mut rest = String::new();
    while let Some(item) =
        tokio::time::timeout(PATIENCE, session.output.next()).await.expect("it ends")
    {
        let (stream, bytes) = item.unwrap();
        if stream == LogStream::Stdout {
            rest.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(rest.ends_with("end\n"), "{rest:?}");
    assert_eq!(
        node.log(&id).await.lines().filter(|line| *line != "err").collect::<Vec<_>>(),
        ["ready", "got one", "end"]
    );
    assert!(matches!(node.runtime.attach(&id, ALL).await, Err(RuntimeError::NotRunning { .. })));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_with_input() {
    let node = Node::new().await;
    let pod = node.pod("tty").await;
    let config = ContainerConfig {
        stdin: true,
        tty: true,
        ..node.shell(&pod, "main", "echo ready; exec sh")
    };
    let id = node.start(&pod, &config).await;
    node.wait_log(&id, "ready").await;
    let mut session = node.runtime.attach(&id, ALL).await.unwrap();
    node.runtime.resize_tty(&id, 90, 20).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"stty size\n").await.unwrap();
    read_until(&mut session, "20 90").await;
    drop(stdin);
    // Without stdinOnce the input stays open for the next client.
    let mut again = node.runtime.attach(&id, ALL).await.unwrap();
    again.stdin.take().unwrap().write_all(b"exit 4\n").await.unwrap();
    assert_eq!(node.wait_exit(&id).await.exit_code, 4);
    assert!(node.log(&id).await.contains("20 90"));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}
