//! What `skiff up`, `down` and `status` do to the machine, without any pod.

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::ExitCode;
use testkit::suite::Scene;
use testkit::{Options, scenarios, suite, wait};

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        &[],
        scenarios![
            up_again_is_harmless,
            other_options_are_refused,
            what_dies_is_started_again
        ],
    )
}

/// `skiff up` with the options that the cluster was started with, and some more.
fn up(scene: &Scene, more: &[&str]) -> anyhow::Result<testkit::cluster::Written> {
    let text = std::fs::read_to_string(scene.cluster.folder().join("cluster.json"))?;
    let options: serde_json::Value = serde_json::from_str(&text)?;
    let range = |name: &str| options[name].as_str().unwrap_or_default().to_owned();
    let (nodes, pods, services) = (range("nodeCidr"), range("podCidr"), range("serviceCidr"));
    let mut arguments = vec!["up", "--no-kubeconfig", "--node-cidr", &nodes];
    arguments.extend(["--pod-cidr", &pods, "--service-cidr", &services]);
    arguments.extend(more);
    scene.cluster.try_skiff(&arguments)
}

async fn up_again_is_harmless(scene: &Scene) -> anyhow::Result<()> {
    let before = scene.cluster.pid("apiserver")?;
    let written = up(scene, &[])?;
    ensure!(written.success, "{}", written.stderr);
    ensure!(
        written.stdout.contains("is up already"),
        "{}",
        written.stdout
    );
    ensure!(
        scene.cluster.pid("apiserver")? == before,
        "the apiserver was started again"
    );
    Ok(())
}

async fn other_options_are_refused(scene: &Scene) -> anyhow::Result<()> {
    let written = up(scene, &["--nodes", "2"])?;
    ensure!(!written.success);
    ensure!(
        written
            .stderr
            .contains("--nodes: \"1\" now, \"2\" asked for"),
        "{}",
        written.stderr
    );
    Ok(())
}

async fn what_dies_is_started_again(scene: &Scene) -> anyhow::Result<()> {
    for process in ["scheduler", "kubelet-node-1", "apiserver"] {
        let before = scene.cluster.pid(process)?;
        kill(Pid::from_raw(before), Signal::SIGKILL)?;
        wait::eventually(&format!("{process} runs again"), async || {
            let states = scene.cluster.processes()?;
            let state = states.iter().find(|state| state["name"] == process);
            let state = state.ok_or_else(|| anyhow::anyhow!("no {process}"))?;
            ensure!(state["phase"] == "ready", "{state}");
            ensure!(state["pid"] != before, "{state}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
