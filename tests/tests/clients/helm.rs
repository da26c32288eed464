//! Helm, with the chart that `helm create` generates: a Deployment, a Service, a ServiceAccount,
//! and a pod that tests them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use testkit::suite::Fixture;

const IMAGE: &str = "image.repository=skiff.test/testserver,service.port=8080";

struct Helm<'a> {
    fixture: &'a Fixture,
    program: PathBuf,
    /// Where its chart, cache and settings are.
    folder: &'a Path,
}

impl Helm<'_> {
    /// Runs helm; returns its standard output, or its standard error if it fails.
    fn attempt(&self, arguments: &[&str]) -> anyhow::Result<Result<String, String>> {
        let output = Command::new(&self.program)
            .args(["-n", &self.fixture.namespace])
            .args(arguments)
            .current_dir(self.folder)
            .env("HOME", self.folder)
            .env("KUBECONFIG", self.fixture.cluster.kubeconfig())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", self.program.display()))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        })
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.attempt(arguments)?;
        done.map_err(|stderr| anyhow::anyhow!("helm {}: {stderr}", arguments.join(" ")))
    }

    /// Image and number of ready pods of its Deployment.
    fn deployed(&self) -> anyhow::Result<(String, u64)> {
        let text = self.fixture.cluster.kubectl(&[
            "get",
            "deployment",
            "web-demo",
            "-o",
            "json",
            "-n",
            &self.fixture.namespace,
        ])?;
        let value: Value = serde_json::from_str(&text)?;
        let image = value["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
        let ready = value["status"]["readyReplicas"].as_u64();
        Ok((image.unwrap_or_default().to_owned(), ready.unwrap_or_default()))
    }
}

pub async fn helm_installs_and_upgrades(fixture: &Fixture) -> anyhow::Result<()> {
    let python = std::env::var_os("SKIFF_TEST_PYTHON");
    let python = PathBuf::from(python.context("SKIFF_TEST_PYTHON is not set")?);
    let folder = tempfile::tempdir()?;
    let helm = Helm { fixture, program: python.with_file_name("helm"), folder: folder.path() };
    helm.run(&["create", "demo"])?;
    // No registry is reachable.
    let test = folder.path().join("demo/templates/tests/test-connection.yaml");
    let template = std::fs::read_to_string(&test)?;
    let image = template.replace("image: busybox", "image: skiff.test/busybox:1");
    ensure!(image != template, "{template}");
    std::fs::write(&test, image)?;

    let wait = ["--wait", "--timeout", "60s", "--set"];
    let with = |more: &str| format!("{IMAGE},{more}");
    let change = |verb: &str, more: &str| {
        let values = with(more);
        helm.run(&[&[verb, "web", "./demo"], &wait[..], &[values.as_str()]].concat())
    };
    change("install", "image.tag=v1")?;
    ensure!(helm.deployed()? == ("skiff.test/testserver:v1".into(), 1));
    ensure!(helm.run(&["test", "web"])?.contains("Succeeded"));
    change("upgrade", "image.tag=v2,replicaCount=2")?;
    ensure!(helm.deployed()? == ("skiff.test/testserver:v2".into(), 2));

    // An invalid upgrade is rejected, and leaves the objects as they were.
    let wrong = with("image.tag=v2,replicaCount=two");
    let refused = helm.attempt(&["upgrade", "web", "./demo", "--set", &wrong])?;
    let stderr = refused.err().context("replicaCount=two was accepted")?;
    ensure!(
        stderr
            .contains("cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas"),
        "{stderr}"
    );
    ensure!(helm.deployed()? == ("skiff.test/testserver:v2".into(), 2));

    helm.run(&["rollback", "web", "1", "--wait"])?;
    ensure!(helm.deployed()? == ("skiff.test/testserver:v1".into(), 1));
    let history: Value = serde_json::from_str(&helm.run(&["history", "web", "-o", "json"])?)?;
    let statuses: Vec<&str> = history
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|release| release["status"].as_str())
        .collect();
    ensure!(statuses == ["superseded", "superseded", "failed", "deployed"], "{statuses:?}");
    helm.run(&["uninstall", "web", "--wait"])?;
    let left = fixture.cluster.kubectl(&[
        "get",
        "deployments,services,secrets,serviceaccounts",
        "-l",
        "app.kubernetes.io/managed-by=Helm",
        "-o",
        "name",
        "-n",
        &fixture.namespace,
    ])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
