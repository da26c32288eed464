//! Volumes, claims and classes: of storage, of priority, of ingress.

use rpc::api_v1::ListRequest;
use serde_json::Value;

use crate::describe::text::{self, Description, bracketed, fields, items, truth, word};
use crate::describe::{DescribeContext, conditions_head, heading, labels, volume};
use crate::output::event::ago;
use crate::request::selection::list_values;

pub fn volume(object: &Value, out: &mut Description) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    heading(object, out);
    labels(object, out);
    out.line("Finalizers", bracketed(&metadata["finalizers"]));
    out.line("StorageClass", word(&spec["storageClassName"]));
    phase(object, out);
    let claim = &spec["claimRef"];
    let claim = if claim.is_object() {
        format!("{}/{}", word(&claim["namespace"]), word(&claim["name"]))
    } else {
        String::new()
    };
    out.line("Claim", claim);
    out.line("Reclaim Policy", word(&spec["persistentVolumeReclaimPolicy"]));
    out.line("Access Modes", modes(&spec["accessModes"]));
    out.line_if("VolumeMode", &spec["volumeMode"]);
    out.line("Capacity", word(&spec["capacity"]["storage"]));
    affinity(&spec["nodeAffinity"], out);
    out.line("Message", word(&status["message"]));
    out.raw("Source:");
    out.deeper(2, |out| volume::source(spec, &["capacity", "claimRef", "nodeAffinity"], out));
}

fn phase(object: &Value, out: &mut Description) {
    match text::time(&object["metadata"]["deletionTimestamp"]) {
        Some(time) => out.line("Status", format!("Terminating (lasts {})", ago(Some(time)))),
        None => out.line("Status", word(&object["status"]["phase"])),
    }
}

fn affinity(affinity: &Value, out: &mut Description) {
    let terms = &affinity["required"]["nodeSelectorTerms"];
    if items(terms).next().is_none() {
        return out.line("Node Affinity", "<none>");
    }
    out.line("Node Affinity", "");
    out.nested(|out| {
        out.line("Required Terms", "");
        out.nested(|out| {
            for (index, term) in items(terms).enumerate() {
                let rules: Vec<String> = items(&term["matchExpressions"])
                    .map(|rule| {
                        let operator = word(&rule["operator"]).to_lowercase();
                        format!("{} {operator} {}", word(&rule["key"]), bracketed(&rule["values"]))
                    })
                    .collect();
                out.list(&format!("Term {index}"), &rules);
            }
        });
    });
}

/// `RWO,ROX`
fn modes(modes: &Value) -> String {
    let short = |mode: &Value| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO".to_owned(),
        "ReadOnlyMany" => "ROX".to_owned(),
        "ReadWriteMany" => "RWX".to_owned(),
        "ReadWriteOncePod" => "RWOP".to_owned(),
        other => other.to_owned(),
    };
    items(modes).map(short).collect::<Vec<_>>().join(",")
}

pub async fn claim(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let object = context.object;
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    heading(object, out);
    out.line("StorageClass", word(&spec["storageClassName"]));
    phase(object, out);
    out.line("Volume", word(&spec["volumeName"]));
    labels(object, out);
    out.line("Finalizers", bracketed(&metadata["finalizers"]));
    let bound = spec["volumeName"].is_string();
    let (capacity, access) = if bound {
        (word(&status["capacity"]["storage"]), modes(&status["accessModes"]))
    } else {
        Default::default()
    };
    out.line("Capacity", capacity);
    out.line("Access Modes", access);
    out.line_if("VolumeMode", &spec["volumeMode"]);
    let users = users(context).await?;
    out.list("Used By", &users);
    let conditions = &status["conditions"];
    if items(conditions).next().is_some() {
        out.raw("Conditions:");
        out.nested(|out| {
            conditions_head("LastProbeTime", out);
            for one in items(conditions) {
                let moment = |field: &str| text::moment(&one[field]);
                let cell = |field: &str| word(&one[field]);
                out.cells(&[
                    &cell("type"),
                    &cell("status"),
                    &moment("lastProbeTime"),
                    &moment("lastTransitionTime"),
                    &cell("reason"),
                    &cell("message"),
                ]);
            }
        });
    }
    Ok(())
}

/// The pods that mount the claim.
async fn users(context: &DescribeContext<'_>) -> anyhow::Result<Vec<String>> {
    let metadata = &context.object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let request = ListRequest {
        target: Some(context.resources.find("pods")?.target(namespace, "", "")),
        ..Default::default()
    };
    let mut users = Vec::new();
    for pod in list_values(context.client, request).await? {
        let mounts = items(&pod["spec"]["volumes"])
            .any(|volume| volume["persistentVolumeClaim"]["claimName"] == metadata["name"]);
        if mounts {
            users.push(word(&pod["metadata"]["name"]));
        }
    }
    Ok(users)
}

/// `a=b,c=d` on one line, as kubectl's older describers write it.
fn annotations(object: &Value) -> String {
    let pairs: Vec<String> = fields(&object["metadata"]["annotations"])
        .map(|(key, value)| format!("{key}={}", word(value)))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A value of possibly several lines, of which only the first is aligned.
fn several_lines(key: &str, value: &str, out: &mut Description) {
    let (first, rest) = value.split_once('\n').unwrap_or((value, ""));
    out.line(key, first);
    if value.contains('\n') {
        out.raw(rest);
    }
}

pub fn storage_class(object: &Value, out: &mut Description) {
    out.line("Name", word(&object["metadata"]["name"]));
    let default = &object["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"];
    out.line("IsDefaultClass", if default == "true" { "Yes" } else { "No" });
    several_lines("Annotations", &annotations(object), out);
    out.line("Provisioner", word(&object["provisioner"]));
    let parameters: Vec<String> = fields(&object["parameters"])
        .map(|(key, value)| format!("{key}={}", word(value)))
        .collect();
    let none = parameters.is_empty();
    out.line("Parameters", if none { "<none>".to_owned() } else { parameters.join(",") });
    out.line("AllowVolumeExpansion", truth(&object["allowVolumeExpansion"], "<unset>"));
    if items(&object["mountOptions"]).next().is_none() {
        out.line("MountOptions", "<none>");
    } else {
        out.section("MountOptions", |out| {
            items(&object["mountOptions"]).for_each(|option| out.raw(&word(option)));
        });
    }
    out.line_if("ReclaimPolicy", &object["reclaimPolicy"]);
    out.line_if("VolumeBindingMode", &object["volumeBindingMode"]);
}

pub fn priority_class(object: &Value, out: &mut Description) {
    out.line("Name", word(&object["metadata"]["name"]));
    out.line_or("Value", &object["value"], "0");
    out.line_or("GlobalDefault", &object["globalDefault"], "false");
    out.line_or("PreemptionPolicy", &object["preemptionPolicy"], "PreemptLowerPriority");
    out.line("Description", word(&object["description"]));
    several_lines("Annotations", &annotations(object), out);
}

pub fn ingress_class(object: &Value, out: &mut Description) {
    out.line("Name", word(&object["metadata"]["name"]));
    labels(object, out);
    out.line("Controller", word(&object["spec"]["controller"]));
    let parameters = &object["spec"]["parameters"];
    if parameters.is_object() {
        out.section("Parameters", |out| {
            out.line_if("APIGroup", &parameters["apiGroup"]);
            out.line("Kind", word(&parameters["kind"]));
            out.line("Name", word(&parameters["name"]));
        });
    }
}
