//! Third-party clients: the Python example of docs/grpc.md, and over REST the official Python
//! client, kubectl, Helm and kube-rs.

#[path = "clients/admission.rs"]
mod admission;
#[path = "clients/aggregation.rs"]
mod aggregation;
#[path = "clients/conversion.rs"]
mod conversion;
#[path = "clients/helm.rs"]
mod helm;
#[path = "clients/injection.rs"]
mod injection;
#[path = "clients/kubectl.rs"]
mod kubectl;
#[path = "clients/operators.rs"]
mod operators;

use admission::a_webhook_in_a_pod_changes_and_denies;
use aggregation::{
    a_server_in_a_pod_answers_a_group, owners_and_dependents_of_other_servers_are_collected,
};
use anyhow::{Context, ensure};
use conversion::a_webhook_in_a_pod_converts_versions;
use helm::{helm_3_installs_and_upgrades, helm_4_installs_and_upgrades};
use injection::an_injected_authority_is_followed;
use kubectl::{
    errors_are_reported_as_in_kubernetes, field_ownership_is_tracked, fields_are_explained,
    kubectl_create_sends_protobuf, manifests_of_every_kind_are_accepted, warnings_are_shown,
};
use operators::{
    a_controller_on_the_javascript_client_reconciles,
    a_kube_rs_controller_reconciles_a_derived_kind,
    the_python_dynamic_client_works_with_custom_kinds,
};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use testkit::suite::Fixture;
use testkit::{Options, manifest, scenarios, suite};

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        &["busybox", "testserver-v1", "testserver-v2"],
        scenarios![
            the_grpc_example_lists_and_watches,
            the_official_python_client_works,
            manifests_of_every_kind_are_accepted,
            kubectl_create_sends_protobuf,
            field_ownership_is_tracked,
            errors_are_reported_as_in_kubernetes,
            warnings_are_shown,
            fields_are_explained,
            helm_3_installs_and_upgrades,
            helm_4_installs_and_upgrades,
            a_kube_rs_controller_reconciles_a_derived_kind,
            the_python_dynamic_client_works_with_custom_kinds,
            a_controller_on_the_javascript_client_reconciles,
            a_webhook_in_a_pod_converts_versions,
            a_webhook_in_a_pod_changes_and_denies,
            an_injected_authority_is_followed,
            a_server_in_a_pod_answers_a_group,
            owners_and_dependents_of_other_servers_are_collected,
        ],
    )
}

/// A pod that fits no node, so that only the client is tested.
fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeSelector: {{never: \
         there}}\n  containers: [{{name: main, image: none}}]\n"
    )
}

fn python(fixture: &Fixture) -> anyhow::Result<Command> {
    let program = std::env::var_os("SKIFF_TEST_PYTHON");
    let program = program.context("SKIFF_TEST_PYTHON is not set; `make test` sets it")?;
    let mut command = Command::new(program);
    command.env("KUBECONFIG", fixture.cluster.kubeconfig()).stdin(Stdio::null());
    Ok(command)
}

/// Node.js of the Python environment, with the client's package.
fn node(fixture: &Fixture) -> anyhow::Result<Command> {
    let python = PathBuf::from(python(fixture)?.get_program());
    let bin = python.parent().context("SKIFF_TEST_PYTHON is not a path")?;
    let mut command = Command::new(bin.join("node"));
    command.env("KUBECONFIG", fixture.cluster.kubeconfig()).stdin(Stdio::null());
    command.env("NODE_PATH", bin.join("../node_modules"));
    Ok(command)
}

async fn the_grpc_example_lists_and_watches(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, &pod("first")).await?;
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/pods.py");
    let mut running = python(fixture)?
        .arg(example)
        .args(["--namespace", &fixture.namespace, "--events", "50"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = running.stdout.take().context("its output is piped")?;
    let namespace = fixture.namespace.clone();
    let runtime = tokio::runtime::Handle::current();
    let client = client.clone();
    // The pod that is created once the watch has started must be seen.
    let reading = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line.starts_with("watching from revision") {
                runtime.block_on(manifest::create(&client, &namespace, &pod("second")))?;
            }
            let seen = line.starts_with("ADDED") && line.contains("/second ");
            lines.push(line);
            if seen {
                break;
            }
        }
        Ok(lines)
    });
    let lines = reading.await?;
    running.kill()?;
    running.wait()?;
    let lines = lines?;
    let has = |start: &str, name: &str| {
        lines.iter().any(|line| line.starts_with(start) && line.contains(name))
    };
    ensure!(has("LISTED", "/first Pending"), "{lines:?}");
    ensure!(has("ADDED", "/second Pending"), "{lines:?}");
    Ok(())
}

async fn the_official_python_client_works(fixture: &Fixture) -> anyhow::Result<()> {
    let script = r#"
import sys
from kubernetes import client, config, watch

config.load_kube_config()
namespace = sys.argv[1]
core = client.CoreV1Api()
core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {"k": "v"}})
read = core.read_namespaced_config_map("a", namespace)
assert read.data == {"k": "v"}, read
core.patch_namespaced_config_map("a", namespace, {"data": {"k": "w"}})
for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, timeout_seconds=10):
    if event["object"].metadata.name == "a":
        assert event["object"].data == {"k": "w"}, event
        break
core.delete_namespaced_config_map("a", namespace)
try:
    core.read_namespaced_config_map("a", namespace)
    sys.exit("it is still there")
except client.ApiException as error:
    assert error.status == 404, error
print("done")
"#;
    let output = python(fixture)?.args(["-c", script, &fixture.namespace]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(())
}
