//! Values that are stored encrypted.

#[path = "encryption/plugin.rs"]
mod plugin;
#[path = "encryption/reload.rs"]
mod reload;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};
use store::Store;
use store::embedded::{Embedded, EmbeddedConfig};
use tokio::net::TcpListener;

use crate::custom::{DEFINITIONS, define, definition, widget};
use crate::server::{Rest, Server};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A store that outlives its servers.
struct Outliving {
    folder: tempfile::TempDir,
    embedded: Embedded,
    store: Store,
    url: String,
}

impl Outliving {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded =
            Embedded::open(EmbeddedConfig::new(folder.path().join("store"))).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = embedded.clone();
        tokio::spawn(
            async move { serving.serve_tcp(listener, None, std::future::pending()).await },
        );
        let store = embedded.store().await.unwrap();
        Self { folder, embedded, store, url }
    }

    /// Writes rows of a configuration, in YAML's flow form.
    fn configure(&self, rows: &str) -> String {
        let path = self.folder.path().join("encryption.yaml");
        let next = self.folder.path().join("next.yaml");
        std::fs::write(&next, configuration(rows)).unwrap();
        std::fs::rename(&next, &path).unwrap();
        format!("--encryption-provider-config={}", path.display())
    }

    async fn server(&self, rows: &str, flags: &[&str]) -> Server {
        let (servers, flag) = (format!("--etcd-servers={}", self.url), self.configure(rows));
        Server::start_with(&[&[servers.as_str(), flag.as_str()], flags].concat()).await
    }

    /// What is stored.
    async fn raw(&self, key: &str) -> Vec<u8> {
        let fetched = self.store.get(Bytes::from(key.to_owned())).await.unwrap();
        fetched.entry.unwrap().value.to_vec()
    }

    #[track_caller]
    fn begins(raw: &[u8], prefix: &str) {
        let start = String::from_utf8_lossy(&raw[..prefix.len().min(raw.len())]);
        assert_eq!(start, prefix);
        let plain =
            raw[prefix.len()..].windows(6).any(|part| part == b"secret" || part == b"c2VjcmV0");
        assert!(!plain || !prefix.starts_with("k8s"), "the value shows");
    }

    async fn stop(self) {
        self.embedded.stop().await.unwrap();
    }
}

fn configuration(rows: &str) -> String {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    format!("{head}resources: {rows}")
}

/// A row of `resources` with a provider of keys: each by its name, which is also its secret.
fn row(resources: &str, provider: &str, keys: &[&str]) -> String {
    let keys = keys.iter().map(|name| {
        let secret = BASE64.encode([name.as_bytes()[1]; 32]);
        format!("{{name: {name}, secret: {secret}}}")
    });
    let keys: Vec<String> = keys.collect();
    format!(
        "[{{resources: [{resources}], providers: [{{{provider}: {{keys: [{}]}}}}, {{identity: {{}}}}]}}]",
        keys.join(", ")
    )
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(testkit::wait::TIMEOUT, waiting).await;
    assert!(waited.is_ok(), "waited in vain for {what}");
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": "secret"}})
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "secret"}})
}

