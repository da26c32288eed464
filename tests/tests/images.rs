//! Images: from a registry, by tag and digest, with and without the right password, and loaded
//! from a file.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::process::ExitCode;
use std::sync::OnceLock;
use testkit::registry::{PASSWORD, Registry, USER};
use testkit::suite::Fixture;
use testkit::{Options, manifest, scenarios, suite};
use tests::pods;

/// One without and one with a password; both live as long as the suite.
static OPEN: OnceLock<Registry> = OnceLock::new();
static PRIVATE: OnceLock<Registry> = OnceLock::new();

fn main() -> ExitCode {
    // reqwest needs a TLS provider even for plain HTTP.
    runtime::init("warn");
    let ports = match (Registry::start(false), Registry::start(true)) {
        (Ok(open), Ok(private)) => {
            [OPEN.get_or_init(|| open).port(), PRIVATE.get_or_init(|| private).port()]
        }
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let code = suite::run(
        Options { registry_ports: ports.to_vec(), ..Options::default() },
        &[],
        scenarios![
            images_are_pulled_by_tag_and_by_digest,
            a_missing_tag_is_reported,
            the_right_password_pulls_an_image,
            a_wrong_password_pulls_no_image,
            an_image_is_loaded_from_a_file,
        ],
    );
    for registry in [&OPEN, &PRIVATE] {
        registry.get().into_iter().for_each(Registry::stop);
    }
    code
}

fn registry(of: &'static OnceLock<Registry>) -> anyhow::Result<&'static Registry> {
    of.get().context("the registry has not been started")
}

async fn run_pod(fixture: &Fixture, name: &str, image: &str, secret: bool) -> anyhow::Result<()> {
    run_with(fixture, (name, image), "Always", secret).await
}

async fn run_with(
    fixture: &Fixture,
    (name, image): (&str, &str),
    policy: &str,
    secret: bool,
) -> anyhow::Result<()> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": image, "imagePullPolicy": policy}]},
    });
    if secret {
        pod["spec"]["imagePullSecrets"] = json!([{"name": "registry"}]);
    }
    manifest::create(fixture.cluster.client(), &fixture.namespace, &pod.to_string()).await
}

async fn credentials(fixture: &Fixture, server: &str, password: &str) -> anyhow::Result<()> {
    let config = json!({"auths": {server: {"username": USER, "password": password}}});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()},
    });
    manifest::create(fixture.cluster.client(), &fixture.namespace, &secret.to_string()).await
}

fn pull_failed(pod: &Pod) -> bool {
    matches!(pods::waiting_reason(pod, "main"), "ErrImagePull" | "ImagePullBackOff")
}

async fn images_are_pulled_by_tag_and_by_digest(fixture: &Fixture) -> anyhow::Result<()> {
    let registry = registry(&OPEN)?;
    let archive = fixture.cluster.images().join("testserver-v1.tar");
    let digest = registry.push(&archive, "test/server", "v1").await?;
    let base = format!("{}:{}/test/server", fixture.cluster.gateway(), registry.port());
    run_pod(fixture, "tag", &format!("{base}:v1"), false).await?;
    run_pod(fixture, "digest", &format!("{base}@{digest}"), false).await?;
    for name in ["tag", "digest"] {
        let pod = pods::ready(fixture, name).await?;
        let status = pods::container(&pod, "main").context("it has no status")?;
        ensure!(status.image_id.contains(&digest), "{name}: image id {}", status.image_id);
    }
    Ok(())
}

async fn a_missing_tag_is_reported(fixture: &Fixture) -> anyhow::Result<()> {
    let registry = registry(&OPEN)?;
    let image = format!("{}:{}/test/none:v9", fixture.cluster.gateway(), registry.port());
    run_pod(fixture, "missing", &image, false).await?;
    pods::one(fixture, "missing", "the pull fails", pull_failed).await?;
    Ok(())
}

async fn the_right_password_pulls_an_image(fixture: &Fixture) -> anyhow::Result<()> {
    let registry = registry(&PRIVATE)?;
    let archive = fixture.cluster.images().join("testserver-v1.tar");
    registry.push(&archive, "private/server", "v1").await?;
    let server = format!("{}:{}", fixture.cluster.gateway(), registry.port());
    credentials(fixture, &server, PASSWORD).await?;
    let image = format!("{server}/private/server:v1");
    run_pod(fixture, "private", &image, true).await?;
    pods::ready(fixture, "private").await?;
    // That it is on the node is no reason to give it to those who could not pull it.
    run_with(fixture, ("thief", &image), "IfNotPresent", false).await?;
    run_with(fixture, ("friend", &image), "IfNotPresent", true).await?;
    pods::one(fixture, "thief", "it gets no image", pull_failed).await?;
    pods::ready(fixture, "friend").await?;
    Ok(())
}

async fn a_wrong_password_pulls_no_image(fixture: &Fixture) -> anyhow::Result<()> {
    let registry = registry(&PRIVATE)?;
    let archive = fixture.cluster.images().join("testserver-v1.tar");
    registry.push(&archive, "guarded/server", "v1").await?;
    let server = format!("{}:{}", fixture.cluster.gateway(), registry.port());
    credentials(fixture, &server, "guess").await?;
    run_pod(fixture, "guarded", &format!("{server}/guarded/server:v1"), true).await?;
    pods::one(fixture, "guarded", "the pull fails", pull_failed).await?;
    Ok(())
}

async fn an_image_is_loaded_from_a_file(fixture: &Fixture) -> anyhow::Result<()> {
    let archive = fixture.cluster.images().join("testserver-v2.tar");
    let file = archive.to_string_lossy().into_owned();
    fixture.cluster.skiff(&["image", "load", &file])?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: loaded}\nspec:\n  containers:\n  - {name: \
               main, image: 'skiff.test/testserver:v2', imagePullPolicy: Never}\n";
    manifest::create(fixture.cluster.client(), &fixture.namespace, pod).await?;
    pods::ready(fixture, "loaded").await?;
    Ok(())
}
