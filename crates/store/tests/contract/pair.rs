//! Both servers behind sockets, for sending the same requests to each.

use store::embedded::{Embedded, EmbeddedConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    backend::Etcd,
    raw::{Answer, Call, Raw},
};

pub struct Pair {
    pub etcd: Raw,
    pub embedded: Raw,
    server: Embedded,
    _process: Etcd,
    _directory: TempDir,
}

impl Pair {
    /// Starts two empty servers.
    pub async fn start() -> Pair {
        let process = Etcd::start();
        let directory = TempDir::with_prefix("skiff-store-pair-").unwrap();
        let server = Embedded::open(EmbeddedConfig::new(directory.path())).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = server.clone();
        tokio::spawn(
            async move { serving.serve_tcp(listener, None, std::future::pending()).await },
        );
        Pair {
            etcd: Raw::connect(&process.url).await,
            embedded: Raw::connect(&url).await,
            server,
            _process: process,
            _directory: directory,
        }
    }

    /// Sends a request to both; the responses must be equal. Returns the response.
    pub async fn same(&mut self, call: Call) -> Answer {
        let (expected, actual) =
            tokio::join!(self.etcd.call(call.clone()), self.embedded.call(call.clone()));
        assert_eq!(actual, expected, "embedded (left) and etcd (right) differ about {call:?}");
        expected
    }

    pub async fn all_same(&mut self, calls: impl IntoIterator<Item = Call>) {
        for call in calls {
            self.same(call).await;
        }
    }

    /// Sends a request to both; both must reject it with the same error, whose message contains
    /// `text`.
    pub async fn rejected(&mut self, call: Call, text: &str) {
        match self.same(call.clone()).await {
            Answer::Rejected(_, message) => {
                assert!(message.contains(text), "{message:?} lacks {text:?}: {call:?}")
            }
            answer => panic!("{call:?} was not rejected: {answer:?}"),
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let server = self.server.clone();
        tokio::spawn(async move { server.stop().await });
    }
}
