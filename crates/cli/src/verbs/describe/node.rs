//! Nodes.

use api::pod::{Resources, Side, resources};
use client::{Api, ListOptions};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::text::{Text, items, moment, or, word};
use super::{Scene, heading, labels};

pub async fn describe(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let node = scene.object;
    let (spec, status) = (&node["spec"], &node["status"]);
    heading(node, out);
    labels(node, out);
    out.line(
        "CreationTimestamp",
        moment(&node["metadata"]["creationTimestamp"]),
    );
    let taints: Vec<String> = items(&spec["taints"])
        .map(|taint| {
            let value = taint["value"]
                .as_str()
                .map(|value| format!("={value}"))
                .unwrap_or_default();
            format!("{}{value}:{}", word(&taint["key"]), word(&taint["effect"]))
        })
        .collect();
    out.list("Taints", &taints);
    out.line("Unschedulable", or(&spec["unschedulable"], "false"));
    let mut rows = vec![
        ["Type", "Status", "LastTransitionTime", "Reason", "Message"].map(str::to_owned),
        ["----", "------", "------------------", "------", "-------"].map(str::to_owned),
    ];
    rows.extend(items(&status["conditions"]).map(|condition| {
        [
            word(&condition["type"]),
            word(&condition["status"]),
            moment(&condition["lastTransitionTime"]),
            word(&condition["reason"]),
            word(&condition["message"]),
        ]
    }));
    out.raw("Conditions:");
    out.table(1, &rows);
    out.section("Addresses", |out| {
        items(&status["addresses"])
            .for_each(|address| out.line(&word(&address["type"]), word(&address["address"])));
    });
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        out.section(title, |out| pairs(&status[field], out));
    }
    out.section("System Info", |out| pairs(&status["nodeInfo"], out));
    out.line_if("PodCIDR", &spec["podCIDR"]);
    pods(scene, out).await
}

fn pairs(map: &Value, out: &mut Text) {
    map.as_object()
        .into_iter()
        .flatten()
        .for_each(|(name, value)| out.line(name, word(value)));
}

async fn pods(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let name = word(&scene.object["metadata"]["name"]);
    let options = ListOptions {
        field_selector: format!("spec.nodeName={name}"),
        ..Default::default()
    };
    let mut pods = Api::<Pod>::all(scene.client).list(&options).await?.items;
    pods.retain(|pod| !api::pod::is_terminal(pod));
    let mut totals = [Resources::new(), Resources::new()];
    let mut rows = vec![
        [
            "Namespace",
            "Name",
            "CPU Requests",
            "CPU Limits",
            "Memory Requests",
            "Memory Limits",
        ]
        .map(str::to_owned),
    ];
    for pod in &pods {
        let Some(spec) = &pod.spec else { continue };
        let sides = [
            resources(spec, Side::Requests),
            resources(spec, Side::Limits),
        ];
        let amount = |side: usize, name: &str| {
            sides[side]
                .get(name)
                .map_or_else(|| "0".to_owned(), ToString::to_string)
        };
        rows.push([
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
            amount(0, "cpu"),
            amount(1, "cpu"),
            amount(0, "memory"),
            amount(1, "memory"),
        ]);
        for (total, side) in totals.iter_mut().zip(sides) {
            for (name, amount) in side {
                let sum = total.entry(name).or_default();
                *sum = *sum + amount;
            }
        }
    }
    out.raw(&format!("Non-terminated Pods:  ({} in total)", pods.len()));
    out.table(1, &rows);
    out.raw("Allocated resources:");
    let mut rows = vec![["Resource", "Requests", "Limits"].map(str::to_owned)];
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let amount = |side: usize| {
            totals[side]
                .get(name)
                .map_or_else(|| "0".to_owned(), ToString::to_string)
        };
        rows.push([name.to_owned(), amount(0), amount(1)]);
    }
    out.table(1, &rows);
    Ok(())
}
