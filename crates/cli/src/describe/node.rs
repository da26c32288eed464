//! Nodes.

use api::pod::{Resources, Side, resources};
use api::quantity::Quantity;
use client::{Api, ListOptions};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::describe::text::{self, Description, fields, items, moment, or, word};
use crate::describe::workload::age;
use crate::describe::{DescribeContext, conditions_head, labels};

/// What kubectl shows of `nodeInfo`.
const SYSTEM: [(&str, &str); 10] = [
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
    ("Kube-Proxy Version", "kubeProxyVersion"),
];
const ROLE: &str = "node-role.kubernetes.io/";

pub async fn describe(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let node = context.object;
    let (spec, status) = (&node["spec"], &node["status"]);
    out.line("Name", word(&node["metadata"]["name"]));
    let roles: Vec<&str> = fields(&node["metadata"]["labels"])
        .filter_map(|(label, _)| label.strip_prefix(ROLE))
        .collect();
    out.line("Roles", if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") });
    labels(node, out);
    out.line("CreationTimestamp", moment(&node["metadata"]["creationTimestamp"]));
    let taints: Vec<String> = items(&spec["taints"])
        .map(|taint| {
            let value =
                taint["value"].as_str().map(|value| format!("={value}")).unwrap_or_default();
            format!("{}{value}:{}", word(&taint["key"]), word(&taint["effect"]))
        })
        .collect();
    out.list("Taints", &taints);
    out.line_or("Unschedulable", &spec["unschedulable"], "false");
    lease(context, out).await?;
    conditions(&status["conditions"], out);
    out.section("Addresses", |out| {
        items(&status["addresses"])
            .for_each(|address| out.line(&word(&address["type"]), word(&address["address"])));
    });
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        out.section(title, |out| {
            fields(&status[field]).for_each(|(name, value)| out.line(name, word(value)));
        });
    }
    out.section("System Info", |out| {
        SYSTEM.iter().for_each(|(title, field)| out.line(title, word(&status["nodeInfo"][*field])));
    });
    out.line_if("PodCIDR", &spec["podCIDR"]);
    let ranges = text::joined(&spec["podCIDRs"], ",", "");
    if !ranges.is_empty() {
        out.line("PodCIDRs", ranges);
    }
    out.line_if("ProviderID", &spec["providerID"]);
    pods(context, out).await
}

async fn lease(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let name = word(&context.object["metadata"]["name"]);
    let found = Api::<Lease>::namespaced(context.client, "kube-node-lease").get(&name).await;
    let spec = match found {
        Ok(lease) => lease.spec.unwrap_or_default(),
        Err(error) if error.api().is_some() => {
            out.line("Lease", format!("Failed to get lease: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let unset = || "<unset>".to_owned();
    let moment = |time: Option<jiff::Timestamp>| {
        time.map_or_else(unset, |time| time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
    };
    out.section("Lease", |out| {
        out.line("HolderIdentity", spec.holder_identity.unwrap_or_else(unset));
        out.line("AcquireTime", moment(spec.acquire_time.map(|time| time.0)));
        out.line("RenewTime", moment(spec.renew_time.map(|time| time.0)));
    });
    Ok(())
}

fn conditions(conditions: &Value, out: &mut Description) {
    out.section("Conditions", |out| {
        conditions_head("LastHeartbeatTime", out);
        for condition in items(conditions) {
            let kind = format!("{} ", word(&condition["type"]));
            let status = format!("{} ", word(&condition["status"]));
            let beat = format!("{} ", moment(&condition["lastHeartbeatTime"]));
            let changed = format!("{} ", moment(&condition["lastTransitionTime"]));
            let reason = format!("{} ", word(&condition["reason"]));
            let message = format!("{} ", word(&condition["message"]));
            out.cells(&[&kind, &status, &beat, &changed, &reason, message.trim_end()]);
        }
    });
}

/// `250m (6%)`
fn share(amount: Quantity, allocatable: &Value) -> String {
    let text = k8s_openapi::apimachinery::pkg::api::resource::Quantity(or(allocatable, "0"));
    let all = Quantity::of(&text).millis();
    let percent = if all > 0 { i128::from(amount.millis()) * 100 / i128::from(all) } else { 0 };
    format!("{amount} ({percent}%)")
}

async fn pods(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let name = word(&context.object["metadata"]["name"]);
    let allocatable = &context.object["status"]["allocatable"];
    let options =
        ListOptions { field_selector: format!("spec.nodeName={name}"), ..Default::default() };
    let mut pods = Api::<Pod>::all(context.client).list(&options).await?.items;
    pods.retain(|pod| !api::pod::is_terminal(pod));
    let mut totals = [Resources::new(), Resources::new()];
    let titles = [
        "Namespace",
        "Name",
        "CPU Requests",
        "CPU Limits",
        "Memory Requests",
        "Memory Limits",
        "Age",
    ];
    let mut rows = vec![titles.map(str::to_owned), titles.map(|title| "-".repeat(title.len()))];
    for pod in &pods {
        let Some(spec) = &pod.spec else { continue };
        let sides = [resources(spec, Side::Requests), resources(spec, Side::Limits)];
        let amount = |side: usize, name: &str| {
            let amount = sides[side].get(name).copied().unwrap_or_default();
            share(amount, &allocatable[name])
        };
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
        rows.push([
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
            amount(0, "cpu"),
            amount(1, "cpu"),
            amount(0, "memory"),
            amount(1, "memory"),
            age(&created.into()),
        ]);
        for (total, side) in totals.iter_mut().zip(sides) {
            for (name, amount) in side {
                let sum = total.entry(name).or_default();
                *sum = *sum + amount;
            }
        }
    }
    out.line("Non-terminated Pods", format!("({} in total)", pods.len()));
    out.nested(|out| {
        for row in &rows {
            let mut cells: Vec<&str> = row.iter().map(String::as_str).collect();
            let (first, second) = (format!("{}  ", cells[0]), format!("{}  ", cells[1]));
            cells[0] = &first;
            cells[1] = &second;
            out.cells(&cells);
        }
    });
    out.raw("Allocated resources:");
    out.nested(|out| {
        out.raw("(Total limits may be over 100 percent, i.e., overcommitted.)");
        out.cells(&["Resource", "Requests", "Limits"]);
        out.cells(&["--------", "--------", "------"]);
        let mut names = vec!["cpu", "memory", "ephemeral-storage"];
        names.extend(
            fields(allocatable)
                .map(|(name, _)| name.as_str())
                .filter(|name| name.starts_with("hugepages-") || name.contains('/')),
        );
        for name in names {
            let amount = |side: usize| {
                let amount = totals[side].get(name).copied().unwrap_or_default();
                if name.contains('/') {
                    amount.to_string()
                } else {
                    share(amount, &allocatable[name])
                }
            };
            out.cells(&[name, &amount(0), &amount(1)]);
        }
    });
    Ok(())
}
