//! Both servers behind sockets, asked the same things.

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
    /// Two fresh servers.
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

    /// Asks both; they must answer the same. Returns the answer.
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

    /// Asks both; both must refuse, the same way, with this in the text.
    pub async fn refused(&mut self, call: Call, text: &str) {
        match self.same(call.clone()).await {
            Answer::Refused(_, message) => {
                assert!(message.contains(text), "{message:?} lacks {text:?}: {call:?}")
            }
            answer => panic!("{call:?} was not refused but {answer:?}"),
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let server = self.server.clone();
        tokio::spawn(async move { server.stop().await });
    }
}
