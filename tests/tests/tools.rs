//! The same work with both command lines: `skiff` over gRPC, and an unmodified kubectl over REST.

#[path = "tools/custom.rs"]
mod custom;
#[path = "tools/insight.rs"]
mod insight;
#[path = "tools/parity.rs"]
mod parity;
#[path = "tools/port_forward.rs"]
mod port_forward;
#[path = "tools/proxies.rs"]
mod proxies;
#[path = "tools/sessions.rs"]
mod sessions;
#[path = "tools/usage.rs"]
mod usage;
#[path = "tools/versions.rs"]
mod versions;

use anyhow::{Context, ensure};
use custom::{kubectl_handles_custom_kinds, skiff_handles_custom_kinds};
use insight::{
    skiff_migrates_to_server_side_apply, skiff_shows_trees, skiff_tells_why_an_endpoint_is_missing,
    skiff_traces_connections,
};
use parity::{both_tools_change_the_same, both_tools_describe_the_same, both_tools_show_the_same};
use port_forward::{
    kube_rs_forwards_ports, kubectl_forwards_ports, legacy_clients_use_spdy, skiff_forwards_ports,
};
use proxies::{monitoring_scrapes_kubelets, nodes_are_proxied, pods_and_services_are_proxied};
use serde_json::Value;
use sessions::{
    kubectl_holds_sessions, kubectl_prints_logs, kubectl_runs_copies_and_debugs,
    skiff_holds_sessions, skiff_prints_logs,
};
use std::process::{Command, ExitCode};
use testkit::cluster::CommandOutput;
use testkit::suite::Fixture;
use testkit::{Options, scenarios, suite};
use tests::{pods, web};
use usage::kubectl_shows_usage;
use versions::{every_kubectl_handles_objects, every_kubectl_handles_pods};

fn main() -> ExitCode {
    suite::run(
        Options { nodes: 2, ..Options::default() },
        &["busybox", "testserver-v1", "testserver-v2"],
        scenarios![
            skiff_runs_an_application,
            kubectl_runs_an_application,
            skiff_handles_custom_kinds,
            kubectl_handles_custom_kinds,
            skiff_inspects_pods,
            kubectl_inspects_pods,
            both_tools_reject_bad_input,
            skiff_forwards_ports,
            kubectl_forwards_ports,
            legacy_clients_use_spdy,
            kube_rs_forwards_ports,
            pods_and_services_are_proxied,
            nodes_are_proxied,
            kubectl_shows_usage,
            monitoring_scrapes_kubelets,
            skiff_shows_trees,
            skiff_traces_connections,
            skiff_tells_why_an_endpoint_is_missing,
            skiff_migrates_to_server_side_apply,
            skiff_holds_sessions,
            kubectl_holds_sessions,
            kubectl_runs_copies_and_debugs,
            skiff_prints_logs,
            kubectl_prints_logs,
            both_tools_show_the_same,
            both_tools_describe_the_same,
            both_tools_change_the_same,
            every_kubectl_handles_objects,
            every_kubectl_handles_pods,
        ],
    )
}

#[derive(Clone, Copy)]
enum Tool {
    Skiff,
    Kubectl,
}

impl Tool {
    fn attempt(self, fixture: &Fixture, arguments: &[&str]) -> anyhow::Result<CommandOutput> {
        let arguments = [&["-n", &fixture.namespace], arguments].concat();
        match self {
            // `skiff` expects flags after the verb.
            Self::Skiff => {
                let arguments = [&arguments[2..3], &arguments[..2], &arguments[3..]].concat();
                fixture.cluster.try_skiff(&arguments)
            }
            Self::Kubectl => fixture.cluster.try_kubectl(&arguments),
        }
    }

    /// The tool with a verb and its flags, not yet started.
    fn command(self, fixture: &Fixture, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Skiff => fixture.cluster.skiff_command(),
            Self::Kubectl => fixture.cluster.kubectl_command(),
        };
        command.args([arguments[0], "-n", &fixture.namespace]);
        command.args(&arguments[1..]);
        command
    }

    fn run(self, fixture: &Fixture, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.attempt(fixture, arguments)?;
        ensure!(output.success, "{}: {}{}", arguments.join(" "), output.stderr, output.stdout);
        Ok(output.stdout)
    }

    fn get(self, fixture: &Fixture, what: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(fixture, &[&["get"], what, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| text)
    }
}

async fn skiff_runs_an_application(fixture: &Fixture) -> anyhow::Result<()> {
    runs_an_application(fixture, Tool::Skiff).await
}

async fn kubectl_runs_an_application(fixture: &Fixture) -> anyhow::Result<()> {
    runs_an_application(fixture, Tool::Kubectl).await
}

