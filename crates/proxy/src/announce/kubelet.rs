//! Whether the node's kubelet runs: a node without one must not attract traffic.
//!
//! A connection to its health endpoint is held, which the kernel closes when the process ends, so
//! nothing is polled while it runs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a kubelet may take to restart.
const RESTART: Duration = Duration::from_millis(800);
/// The pause between attempts to connect.
const RETRY: Duration = Duration::from_millis(100);
/// How long one that ended must run before it counts again, in case it keeps ending.
const STABLE: Duration = Duration::from_secs(2);

/// Keeps `runs` up to date; never returns.
pub async fn watch(address: SocketAddr, runs: watch::Sender<bool>) {
    let mut has_ended = false;
    loop {
        let mut connection = connect(address).await;
        if has_ended {
            tokio::select! {
                () = sleep(STABLE) => {}
                () = closed(&mut connection) => continue,
            }
        }
        runs.send_replace(true);
        loop {
            closed(&mut connection).await;
            match tokio::time::timeout(RESTART, connect(address)).await {
                Ok(again) => connection = again,
                Err(_) => break,
            }
        }
        tracing::warn!(%address, "the kubelet does not run");
        runs.send_replace(false);
        has_ended = true;
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address).await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::debug!(%address, %error, "no connection to the kubelet");
                sleep(RETRY).await;
            }
        }
    }
}

/// Waits until the other side closes the connection, or its process ends.
async fn closed(connection: &mut TcpStream) {
    let mut byte = [0];
    while matches!(connection.read(&mut byte).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_kubelet_may_restart_but_not_stay_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut runs) = watch::channel(false);
        let task = tokio::spawn(watch(address, sender));
        let (first, _) = listener.accept().await.unwrap();
        runs.wait_for(|runs| *runs).await.unwrap();
        // It restarts in time.
        drop(first);
        let (second, _) = listener.accept().await.unwrap();
        assert!(*runs.borrow());
        // It ends for good.
        drop((second, listener));
        runs.wait_for(|runs| !*runs).await.unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let before = clock::instant();
        let (_third, _) = listener.accept().await.unwrap();
        runs.wait_for(|runs| *runs).await.unwrap();
        assert!(before.elapsed() >= STABLE);
        task.abort();
    }
}
