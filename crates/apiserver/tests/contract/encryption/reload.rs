//! Configurations that change while the server runs.

use super::*;

const RELOADS: &str = "--encryption-provider-config-automatic-reload";

/// Waits until a reload has succeeded, or failed, so many times.
async fn reloaded(rest: &Rest, status: &str, count: usize) {
    let line = format!(
        "apiserver_encryption_config_controller_automatic_reloads_total{{status=\"{status}\"}} {count}\n"
    );
    until(&line, async || rest.get("/metrics").await.text.contains(&line)).await;
}

#[tokio::test]
async fn changes_of_the_file_are_used() {
    let store = Outliving::start().await;
    let key = "/registry/secrets/default/s";
    let server = store.server(&row("secrets", "aesgcm", &["k1"]), &[RELOADS]).await;
    let rest = server.admin();
    assert_eq!(rest.get("/readyz/kms-providers").await.code, 200);
    rest.post(SECRETS, &secret("s")).await.expect(201);
    store.configure(&row("secrets", "secretbox", &["k2"]).replace(
        "{identity",
        &format!(
            "{{aesgcm: {{keys: [{{name: k1, secret: {}}}]}}}}, {{identity",
            BASE64.encode([b'1'; 32])
        ),
    ));
    reloaded(&rest, "success", 1).await;
    put_again(&rest, &format!("{SECRETS}/s")).await;
    Outliving::begins(&store.raw(key).await, "k8s:enc:secretbox:v1:k2:");
    // What cannot be used changes nothing.
    store.configure("[]");
    reloaded(&rest, "failure", 1).await;
    rest.post(SECRETS, &secret("t")).await.expect(201);
    Outliving::begins(&store.raw("/registry/secrets/default/t").await, "k8s:enc:secretbox:v1:k2:");
    // A key that comes makes readable what another server has written.
    let path = store.folder.path().join("other.yaml");
    std::fs::write(&path, configuration(&row("secrets", "secretbox", &["k3", "k2"]))).unwrap();
    let (servers, configured) = (
        format!("--etcd-servers={}", store.url),
        format!("--encryption-provider-config={}", path.display()),
    );
    let other = Server::start_with(&[&servers, &configured]).await;
    other.admin().post(SECRETS, &secret("u")).await.expect(201);
    let hidden = format!("{SECRETS}/u");
    rest.get(&hidden).await.expect(500);
    rest.get(SECRETS).await.expect(500);
    store.configure(&row("secrets", "secretbox", &["k2", "k3"]));
    reloaded(&rest, "success", 2).await;
    until("the hidden one", async || rest.get(SECRETS).await.code == 200).await;
    let listed = rest.get(SECRETS).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    // The cache has it as well: a watch begins with it.
    let found = async || {
        let path = format!("{SECRETS}?watch=true&timeoutSeconds=1&resourceVersion=0");
        rest.get(&path).await.text.matches("ADDED").count() == 3
    };
    until("a watch of all", found).await;
    other.stop().await;
    server.stop().await;
    store.stop().await;
}
