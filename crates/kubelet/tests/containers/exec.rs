//! Commands in containers.

use std::time::Duration;

use kubelet::containers::{ExecRequest, ExecSession, RuntimeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{Node, PATIENCE};

fn command(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_with_streams_codes_and_limits() {
    let node = Node::new().await;
    let pod = node.pod("exec").await;
    let id = node.start(&pod, &node.shell(&pod, "main", "echo ready; sleep 1000")).await;
    let run = async |script: &str| {
        node.runtime.exec_sync(&id, &command(script), Some(PATIENCE), 1000).await.unwrap()
    };
    let output = run("echo out; echo err >&2; exit 7").await;
    assert_eq!(
        (output.exit_code, &*output.stdout, &*output.stderr),
        (7, &b"out\n"[..], &b"err\n"[..])
    );
    let output = run("echo $FROM_IMAGE; kill -9 $$").await;
    assert_eq!((output.exit_code, &*output.stdout), (137, &b"yes\n"[..]));

    let limited = node
        .runtime
        .exec_sync(&id, &command("yes | head -c 1000000"), Some(PATIENCE), 10)
        .await
        .unwrap();
    assert_eq!((limited.exit_code, limited.stdout.len()), (0, 10));

    let error = node
        .runtime
        .exec_sync(&id, &command("sleep 1000"), Some(Duration::from_millis(300)), 10)
        .await
        .unwrap_err();
    assert!(matches!(error, RuntimeError::ExecTimeout { .. }), "{error}");
    let error = node.runtime.exec_sync(&id, &["/no/such".into()], None, 10).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Exec { .. }), "{error:?}");
    assert!(error.to_string().contains("no such file or directory"), "{error}");

    let many = (0..8).map(|n| {
        let (runtime, id) = (&node.runtime, &id);
        async move {
            runtime
                .exec_sync(id, &command(&format!("echo {n}")), Some(PATIENCE), 10)
                .await
                .unwrap()
                .stdout
        }
    });
    let many = futures::future::join_all(many).await;
    for (n, stdout) in many.into_iter().enumerate() {
        assert_eq!(stdout, format!("{n}\n").into_bytes());
    }
    node.runtime.kill(&id, 9, true).await.unwrap();
    node.wait_exit(&id).await;
    let error = node.runtime.exec_sync(&id, &command("true"), None, 10).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NotRunning { .. }), "{error:?}");
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
    assert_eq!(node.pod_mounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_its_end() {
    let node = Node::new().await;
    let pod = node.pod("stdin").await;
    let id = node.start(&pod, &node.shell(&pod, "main", "sleep 1000")).await;
    let request = ExecRequest {
        command: command("cat; echo end"),
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let ExecSession { stdin, stdout, mut control, .. } =
        node.runtime.exec(&id, request).await.unwrap();
    let data = vec![b'x'; 300_000];
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        let mut stdin = stdin.unwrap();
        stdin.write_all(&sent).await.unwrap();
    });
    let mut back = Vec::new();
    let mut stdout = stdout.unwrap();
    let (read, code) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(stdout.read_to_end(&mut back), control.wait())
    })
    .await
    .expect("cat ends with its input");
    read.unwrap();
    writer.await.unwrap();
    assert_eq!(code.unwrap(), 0);
    assert_eq!(back.len(), data.len() + 4);
    assert!(back.ends_with(b"xend\n"));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size() {
    let node = Node::new().await;
    let pod = node.pod("tty").await;
    let id = node.start(&pod, &node.shell(&pod, "main", "sleep 1000")).await;
    let request = ExecRequest {
        command: vec!["/bin/sh".into()],
        stdin: true,
        stdout: true,
        tty: true,
        size: Some((80, 24)),
        ..ExecRequest::default()
    };
    let ExecSession { stdin, stdout, stderr, mut control } =
        node.runtime.exec(&id, request).await.unwrap();
    assert!(stderr.is_none());
    let mut stdin = stdin.unwrap();
    let mut stdout = stdout.unwrap();
    let mut text = String::new();
    stdin.write_all(b"stty size\n").await.unwrap();
    let first = async {
        while !text.contains("24 80") {
            let mut piece = [0; 100];
            let count = stdout.read(&mut piece).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    };
    let first = tokio::time::timeout(PATIENCE, first).await;
    assert!(first.is_ok(), "{text:?}");
    control.resize(101, 33).await.unwrap();
    stdin.write_all(b"stty size; echo $TERM; exit 5\n").await.unwrap();
    let (_, code) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(stdout.read_to_string(&mut text), control.wait())
    })
    .await
    .expect("the shell ends");
    assert_eq!(code.unwrap(), 5);
    assert!(text.contains("33 101") && text.contains("xterm"), "{text:?}");
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_command_is_killed() {
    let node = Node::new().await;
    let pod = node.pod("abandon").await;
    let id = node.start(&pod, &node.shell(&pod, "main", "sleep 1000")).await;
    let script = "trap '' TERM; echo $$ > /tmp/pid; echo go; sleep 2000";
    let request = ExecRequest { command: command(script), stdout: true, ..ExecRequest::default() };
    let mut session = node.runtime.exec(&id, request).await.unwrap();
    let mut go = [0; 3];
    session.stdout.as_mut().unwrap().read_exact(&mut go).await.unwrap();
    drop(session);
    let gone = async {
        while node
            .runtime
            .exec_sync(&id, &command("kill -0 $(cat /tmp/pid)"), Some(PATIENCE), 100)
            .await
            .unwrap()
            .exit_code
            == 0
        {}
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the command is killed");
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}
