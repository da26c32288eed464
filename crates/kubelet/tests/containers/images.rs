//! Pulling, loading, listing and removing images.

use std::collections::BTreeSet;
use std::io::Cursor;

use kubelet::image::{GcPolicy, ImageError, RegistryCredential, SecretSource};

use crate::node::Node;
use crate::registry::{PASSWORD, Registry, USER};
use crate::testimage;

#[tokio::test(flavor = "multi_thread")]
async fn pull_by_tag_and_digest_and_run() {
    let registry = Registry::start(false).await;
    let digest = registry.push("team/app", "v1").await;
    let node = Node::with(|_| {}, std::slice::from_ref(&registry.address)).await;
    let name = format!("{}/team/app:v1", registry.address);
    assert_eq!(node.images.status(&name).await.unwrap(), None);
    let (one, two) = tokio::join!(node.images.pull(&name, &[]), node.images.pull(&name, &[]));
    let image = one.unwrap();
    assert_eq!(image, two.unwrap());
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    let by_digest = format!("{}/team/app@{digest}", registry.address);
    assert_eq!(image.repo_digests, std::slice::from_ref(&by_digest));
    assert_eq!(image.id, testimage::digest(&testimage::registry_image().config));
    assert_eq!(node.images.pull(&by_digest, &[]).await.unwrap(), image);
    assert_eq!(node.images.status(&image.id).await.unwrap().as_ref(), Some(&image));

    let pod = node.pod("pulled").await;
    let mut config = node.shell(&pod, "main", "echo it runs");
    config.image = name.clone();
    let (exit, log) = node.run(&pod, &config).await;
    assert_eq!((exit.exit_code, log.as_str()), (0, "it runs\n"));
    let status = &node.runtime.list_pod(&pod.config.pod.uid).await.unwrap()[0];
    assert_eq!(
        (status.image_id.as_str(), status.image_ref.as_str()),
        (image.id.as_str(), by_digest.as_str())
    );
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();

    node.images.remove(&image.id).await.unwrap();
    node.images.remove(&image.id).await.unwrap();
    assert!(node.images.list().await.unwrap().is_empty());
    assert_eq!(
        node.images.pull(&name, &[]).await.unwrap().id,
        image.id,
        "what was removed can be pulled again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_a_registry() {
    let registry = Registry::start(true).await;
    registry.push("private", "1").await;
    let node = Node::with(|_| {}, std::slice::from_ref(&registry.address)).await;
    let name = format!("{}/private:1", registry.address);
    let credential = |password: &str| RegistryCredential {
        registry: registry.address.clone(),
        username: USER.into(),
        password: password.into(),
        ..RegistryCredential::default()
    };
    let error = node.images.pull(&name, &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    let error = node.images.pull(&name, &[credential("wrong")]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    assert_eq!(error.waiting_reason(), "ErrImagePull");
    assert!(
        error.to_string().contains("authorization failed") && error.to_string().contains(&name),
        "{error}"
    );
    let elsewhere =
        RegistryCredential { registry: "registry.example.com".into(), ..credential(PASSWORD) };
    assert!(
        node.images.pull(&name, &[elsewhere]).await.is_err(),
        "credentials go to their registry only"
    );
    let image =
        node.images.pull(&name, &[credential("wrong"), credential(PASSWORD)]).await.unwrap();
    assert_eq!(image.repo_tags, [name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_on_the_node_is_for_who_could_pull_it() {
    let registry = Registry::start(true).await;
    registry.push("private", "1").await;
    let mut node = Node::with(|_| {}, std::slice::from_ref(&registry.address)).await;
    let name = format!("{}/private:1", registry.address);
    let credential = |namespace: &str, password: &str| RegistryCredential {
        registry: registry.address.clone(),
        username: USER.into(),
        password: password.into(),
        source: Some(SecretSource {
            namespace: namespace.into(),
            name: "pull".into(),
            uid: format!("uid-of-{namespace}"),
        }),
        ..RegistryCredential::default()
    };
    let (own, other) = (credential("a", PASSWORD), credential("b", "wrong"));
    let used = [other.clone(), own.clone()];
    let image = node.images.pull(&name, &used).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            node.restart_kubelet().await;
        }
        for (credentials, expected) in [
            (vec![], true),
            (vec![other.clone()], true),
            (vec![own.clone()], false),
            (vec![credential("c", PASSWORD)], false),
        ] {
            let must = node.images.must_pull(&name, &image, &credentials).await;
            assert_eq!(must, expected, "{credentials:?}, restarted: {restarted}");
        }
    }
    // What is loaded is for everybody, until the kubelet has pulled it.
    node.images.remove(&image.id).await.unwrap();
    assert!(!node.images.must_pull(&name, &image, &[]).await);
}

/// A registry that has another's image, with its own idea of a layer.
async fn impostor(layer: Option<Vec<u8>>) -> String {
    use axum::body::Body;
    use axum::response::IntoResponse;
    let image = testimage::registry_image();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let path = request.uri().path().to_owned();
        let answer = match path.rsplit('/').next().unwrap() {
            "1" => image.manifest.clone().into_response(),
            digest if digest == testimage::digest(&image.config) => {
                image.config.clone().into_response()
            }
            _ => match &layer {
                Some(layer) => layer.clone().into_response(),
                None => {
                    let endless = futures::stream::repeat(Ok::<_, std::convert::Infallible>(vec![
                            0;
                            1 << 16
                        ]));
                    Body::from_stream(endless).into_response()
                }
            },
        };
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_registry_sends_does_not_spoil_another() {
    let registry = Registry::start(false).await;
    registry.push("app", "1").await;
    let layer = testimage::registry_image().layers[0].clone();
    let endless = impostor(None).await;
    let wrong = impostor(Some(vec![7; layer.len()])).await;
    let addresses = [endless.clone(), wrong.clone(), registry.address.clone()];
    let node = Node::with(|_| {}, &addresses).await;
    for (address, text) in [(endless, "is larger than"), (wrong, "unexpected commit digest")] {
        for _ in 0..2 {
            let error = node.images.pull(&format!("{address}/app:1"), &[]).await.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
    node.images.pull(&format!("{}/app:1", registry.address), &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_certificate_is_refused_unless_the_registry_is_insecure() {
    let registry = Registry::start_tls().await;
    registry.push("app", "1").await;
    let name = format!("{}/app:1", registry.address);
    let node = Node::empty().await;
    let error = node.images.pull(&name, &[]).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let node = Node::with(|_| {}, std::slice::from_ref(&registry.address)).await;
    assert_eq!(node.images.pull(&name, &[]).await.unwrap().repo_tags, [name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pulled_says_why() {
    let registry = Registry::start(false).await;
    let digest = registry.push("app", "1").await;
    let node = Node::with(|_| {}, &[registry.address.clone(), "127.0.0.1:1".into()]).await;
    for (image, reason, text) in [
        (format!("{}/app:2", registry.address), "ErrImagePull", "not found"),
        (format!("{}/nothing:1", registry.address), "ErrImagePull", "not found"),
        (
            format!("{}/app@sha256:{}", registry.address, "0".repeat(64)),
            "ErrImagePull",
            "not found",
        ),
        ("127.0.0.1:1/app:1".into(), "ErrImagePull", "onnection refused"),
        ("Not An Image".into(), "InvalidImageName", "couldn't parse image name"),
    ] {
        let error = node.images.pull(&image, &[]).await.unwrap_err();
        assert_eq!(error.waiting_reason(), reason, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(node.images.list().await.unwrap().is_empty());
    assert!(digest.starts_with("sha256:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_both_kinds() {
    let node = Node::empty().await;
    let name = "registry.example.com/oci:2";
    let loaded = node.images.load_archive(Cursor::new(testimage::oci_archive(name))).await.unwrap();
    assert_eq!(loaded, [name]);
    let loaded = node.images.load_archive(Cursor::new(testimage::docker_archive())).await.unwrap();
    assert_eq!(loaded, [testimage::IMAGE]);
    let images = node.images.list().await.unwrap();
    assert_eq!(images.len(), 1, "both hold the same image: {images:?}");
    assert_eq!(images[0].repo_tags, [testimage::IMAGE, name]);
    let zipped = testimage::gzip(&testimage::docker_archive());
    node.images.load_archive(Cursor::new(zipped)).await.unwrap();
    let error = node.images.load_archive(Cursor::new(b"rubbish".to_vec())).await.unwrap_err();
    assert!(matches!(error, ImageError::Archive { .. }), "{error}");
    assert_eq!(std::fs::read_dir(node.root().join("kubelet/tmp")).unwrap().count(), 0);

    let pod = node.pod("oci").await;
    let mut config = node.shell(&pod, "main", "cat /etc/passwd");
    config.image = name.into();
    assert!(node.run(&pod, &config).await.1.starts_with("root:"));
    node.runtime.remove_pod(&pod.config.pod.uid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_spares_what_is_used() {
    let node = Node::new().await;
    let id = node.images.list().await.unwrap()[0].id.clone();
    let always = GcPolicy {
        high_threshold_percent: 0,
        low_threshold_percent: 0,
        minimum_age: std::time::Duration::ZERO,
    };
    let used = BTreeSet::from([id.clone()]);
    let report = node.images.garbage_collect(&always, &used).await.unwrap();
    assert!(report.removed.is_empty() && report.missing_bytes > 0);
    let never =
        GcPolicy { high_threshold_percent: 100, low_threshold_percent: 99, ..always.clone() };
    assert!(
        node.images.garbage_collect(&never, &BTreeSet::new()).await.unwrap().removed.is_empty()
    );
    let report = node.images.garbage_collect(&always, &BTreeSet::new()).await.unwrap();
    assert_eq!(report.removed, [id]);
    assert!(node.images.list().await.unwrap().is_empty());
}