async fn runs_an_application(fixture: &Fixture, tool: Tool) -> anyhow::Result<()> {
    let folder = fixture.cluster.folder();
    let file = folder.join(format!("{}.yaml", fixture.namespace)).to_string_lossy().into_owned();
    std::fs::write(&file, web::manifest(2, "v1"))?;
    let output = tool.run(fixture, &["apply", "-f", &file])?;
    ensure!(output.contains("deployment.apps/web created"), "{output}");
    tool.run(fixture, &["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let output = tool.run(fixture, &["apply", "-f", &file])?;
    ensure!(output.contains("deployment.apps/web unchanged"), "{output}");
    let table = tool.run(fixture, &["get", "pods"])?;
    ensure!(table.lines().filter(|line| line.contains("2/2     Running")).count() == 2, "{table}");

    std::fs::write(&file, web::manifest(3, "v2"))?;
    let output = tool.run(fixture, &["apply", "-f", &file])?;
    ensure!(output.contains("deployment.apps/web configured"), "{output}");
    tool.run(fixture, &["rollout", "status", "deployment/web", "--timeout=90s"])?;
    let history = tool.run(fixture, &["rollout", "history", "deployment/web"])?;
    let revisions = history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    ensure!(revisions.count() == 2, "{history}");
    tool.run(fixture, &["rollout", "undo", "deployment/web"])?;
    tool.run(fixture, &["rollout", "status", "deployment/web", "--timeout=90s"])?;
    ensure!(image(fixture, tool)? == "skiff.test/testserver:v1");

    tool.run(fixture, &["rollout", "pause", "deployment/web"])?;
    ensure!(tool.get(fixture, &["deployment", "web"])?["spec"]["paused"] == true);
    tool.run(fixture, &["rollout", "resume", "deployment/web"])?;
    tool.run(fixture, &["scale", "deployment/web", "--replicas=1"])?;
    pods::until(fixture, "app=web", "one pod is left", |pods| pods.len() == 1).await?;

    tool.run(fixture, &["label", "deployment/web", "tier=front"])?;
    tool.run(fixture, &["annotate", "deployment/web", "note=seen"])?;
    let found = tool.get(fixture, &["deployments", "-l", "tier=front"])?;
    ensure!(found["items"][0]["metadata"]["annotations"]["note"] == "seen", "{found}");
    tool.run(fixture, &["delete", "-f", &file])?;
    pods::until(fixture, "app=web", "no pod is left", |pods| pods.is_empty()).await?;
    Ok(())
}

fn image(fixture: &Fixture, tool: Tool) -> anyhow::Result<String> {
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    tool.run(fixture, &["get", "deployment", "web", "-o", path])
}

async fn skiff_inspects_pods(fixture: &Fixture) -> anyhow::Result<()> {
    inspects_pods(fixture, Tool::Skiff).await
}

async fn kubectl_inspects_pods(fixture: &Fixture) -> anyhow::Result<()> {
    inspects_pods(fixture, Tool::Kubectl).await
}

async fn inspects_pods(fixture: &Fixture, tool: Tool) -> anyhow::Result<()> {
    let file = fixture.cluster.folder().join(format!("{}.yaml", fixture.namespace));
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: looked-at}\nspec:\n  containers:\n  - \
                name: main\n    image: skiff.test/busybox:1\n    command: [sh, -c, 'echo one; echo \
                two; exec sleep 1000']\n";
    std::fs::write(&file, yaml)?;
    tool.run(fixture, &["create", "-f", &file.to_string_lossy()])?;
    tool.run(fixture, &["wait", "--for=condition=Ready", "pod/looked-at", "--timeout=60s"])?;
    ensure!(tool.run(fixture, &["logs", "looked-at"])? == "one\ntwo\n");
    ensure!(tool.run(fixture, &["logs", "looked-at", "--tail=1"])? == "two\n");
    let output =
        tool.run(fixture, &["exec", "looked-at", "--", "sh", "-c", "echo $HOSTNAME; hostname"])?;
    ensure!(output == "looked-at\nlooked-at\n", "{output:?}");
    let failed = tool.attempt(fixture, &["exec", "looked-at", "--", "sh", "-c", "exit 3"])?;
    ensure!(!failed.success);
    let described = tool.run(fixture, &["describe", "pod", "looked-at"])?;
    for part in ["skiff.test/busybox:1", "Started container main", "Running"] {
        ensure!(described.contains(part), "{part:?} is not in\n{described}");
    }
    let events = tool.run(fixture, &["get", "events"])?;
    ensure!(events.contains("Scheduled"), "{events}");
    tool.run(fixture, &["delete", "pod", "looked-at", "--grace-period=1"])?;
    Ok(())
}

async fn both_tools_reject_bad_input(fixture: &Fixture) -> anyhow::Result<()> {
    let file = fixture.cluster.folder().join("bad.yaml");
    let path = file.to_string_lossy().into_owned();
    let cases = [
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a\n", ""),
        ("apiVersion: v1\nkind: Nothing\nmetadata: {name: a}\n", ""),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n", "Bad_Name"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 70000}]}\n",
            "70000",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: a, image: \
             b, imagge: c}]\n",
            "imagge",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  selector: \
             {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    spec: \
             {containers: [{name: a, image: b}]}\n",
            "selector",
        ),
    ];
    for (yaml, part) in cases {
        std::fs::write(&file, yaml)?;
        for tool in [Tool::Skiff, Tool::Kubectl] {
            let output = tool.attempt(fixture, &["apply", "-f", &path])?;
            ensure!(!output.success, "{yaml}");
            ensure!(output.stderr.contains(part), "{part:?} is not in {}", output.stderr);
        }
    }
    let nothing = Tool::Skiff.get(fixture, &["pods,services,deployments"])?;
    ensure!(nothing["items"].as_array().is_some_and(Vec::is_empty), "{nothing}");
    Ok(())
}
