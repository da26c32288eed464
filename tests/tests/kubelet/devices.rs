//! Devices of a plugin, from its registration to the container.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions, PatchKind};
use k8s_openapi::api::core::v1::{Node, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::podresources_v1::pod_resources_lister_client::PodResourcesListerClient;
use rpc::{deviceplugin_v1beta1 as pb, podresources_v1 as podresources};
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::device_plugin::{Call, Plugin, Running};
use tests::pods;
use tonic::transport::Endpoint;

use super::{create, exec, id, start_failures::event};

const WIDGET: &str = "skiff.test/widget";
const NODE: &str = "node-1";

fn plugin_directory(fixture: &Fixture) -> PathBuf {
    fixture.cluster.folder().join("nodes/node-1/kubelet/device-plugins")
}

/// Waits for the number of devices in the node's capacity, and of those that can be allocated.
async fn offers(fixture: &Fixture, capacity: &str, allocatable: &str) -> anyhow::Result<()> {
    let what = format!("{NODE} has {capacity} widgets, {allocatable} of them healthy");
    let selection = Selection::default().name(NODE);
    let number = |list: Option<&std::collections::BTreeMap<String, _>>| -> Option<String> {
        let amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = list?.get(WIDGET)?;
        Some(amount.0.clone())
    };
    wait::until::<Node>(fixture.cluster.client(), selection, &what, |nodes| {
        nodes.values().filter_map(|node| node.status.as_ref()).any(|status| {
            number(status.capacity.as_ref()).as_deref() == Some(capacity)
                && number(status.allocatable.as_ref()).as_deref() == Some(allocatable)
        })
    })
    .await?;
    Ok(())
}

/// A pod that is bound to the node already.
fn bound(name: &str, init: usize, widgets: usize) -> String {
    let limits = |count: usize| format!("resources: {{limits: {{{WIDGET}: {count}}}}}");
    let initial = match init {
        0 => String::new(),
        count => format!(
            "\n  initContainers:\n  - {{name: init, image: \"skiff.test/busybox:1\", command: [\"true\"], {}}}",
            limits(count)
        ),
    };
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {NODE}
  terminationGracePeriodSeconds: 1{initial}
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "until test -e /stop; do sleep 0.2; done"]
    {}
"#,
        limits(widgets)
    )
}

async fn rejected(fixture: &Fixture, name: &str, reason: &str, text: &str) -> anyhow::Result<()> {
    let what = format!("{name} is rejected: {reason}: {text}");
    pods::one(fixture, name, &what, |pod| {
        let Some(status) = &pod.status else { return false };
        status.phase.as_deref() == Some("Failed")
            && status.reason.as_deref() == Some(reason)
            && status.message.as_deref() == Some(&format!("Pod was rejected: {text}"))
    })
    .await?;
    event(fixture, name, reason, text).await
}

async fn delete(fixture: &Fixture, name: &str) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    api.delete(name, &DeleteOptions::default()).await?;
    let selection = Selection::namespace(&fixture.namespace).name(name);
    let what = format!("{name} is gone");
    wait::until::<Pod>(fixture.cluster.client(), selection, &what, |pods| pods.is_empty()).await?;
    Ok(())
}

/// The container's mount and device.
fn response(fixture: &Fixture) -> anyhow::Result<pb::ContainerAllocateResponse> {
    let library = fixture.cluster.folder().join("widget-library");
    std::fs::create_dir_all(&library)?;
    std::fs::write(library.join("version"), "7")?;
    Ok(pb::ContainerAllocateResponse {
        mounts: vec![pb::Mount {
            container_path: "/usr/lib/widget".into(),
            host_path: library.display().to_string(),
            read_only: true,
        }],
        devices: vec![pb::DeviceSpec {
            container_path: "/dev/widget".into(),
            host_path: "/dev/loop-control".into(),
            permissions: "r".into(),
        }],
        ..Default::default()
    })
}

