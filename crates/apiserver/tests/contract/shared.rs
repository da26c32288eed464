//! Two apiservers on one store, the second behind a proxy that holds back its watches and loses
//! answers.

#[path = "shared/incarnations.rs"]
mod incarnations;
#[path = "shared/kinds.rs"]
mod kinds;
#[path = "shared/proxy.rs"]
mod proxy;
#[path = "shared/register.rs"]
mod register;
#[path = "shared/stale.rs"]
mod stale;

use store::embedded::{Embedded, EmbeddedConfig};
use tokio::net::TcpListener;

use crate::server::Server;
pub use proxy::{Loss, StoreProxy};

pub struct Pair {
    pub first: Server,
    pub second: Server,
    /// Between the second apiserver and the store.
    pub proxy: StoreProxy,
    store: Embedded,
    _folder: tempfile::TempDir,
}

impl Pair {
    pub async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(EmbeddedConfig::new(folder.path())).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = store.clone();
        tokio::spawn(
            async move { serving.serve_tcp(listener, None, std::future::pending()).await },
        );
        let proxy = StoreProxy::start(&url).await;
        let on = async |url: &str| {
            let servers = format!("--etcd-servers={url}");
            let mut flags = flags.to_vec();
            flags.push(&servers);
            Server::start_with(&flags).await
        };
        let first = on(&url).await;
        let second = on(&proxy.url).await;
        Self { first, second, proxy, store, _folder: folder }
    }

    pub async fn stop(self) {
        self.proxy.hold(false);
        self.first.stop().await;
        self.second.stop().await;
        self.store.stop().await.unwrap();
    }
}