async fn put_again(rest: &Rest, path: &str) -> Value {
    let mut current = rest.get(path).await.expect(200);
    current["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    rest.send("PUT", path, &current).await.expect(200)
}

#[tokio::test]
async fn values_are_stored_encrypted_and_rewritten_with_the_first_key() {
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        let store = Outliving::start().await;
        let (path, key) = (format!("{SECRETS}/s"), "/registry/secrets/default/s");
        let prefix = |name: &str| format!("k8s:enc:{provider}:v1:{name}:");
        let server = store.server(&row("secrets", provider, &["k1"]), &[]).await;
        let rest = server.admin();
        let made = rest.post(SECRETS, &secret("s")).await.expect(201);
        rest.post(MAPS, &map("m")).await.expect(201);
        Outliving::begins(&store.raw(key).await, &prefix("k1"));
        Outliving::begins(&store.raw("/registry/configmaps/default/m").await, "{");
        assert_eq!(rest.get(&path).await.expect(200), made);
        server.stop().await;
        // Another key in front: nothing is written but what is asked for.
        let server = store.server(&row("secrets", provider, &["k2", "k1"]), &[]).await;
        let rest = server.admin();
        assert_eq!(rest.get(&path).await.expect(200), made);
        Outliving::begins(&store.raw(key).await, &prefix("k1"));
        rest.send("PUT", &format!("{path}?dryRun=All"), &made).await.expect(200);
        Outliving::begins(&store.raw(key).await, &prefix("k1"));
        let rewritten = put_again(&rest, &path).await;
        assert_ne!(rewritten["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
        assert_eq!(rewritten["data"], made["data"]);
        Outliving::begins(&store.raw(key).await, &prefix("k2"));
        assert_eq!(put_again(&rest, &path).await, rewritten, "it is current now");
        server.stop().await;
        // The former key has gone.
        let server = store.server(&row("secrets", provider, &["k2"]), &[]).await;
        assert_eq!(server.admin().get(&path).await.expect(200), rewritten);
        server.stop().await;
        store.stop().await;
    }
}

#[tokio::test]
async fn without_its_key_a_value_fails_and_others_do_not() {
    let store = Outliving::start().await;
    let server = store.server(&row("secrets", "aesgcm", &["k1"]), &[]).await;
    let rest = server.admin();
    rest.post(SECRETS, &secret("lost")).await.expect(201);
    server.stop().await;
    let server = store.server(&row("secrets", "aesgcm", &["k2"]), &[]).await;
    let rest = server.admin();
    let why = "Internal error occurred: unable to transform key \"/registry/secrets/default/lost\": \
               no matching key was found for the provided AES transformer";
    let lost = format!("{SECRETS}/lost");
    for (verb, path) in [("GET", lost.as_str()), ("GET", SECRETS), ("DELETE", &lost)] {
        let refused = rest.ask(verb, path, &[], Vec::new()).await.expect(500);
        assert_eq!(refused["message"], why, "{verb} {path}");
        assert_eq!(refused["reason"], "InternalError");
    }
    let listed = rest.get("/api/v1/secrets?watch=true&timeoutSeconds=1").await.expect(500);
    assert_eq!(listed["message"], why);
    rest.send("PUT", &lost, &secret("lost")).await.expect(500);
    rest.post(SECRETS, &secret("lost")).await.expect(409);
    // Others of the kind, other namespaces, other kinds.
    rest.post(SECRETS, &secret("new")).await.expect(201);
    rest.get(&format!("{SECRETS}/new")).await.expect(200);
    rest.get("/api/v1/namespaces/kube-system/secrets").await.expect(200);
    rest.post(MAPS, &map("m")).await.expect(201);
    rest.get(MAPS).await.expect(200);
    assert!(
        rest.get("/metrics")
            .await
            .text
            .contains("apiserver_storage_transformation_operations_total")
    );
    // A value moved to another key is not accepted there.
    let (from, to) = ("/registry/secrets/default/new", "/registry/secrets/default/moved");
    let copied = Bytes::from(store.raw(from).await);
    let moved = store.store.create(Bytes::from(to), copied).await.unwrap();
    assert!(matches!(moved, store::Outcome::Written(_)));
    let refused = rest.get(&format!("{SECRETS}/moved")).await.expect(500);
    let why = format!(
        "Internal error occurred: unable to transform key {to:?}: cipher: message authentication failed"
    );
    assert_eq!(refused["message"], why);
    server.stop().await;
    // Without any configuration.
    let servers = format!("--etcd-servers={}", store.url);
    let server = Server::start_with(&[&servers]).await;
    let refused = server.admin().get(&format!("{SECRETS}/new")).await.expect(500);
    let why = format!(
        "Internal error occurred: unable to transform key {from:?}: identity transformer tried to read encrypted data"
    );
    assert_eq!(refused["message"], why);
    server.stop().await;
    store.stop().await;
}

#[tokio::test]
async fn wildcards_and_custom_resources() {
    let store = Outliving::start().await;
    let first = row("configmaps, widgets.example.com", "secretbox", &["k1"]);
    let second = row("'*.*'", "aesgcm", &["k2"]);
    let rows =
        format!("{}, {}", first.strip_suffix(']').unwrap(), second.strip_prefix('[').unwrap());
    let server = store.server(&rows, &[]).await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    rest.post("/apis/example.com/v1/namespaces/default/widgets", &widget("w", json!({"size": 1})))
        .await
        .expect(201);
    rest.post(MAPS, &map("m")).await.expect(201);
    rest.post(SECRETS, &secret("s")).await.expect(201);
    for (key, prefix) in [
        ("/registry/configmaps/default/m", "k8s:enc:secretbox:v1:k1:"),
        ("/registry/example.com/widgets/default/w", "k8s:enc:secretbox:v1:k1:"),
        ("/registry/secrets/default/s", "k8s:enc:aesgcm:v1:k2:"),
        ("/registry/namespaces/default", "k8s:enc:aesgcm:v1:k2:"),
        (
            "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com",
            "k8s:enc:aesgcm:v1:k2:",
        ),
    ] {
        Outliving::begins(&store.raw(key).await, prefix);
    }
    server.stop().await;
    // All of it is read again at the start.
    let server = store.server(&rows, &[]).await;
    let rest = server.admin();
    assert_eq!(rest.get(DEFINITIONS).await.expect(200)["items"].as_array().unwrap().len(), 1);
    rest.get("/apis/example.com/v1/namespaces/default/widgets/w").await.expect(200);
    server.stop().await;
    store.stop().await;
}

#[tokio::test]
async fn configurations_that_cannot_be_used_are_refused_at_the_start() {
    let store = Outliving::start().await;
    let short =
        "[{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}]}]";
    let masked = format!(
        "[{{resources: ['*.'], providers: [{{identity: {{}}}}]}}, {}",
        row("secrets", "aesgcm", &["k1"]).trim_start_matches('[')
    );
    let first = "[{resources: [secrets], providers: [{kms: {name: k, endpoint: 'unix:///s', cachesize: 1}}]}]";
    for (rows, why) in [
        (
            short,
            "error while parsing file: resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]",
        ),
        (
            &masked,
            "error while building transformers: resource \"secrets\" is masked by earlier rule \"*.\"",
        ),
        (
            first,
            "error while building transformers: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.",
        ),
    ] {
        let refusal = Server::refusal(&[&store.configure(rows)]).await;
        assert_eq!(refusal, format!("--encryption-provider-config: {why}"));
    }
    let refusal = Server::refusal(&["--encryption-provider-config-automatic-reload"]).await;
    assert!(refusal.contains("must be set with --encryption-provider-config"), "{refusal}");
    let refusal = Server::refusal(&["--encryption-provider-config=/nowhere"]).await;
    assert!(refusal.contains("error reading encryption provider configuration file \"/nowhere\""));
    store.stop().await;
}
