//! Helm, with the chart that `helm create` generates: a Deployment, a Service, a ServiceAccount,
//! and a pod that tests them. Added to it are hooks, and a custom kind with an object of it. Helm 3
//! sends patches, Helm 4 applies on the server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use testkit::suite::Fixture;
use testkit::tools;

const IMAGE: &str = "image.repository=skiff.test/testserver,service.port=8080";

/// Files that are added to the chart.
const ADDED: [(&str, &str); 3] = [
    (
        "crds/ship.yaml",
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.NAMESPACE.example.com}
spec:
  group: NAMESPACE.example.com
  names: {plural: ships, singular: ship, kind: Ship}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {crew: {type: integer, default: 4}}}
"#,
    ),
    (
        "templates/ship.yaml",
        r#"
apiVersion: NAMESPACE.example.com/v1
kind: Ship
metadata: {name: one}
spec: { {{- with .Values.crew }}crew: {{ . }}{{ end -}} }
"#,
    ),
    (
        "templates/hooks.yaml",
        r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: before-{{ .Release.Revision }}
  annotations: {helm.sh/hook: "pre-install,pre-upgrade,pre-rollback", helm.sh/hook-delete-policy: hook-succeeded}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: skiff.test/busybox:1, command: ["true"]}]
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: after
  annotations: {helm.sh/hook: "post-install", helm.sh/hook-weight: "5"}
data: {revision: "{{ .Release.Revision }}"}
"#,
    ),
];

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

    /// Image and number of ready pods of its Deployment, once the pods before have gone: Helm does not
    /// wait for that.
    fn deployed(&self) -> anyhow::Result<(String, u64)> {
        let namespace = &self.fixture.namespace;
        let rollout = ["rollout", "status", "deployment/web-demo", "--timeout=60s"];
        self.fixture.cluster.kubectl(&[&rollout[..], &["-n", namespace]].concat())?;
        let text = self.fixture.cluster.kubectl(&[
            "get",
            "deployment",
            "web-demo",
            "-o",
            "json",
            "-n",
            namespace,
        ])?;
        let value: Value = serde_json::from_str(&text)?;
        let image = value["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
        let ready = value["status"]["readyReplicas"].as_u64();
        Ok((image.unwrap_or_default().to_owned(), ready.unwrap_or_default()))
    }
}

pub async fn helm_3_installs_and_upgrades(fixture: &Fixture) -> anyhow::Result<()> {
    let refused = "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas";
    installs_and_upgrades(fixture, "helm", refused)
}

pub async fn helm_4_installs_and_upgrades(fixture: &Fixture) -> anyhow::Result<()> {
    let python = std::env::var_os("SKIFF_TEST_PYTHON").unwrap_or_default();
    if !PathBuf::from(python).with_file_name("helm-4").exists() {
        return tools::missing("helm", "there is no Helm 4 for this machine");
    }
    let refused = ".spec.replicas: expected numeric (int or float), got string";
    installs_and_upgrades(fixture, "helm-4", refused)
}

/// `refused`: what is wrong with replicas that are no number.
fn installs_and_upgrades(fixture: &Fixture, program: &str, refused: &str) -> anyhow::Result<()> {
    let python = std::env::var_os("SKIFF_TEST_PYTHON");
    let python = PathBuf::from(python.context("SKIFF_TEST_PYTHON is not set")?);
    let folder = tempfile::tempdir()?;
    let helm = Helm { fixture, program: python.with_file_name(program), folder: folder.path() };
    helm.run(&["create", "demo"])?;
    // No registry is reachable.
    let test = folder.path().join("demo/templates/tests/test-connection.yaml");
    let template = std::fs::read_to_string(&test)?;
    let image = template.replace("image: busybox", "image: skiff.test/busybox:1");
    ensure!(image != template, "{template}");
    std::fs::write(&test, image)?;
    for (name, text) in ADDED {
        let path = folder.path().join("demo").join(name);
        std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        std::fs::write(path, text.replace("NAMESPACE", &fixture.namespace))?;
    }

    let wait = ["--wait", "--timeout", "60s", "--set"];
    let with = |more: &str| format!("{IMAGE},{more}");
    let change = |verb: &str, more: &str| {
        let values = with(more);
        helm.run(&[&[verb, "web", "./demo"], &wait[..], &[values.as_str()]].concat())
    };
    change("install", "image.tag=v1")?;
    ensure!(helm.deployed()? == ("skiff.test/testserver:v1".into(), 1));
    ensure!(helm.run(&["test", "web"])?.contains("Succeeded"));
    ensure!(helm.run(&["list", "-q"])?.trim() == "web");
    let manifest = helm.run(&["get", "manifest", "web"])?;
    ensure!(manifest.contains("kind: Ship"), "{manifest}");
    let get = |what: &str, path: &str| {
        let namespace = &fixture.namespace;
        let path = format!("jsonpath={path}");
        fixture.cluster.kubectl(&["get", what, "-o", &path, "-n", namespace, "--ignore-not-found"])
    };
    let ships = format!("ships.{}.example.com", fixture.namespace);
    let ship = format!("{ships}/one");
    ensure!(get(&ship, "{.spec.crew}")? == "4");
    // Each hook has run before what follows it; the one that is to be deleted has been.
    ensure!(get("configmap/after", "{.data.revision}")? == "1");
    ensure!(get("jobs", "{.items}")?.is_empty());
    change("upgrade", "image.tag=v2,replicaCount=2,crew=7")?;
    ensure!(get(&ship, "{.spec.crew}")? == "7");
    ensure!(helm.deployed()? == ("skiff.test/testserver:v2".into(), 2));

    // An invalid upgrade is rejected, and leaves the objects as they were.
    let wrong = with("image.tag=v2,replicaCount=two");
    let attempt = helm.attempt(&["upgrade", "web", "./demo", "--set", &wrong])?;
    let stderr = attempt.err().context("replicaCount=two was accepted")?;
    ensure!(stderr.contains(refused), "{stderr}");
    ensure!(helm.deployed()? == ("skiff.test/testserver:v2".into(), 2));

    helm.run(&["rollback", "web", "1", "--wait"])?;
    ensure!(get(&ship, "{.spec.crew}")? == "4");
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
    // Helm leaves definitions, which are the whole cluster's.
    ensure!(get(&ship, "{.spec.crew}")?.is_empty());
    fixture.cluster.kubectl(&["delete", "crd", &ships])?;
    Ok(())
}
