//! Debian's `etcdctl` against the TCP socket.

use std::process::Stdio;

use futures::FutureExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::Command,
};

use crate::{b, folder, open};

fn etcdctl(endpoint: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).kill_on_drop(true);
    command
}

/// Runs etcdctl, which must succeed, and returns its standard output.
async fn run(endpoint: &str, arguments: &[&str], input: &str) -> String {
    let mut child = etcdctl(endpoint)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcdctl is not installed: this test needs Debian's `etcd-client` (apt-get install etcd-client)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "etcdctl {arguments:?}: {stdout}{stderr}");
    stdout.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_over_tcp() {
    let folder = folder();
    let (embedded, store) = open(&folder).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let serving = embedded.clone();
    tokio::spawn(async move { serving.serve_tcp(listener, None, std::future::pending()).await });
    let ctl = async |arguments: &[&str]| run(&endpoint, arguments, "").await;

    assert_eq!(ctl(&["put", "/a", "1"]).await, "OK\n");
    assert_eq!(ctl(&["get", "/a"]).await, "/a\n1\n");
    assert_eq!(store.get(b("/a")).await.unwrap().entry.unwrap().value, b("1"));
    ctl(&["put", "/b", "2"]).await;
    assert_eq!(
        ctl(&["get", "--prefix", "/", "--keys-only", "--order=DESCEND"]).await,
        "/b\n\n/a\n\n"
    );
    let txn = "value(\"/a\") = \"1\"\n\nput /a changed\nget /a\n\nget /b\n\n";
    assert_eq!(run(&endpoint, &["txn"], txn).await, "SUCCESS\n\nOK\n\n/a\nchanged\n");
    let mut watch =
        etcdctl(&endpoint).args(["watch", "--rev=2", "/a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(watch.stdout.take().unwrap()).lines();
    for expected in ["PUT", "/a", "1", "PUT", "/a", "changed"] {
        assert_eq!(seen.next_line().await.unwrap().unwrap(), expected);
    }
    let granted = ctl(&["lease", "grant", "300"]).await;
    let lease = granted.split_whitespace().nth(1).unwrap();
    ctl(&["put", "/leased", "x", &format!("--lease={lease}")]).await;
    assert!(
        ctl(&["lease", "timetolive", "--keys", lease]).await.contains("attached keys([/leased])")
    );
    assert!(ctl(&["lease", "keep-alive", "--once", lease]).await.contains("TTL(300)"));
    assert!(ctl(&["lease", "revoke", lease]).await.contains("revoked"));
    assert_eq!(ctl(&["get", "/leased"]).await, "");
    assert_eq!(ctl(&["del", "/b"]).await, "1\n");
    assert!(ctl(&["compaction", "--physical", "4"]).await.contains("compacted revision 4"));
    assert!(ctl(&["defrag"]).await.contains("Finished defragmenting"));
    assert!(ctl(&["endpoint", "status"]).await.contains(&endpoint));
    assert!(ctl(&["endpoint", "health"]).now_or_never().is_none());
    assert!(ctl(&["member", "list"]).await.contains(&format!("http://{endpoint}")));
    assert_eq!(ctl(&["alarm", "list"]).await, "");
    let saved = folder.path().join("saved");
    ctl(&["snapshot", "save", saved.to_str().unwrap()]).await;
    let restored = crate::folder();
    store::embedded::restore(&saved, restored.path()).unwrap();
    let refused = etcdctl(&endpoint).args(["user", "list"]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Unimplemented"), "{refused:?}");
}
