//! Keys that are held by a plugin.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rpc::kms_v2 as pb;
use rpc::kms_v2::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;

/// Encrypts by adding the length of its key's name.
#[derive(Clone)]
struct Plugin {
    key: Arc<Mutex<String>>,
    silent: Arc<AtomicBool>,
    decryptions: Arc<AtomicUsize>,
    /// Keys that it does not have any more.
    lost: Arc<Mutex<Vec<String>>>,
}

impl Plugin {
    fn start(socket: &PathBuf) -> (Self, tokio::task::JoinHandle<()>) {
        let plugin = Self {
            key: Arc::new(Mutex::new("a".to_owned())),
            silent: Arc::default(),
            decryptions: Arc::default(),
            lost: Arc::default(),
        };
        (plugin.clone(), plugin.serve(socket))
    }

    fn serve(&self, socket: &PathBuf) -> tokio::task::JoinHandle<()> {
        std::fs::remove_file(socket).ok();
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let service = KeyManagementServiceServer::new(self.clone());
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        })
    }

    async fn answer(&self) {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

fn shifted(bytes: &[u8], by: u8) -> Vec<u8> {
    bytes.iter().map(|byte| byte.wrapping_add(by)).collect()
}

#[tonic::async_trait]
impl KeyManagementService for Plugin {
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.answer().await;
        let key_id = self.key.lock().clone();
        Ok(Response::new(pb::StatusResponse {
            version: "v2".to_owned(),
            healthz: "ok".to_owned(),
            key_id,
        }))
    }

    async fn encrypt(
        &self,
        request: Request<pb::EncryptRequest>,
    ) -> Result<Response<pb::EncryptResponse>, Status> {
        self.answer().await;
        let key_id = self.key.lock().clone();
        let by = u8::try_from(key_id.len()).unwrap();
        let annotations = [("by.example.com".to_owned(), vec![by])].into();
        let ciphertext = shifted(&request.get_ref().plaintext, by);
        Ok(Response::new(pb::EncryptResponse { ciphertext, key_id, annotations }))
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        self.answer().await;
        let request = request.into_inner();
        if self.lost.lock().contains(&request.key_id) {
            return Err(Status::not_found("no such key"));
        }
        self.decryptions.fetch_add(1, Ordering::SeqCst);
        let by = request.annotations["by.example.com"][0];
        Ok(Response::new(pb::DecryptResponse {
            plaintext: shifted(&request.ciphertext, 0u8.wrapping_sub(by)),
        }))
    }
}

fn rows(socket: &std::path::Path) -> String {
    format!(
        "[{{resources: [secrets], providers: [{{kms: {{apiVersion: v2, name: kp, endpoint: 'unix://{}', timeout: 1s}}}}, {{identity: {{}}}}]}}]",
        socket.display()
    )
}

#[tokio::test]
async fn a_plugin_encrypts_seeds_and_its_key_may_change() {
    let store = Outliving::start().await;
    let socket = store.folder.path().join("kms.sock");
    let (plugin, serving) = Plugin::start(&socket);
    let key = "/registry/secrets/default/s";
    let server = store.server(&rows(&socket), &[]).await;
    let rest = server.admin();
    assert_eq!(rest.get("/healthz/kms-providers").await.code, 200);
    assert_eq!(rest.get("/livez/kms-providers").await.code, 404);
    rest.post(SECRETS, &secret("s")).await.expect(201);
    rest.post(SECRETS, &secret("t")).await.expect(201);
    Outliving::begins(&store.raw(key).await, "k8s:enc:kms:v2:kp:");
    rest.get(SECRETS).await.expect(200);
    assert_eq!(plugin.decryptions.load(Ordering::SeqCst), 0, "the own seed is known");
    server.stop().await;
    // One call for all values of a seed. Another key of the plugin: values are stale.
    *plugin.key.lock() = "other".to_owned();
    let server = store.server(&rows(&socket), &[]).await;
    let rest = server.admin();
    let before = rest.get(&format!("{SECRETS}/s")).await.expect(200);
    assert_eq!(plugin.decryptions.load(Ordering::SeqCst), 1);
    let after = put_again(&rest, &format!("{SECRETS}/s")).await;
    assert_ne!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    assert_eq!(put_again(&rest, &format!("{SECRETS}/s")).await, after);
    server.stop().await;
    // The plugin has lost the first key: only what it was used for fails.
    plugin.lost.lock().push("a".to_owned());
    let server = store.server(&rows(&socket), &[]).await;
    let rest = server.admin();
    rest.get(&format!("{SECRETS}/s")).await.expect(200);
    let refused = rest.get(&format!("{SECRETS}/t")).await.expect(500);
    let why = "Internal error occurred: unable to transform key \"/registry/secrets/default/t\": \
               failed to decrypt DEK, error: rpc error: code = NotFound desc = no such key";
    assert_eq!(refused["message"], why);
    plugin.lost.lock().clear();
    until("the key", async || rest.get(SECRETS).await.code == 200).await;
    server.stop().await;
    serving.abort();
    store.stop().await;
}

#[tokio::test]
async fn a_silent_plugin_holds_up_only_who_needs_it() {
    let store = Outliving::start().await;
    let socket = store.folder.path().join("kms.sock");
    let (plugin, serving) = Plugin::start(&socket);
    let server = store.server(&rows(&socket), &[]).await;
    server.admin().post(SECRETS, &secret("s")).await.expect(201);
    server.stop().await;
    plugin.silent.store(true, Ordering::SeqCst);
    let begun = clock::instant();
    let server = store.server(&rows(&socket), &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "the start waited");
    let rest = server.admin();
    assert_eq!(rest.get("/readyz/kms-providers").await.code, 500);
    assert_eq!(rest.get("/livez").await.code, 200);
    let refused = rest.post(SECRETS, &secret("t")).await.expect(500);
    assert_eq!(refused["message"], "Internal error occurred: got unexpected nil transformer");
    rest.get(&format!("{SECRETS}/s")).await.expect(500);
    let begun = clock::instant();
    for number in 0..20 {
        rest.post(MAPS, &map(&format!("m{number}"))).await.expect(201);
        rest.get(&format!("{MAPS}/m{number}")).await.expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "others waited");
    plugin.silent.store(false, Ordering::SeqCst);
    until("its answers", async || rest.get(SECRETS).await.code == 200).await;
    server.stop().await;
    serving.abort();
    store.stop().await;
}