/// A DaemonSet runs on the node that has the hardware, and its container gets it.
async fn daemon_pod(fixture: &Fixture) -> anyhow::Result<Pod> {
    let nodes: Api<Node> = Api::all(fixture.cluster.client());
    let labels = json!({"metadata": {"labels": {"skiff.test/hardware": "widget"}}});
    nodes.patch(NODE, PatchKind::Merge, &labels).await?;
    let yaml = format!(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: driver}}
spec:
  selector: {{matchLabels: {{app: driver}}}}
  template:
    metadata: {{labels: {{app: driver}}}}
    spec:
      nodeSelector: {{skiff.test/hardware: widget}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: skiff.test/busybox:1
        command: [sleep, "1000"]
        env: [{{name: MINE, value: "yes"}}]
        resources: {{limits: {{{WIDGET}: 1}}}}
"#
    );
    create(fixture, &yaml).await?;
    let ready = |pods: &std::collections::BTreeMap<String, Pod>| pods.values().any(pods::is_ready);
    let found = pods::until(fixture, "app=driver", "the driver is Ready", ready).await?;
    let pod = found.into_values().find(pods::is_ready).context("it was Ready")?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let sh = |command: &str| exec(fixture, &name, "main", command);
    ensure!(sh("echo $WIDGETS $MINE; cat /usr/lib/widget/version")? == "w2 yes\n7");
    ensure!(sh("touch /usr/lib/widget/x 2>&1; true")?.contains("Read-only file system"));
    ensure!(sh("exec 3</dev/widget && echo open")? == "open");
    let refused = sh("(echo x > /dev/widget) 2>&1; true")?;
    ensure!(refused.contains("not permitted"), "{refused}");
    Ok(pod)
}

pub async fn devices_of_a_plugin_are_given_to_pods(fixture: &Fixture) -> anyhow::Result<()> {
    let directory = plugin_directory(fixture);
    let plugin = Plugin::new(&directory, WIDGET, &[("w1", true), ("w2", true), ("w3", false)]);
    plugin.answer(Ok(response(fixture)?));
    let refused = plugin.run("v2").await.err().context("a version of the future was accepted")?;
    ensure!(format!("{refused:#}").contains("is not supported by kubelet"), "{refused:#}");
    let running = plugin.run("v1beta1").await?;
    offers(fixture, "3", "2").await?;

    let pod = daemon_pod(fixture).await?;
    let chosen = vec!["w2".to_owned()];
    let available = vec!["w1".to_owned(), "w2".to_owned()];
    ensure!(
        plugin.take_calls()
            == [
                Call::Prefer { available, must_include: vec![], size: 1 },
                Call::Allocate(chosen.clone()),
                Call::PreStart(chosen),
            ]
    );
    agents_see_what_pods_have(fixture, &pod).await?;
    let requested = "requested: 2, used: 1, capacity: 2";
    let text = format!("Node didn't have enough resource: {WIDGET}, {requested}");
    create(fixture, &bound("greedy", 0, 2)).await?;
    rejected(fixture, "greedy", &format!("OutOf{WIDGET}"), &text).await?;

    // One device is enough for an init container and the container after it.
    create(fixture, &bound("steps", 1, 1)).await?;
    pods::ready(fixture, "steps").await?;
    ensure!(exec(fixture, "steps", "main", "echo $WIDGETS")? == "w1");
    delete(fixture, "steps").await?;

    plugin.answer(Err("the widget is stuck"));
    create(fixture, &bound("unlucky", 0, 1)).await?;
    let text = "Allocate failed due to rpc error: code = Unknown desc = the widget is stuck, which is unexpected";
    rejected(fixture, "unlucky", "UnexpectedAdmissionError", text).await?;
    plugin.answer(Ok(response(fixture)?));

    health_is_reported(fixture, &plugin, &pod).await?;
    a_restart_keeps_devices(fixture, &plugin, running, &pod).await
}

/// PodResources, as monitoring agents ask for it.
async fn agents_see_what_pods_have(fixture: &Fixture, pod: &Pod) -> anyhow::Result<()> {
    let socket = fixture.cluster.folder().join("nodes/node-1/kubelet/pod-resources/kubelet.sock");
    let endpoint = Endpoint::try_from(format!("unix:{}", socket.display()))?;
    let mut client = PodResourcesListerClient::new(endpoint.connect().await?);
    let name = pod.metadata.name.clone().unwrap_or_default();
    let widget = |id: &str| podresources::ContainerDevices {
        resource_name: WIDGET.to_owned(),
        device_ids: vec![id.to_owned()],
        topology: None,
    };
    let expected = podresources::PodResources {
        name: name.clone(),
        namespace: fixture.namespace.clone(),
        containers: vec![podresources::ContainerResources {
            name: "main".to_owned(),
            devices: vec![widget("w2")],
            ..Default::default()
        }],
    };
    let list = client.list(podresources::ListPodResourcesRequest {}).await?.into_inner();
    ensure!(list.pod_resources.contains(&expected), "{list:?}");
    let request = |pod_name: String| podresources::GetPodResourcesRequest {
        pod_name,
        pod_namespace: fixture.namespace.clone(),
    };
    let one = client.get(request(name)).await?.into_inner();
    ensure!(one.pod_resources == Some(expected), "{one:?}");
    let none =
        client.get(request("none".to_owned())).await.err().context("there is no such pod")?;
    let text = format!("pod none in namespace {} not found", fixture.namespace);
    ensure!(none.message() == text, "{none}");
    let all = podresources::AllocatableResourcesRequest {};
    let all = client.get_allocatable_resources(all).await?.into_inner();
    ensure!(all.devices == [widget("w1"), widget("w2")], "{all:?}");
    Ok(())
}

async fn health_is_reported(fixture: &Fixture, plugin: &Plugin, pod: &Pod) -> anyhow::Result<()> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for (healthy, allocatable, expected) in [(false, "1", "Unhealthy"), (true, "2", "Healthy")] {
        plugin.set_health("w2", healthy);
        offers(fixture, "3", allocatable).await?;
        pods::one(fixture, name, &format!("its device is {expected}"), |pod| {
            let status = pods::container(pod, "main");
            let all = status.iter().flat_map(|one| one.allocated_resources_status.iter().flatten());
            let devices = all.filter(|one| one.name == WIDGET);
            let found: Vec<_> = devices.flat_map(|one| one.resources.iter().flatten()).collect();
            found.len() == 1
                && found[0].resource_id == "w2"
                && found[0].health.as_deref() == Some(expected)
        })
        .await?;
    }
    Ok(())
}

/// The kubelet is killed: the plugin registers again, and what was given away stays so.
async fn a_restart_keeps_devices(
    fixture: &Fixture,
    plugin: &Plugin,
    running: Running,
    pod: &Pod,
) -> anyhow::Result<()> {
    let process = "kubelet-node-1";
    let old = fixture.cluster.pid(process)?;
    kill(Pid::from_raw(old), Signal::SIGKILL)?;
    drop(running);
    // Its devices are gone until then.
    offers(fixture, "0", "0").await?;
    let _running = wait::eventually("the plugin registers", || plugin.run("v1beta1")).await?;
    offers(fixture, "3", "2").await?;
    plugin.take_calls();
    create(fixture, &bound("second", 0, 1)).await?;
    pods::ready(fixture, "second").await?;
    ensure!(exec(fixture, "second", "main", "echo $WIDGETS")? == "w1");
    ensure!(plugin.take_calls().contains(&Call::Allocate(vec!["w1".to_owned()])));
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    ensure!(id(pod, "main") == id(&api.get(name).await?, "main"), "the driver was restarted");

    // A container that restarts has the same device, prepared again.
    exec(fixture, "second", "main", "touch /stop")?;
    pods::one(fixture, "second", "it has restarted", |pod| {
        pods::restarts(pod, "main") > 0 && pods::is_ready(pod)
    })
    .await?;
    ensure!(plugin.take_calls() == [Call::PreStart(vec!["w1".to_owned()])]);
    Ok(())
}
