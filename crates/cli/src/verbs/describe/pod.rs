//! Pods and pod templates.

use serde_json::Value;

use super::text::{Text, items, moment, or, word};
use super::{heading, labels};

pub fn describe(pod: &Value, out: &mut Text) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    heading(pod, out);
    out.line("Priority", or(&spec["priority"], "0"));
    out.line_if("Priority Class Name", &spec["priorityClassName"]);
    out.line(
        "Service Account",
        or(&spec["serviceAccountName"], "default"),
    );
    match spec["nodeName"].as_str() {
        Some(node) => out.line("Node", format!("{node}/{}", word(&status["hostIP"]))),
        None => out.line("Node", "<none>"),
    }
    let started = moment(&status["startTime"]);
    if !started.is_empty() {
        out.line("Start Time", started);
    }
    labels(pod, out);
    match metadata["deletionTimestamp"].as_str() {
        Some(_) => {
            let seconds = or(&metadata["deletionGracePeriodSeconds"], "0");
            out.line(
                "Status",
                format!(
                    "Terminating (since {})",
                    moment(&metadata["deletionTimestamp"])
                ),
            );
            out.line("Termination Grace Period", format!("{seconds}s"));
        }
        None => out.line("Status", or(&status["phase"], "Unknown")),
    }
    out.line_if("Reason", &status["reason"]);
    out.line_if("Message", &status["message"]);
    out.line("IP", word(&status["podIP"]));
    out.section("IPs", |out| {
        for ip in items(&status["podIPs"]) {
            out.line("IP", word(&ip["ip"]));
        }
    });
    for owner in items(&metadata["ownerReferences"]).filter(|owner| owner["controller"] == true) {
        out.line(
            "Controlled By",
            format!("{}/{}", word(&owner["kind"]), word(&owner["name"])),
        );
    }
    containers(
        "Init Containers",
        &spec["initContainers"],
        &status["initContainerStatuses"],
        out,
    );
    containers(
        "Containers",
        &spec["containers"],
        &status["containerStatuses"],
        out,
    );
    containers(
        "Ephemeral Containers",
        &spec["ephemeralContainers"],
        &status["ephemeralContainerStatuses"],
        out,
    );
    conditions(&status["conditions"], out);
    volumes(&spec["volumes"], out);
    out.line("QoS Class", word(&status["qosClass"]));
    out.map("Node-Selectors", &spec["nodeSelector"], "=");
    out.list(
        "Tolerations",
        &items(&spec["tolerations"])
            .map(toleration)
            .collect::<Vec<_>>(),
    );
}

/// The part of a workload that its pods are made from.
pub fn template(template: &Value, out: &mut Text) {
    out.section("Pod Template", |out| {
        out.map("Labels", &template["metadata"]["labels"], "=");
        if template["metadata"]["annotations"].is_object() {
            out.map("Annotations", &template["metadata"]["annotations"], ": ");
        }
        let spec = &template["spec"];
        out.line_if("Service Account", &spec["serviceAccountName"]);
        containers(
            "Init Containers",
            &spec["initContainers"],
            &Value::Null,
            out,
        );
        containers("Containers", &spec["containers"], &Value::Null, out);
        volumes(&spec["volumes"], out);
        out.map("Node-Selectors", &spec["nodeSelector"], "=");
        out.list(
            "Tolerations",
            &items(&spec["tolerations"])
                .map(toleration)
                .collect::<Vec<_>>(),
        );
    });
}

/// Type, status and reason of every condition.
pub fn conditions(conditions: &Value, out: &mut Text) {
    let mut rows = vec![
        ["Type", "Status"].map(str::to_owned),
        ["----", "------"].map(str::to_owned),
    ];
    rows.extend(
        items(conditions).map(|condition| [word(&condition["type"]), word(&condition["status"])]),
    );
    if rows.len() > 2 {
        out.raw("Conditions:");
        out.table(1, &rows);
    }
}

fn containers(title: &str, containers: &Value, statuses: &Value, out: &mut Text) {
    if items(containers).next().is_none() {
        return;
    }
    out.section(title, |out| {
        for container in items(containers) {
            let status = items(statuses).find(|status| status["name"] == container["name"]);
            out.section(&word(&container["name"]), |out| {
                one_container(container, status, out)
            });
        }
    });
}

fn one_container(container: &Value, status: Option<&Value>, out: &mut Text) {
    if let Some(status) = status {
        out.line("Container ID", word(&status["containerID"]));
    }
    out.line("Image", word(&container["image"]));
    if let Some(status) = status {
        out.line("Image ID", word(&status["imageID"]));
    }
    let ports: Vec<String> = items(&container["ports"])
        .map(|port| {
            let name = port["name"]
                .as_str()
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            format!(
                "{}/{}{name}",
                word(&port["containerPort"]),
                or(&port["protocol"], "TCP")
            )
        })
        .collect();
    out.line(
        "Ports",
        if ports.is_empty() {
            "<none>".to_owned()
        } else {
            ports.join(", ")
        },
    );
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        if items(&container[field]).next().is_some() {
            out.section(title, |out| {
                items(&container[field]).for_each(|part| out.raw(&word(part)))
            });
        }
    }
    if let Some(status) = status {
        state("State", &status["state"], out);
        if status["lastState"]
            .as_object()
            .is_some_and(|last| !last.is_empty())
        {
            state("Last State", &status["lastState"], out);
        }
        out.line(
            "Ready",
            if status["ready"] == true {
                "True"
            } else {
                "False"
            },
        );
        out.line("Restart Count", or(&status["restartCount"], "0"));
    }
    for (title, side) in [("Limits", "limits"), ("Requests", "requests")] {
        let amounts = &container["resources"][side];
        if amounts.is_object() {
            out.section(title, |out| {
                amounts
                    .as_object()
                    .into_iter()
                    .flatten()
                    .for_each(|(name, amount)| out.line(name, word(amount)));
            });
        }
    }
    for (title, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if container[field].is_object() {
            out.line(title, probe(&container[field]));
        }
    }
    environment(container, out);
    mounts(container, out);
}

fn mounts(container: &Value, out: &mut Text) {
    let mounts: Vec<String> = items(&container["volumeMounts"])
        .map(|mount| {
            let mode = if mount["readOnly"] == true {
                "ro"
            } else {
                "rw"
            };
            let path = mount["subPath"]
                .as_str()
                .map(|path| format!(",path={path:?}"))
                .unwrap_or_default();
            format!(
                "{} from {} ({mode}{path})",
                word(&mount["mountPath"]),
                word(&mount["name"])
            )
        })
        .collect();
    if mounts.is_empty() {
        out.line("Mounts", "<none>");
    } else {
        out.section("Mounts", |out| {
            mounts.iter().for_each(|mount| out.raw(mount))
        });
    }
}

fn environment(container: &Value, out: &mut Text) {
    if items(&container["envFrom"]).next().is_some() {
        out.section("Environment Variables from", |out| {
            for source in items(&container["envFrom"]) {
                for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                    if source[field].is_object() {
                        let optional = source[field]["optional"] == true;
                        out.line(
                            &word(&source[field]["name"]),
                            format!("{kind}  Optional: {optional}"),
                        );
                    }
                }
            }
        });
    }
    if items(&container["env"]).next().is_none() {
        return out.line("Environment", "<none>");
    }
    out.section("Environment", |out| {
        for variable in items(&container["env"]) {
            let from = &variable["valueFrom"];
            let text = if let Some(key) = from["secretKeyRef"]["key"].as_str() {
                format!(
                    "<set to the key '{key}' in secret '{}'>",
                    word(&from["secretKeyRef"]["name"])
                )
            } else if let Some(key) = from["configMapKeyRef"]["key"].as_str() {
                format!(
                    "<set to the key '{key}' of config map '{}'>",
                    word(&from["configMapKeyRef"]["name"])
                )
            } else if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
                format!(" ({}:{path})", or(&from["fieldRef"]["apiVersion"], "v1"))
            } else if let Some(resource) = from["resourceFieldRef"]["resource"].as_str() {
                resource.to_owned()
            } else {
                word(&variable["value"])
            };
            out.line(&word(&variable["name"]), text);
        }
    });
}

fn state(title: &str, state: &Value, out: &mut Text) {
    if state["running"].is_object() {
        out.line(title, "Running");
        out.nested(|out| out.line("Started", moment(&state["running"]["startedAt"])));
    } else if state["terminated"].is_object() {
        let ended = &state["terminated"];
        out.line(title, "Terminated");
        out.nested(|out| {
            out.line_if("Reason", &ended["reason"]);
            out.line_if("Message", &ended["message"]);
            out.line("Exit Code", or(&ended["exitCode"], "0"));
            out.line_if("Signal", &ended["signal"]);
            out.line("Started", moment(&ended["startedAt"]));
            out.line("Finished", moment(&ended["finishedAt"]));
        });
    } else {
        let waiting = &state["waiting"];
        out.line(title, "Waiting");
        out.nested(|out| {
            out.line_if("Reason", &waiting["reason"]);
            out.line_if("Message", &waiting["message"]);
        });
    }
}

fn probe(probe: &Value) -> String {
    let what = if probe["exec"].is_object() {
        let command: Vec<String> = items(&probe["exec"]["command"]).map(word).collect();
        format!("exec [{}]", command.join(" "))
    } else if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = or(&get["scheme"], "HTTP").to_lowercase();
        format!(
            "http-get {scheme}://{}:{}{}",
            word(&get["host"]),
            word(&get["port"]),
            word(&get["path"])
        )
    } else if probe["tcpSocket"].is_object() {
        format!(
            "tcp-socket {}:{}",
            word(&probe["tcpSocket"]["host"]),
            word(&probe["tcpSocket"]["port"])
        )
    } else {
        format!(
            "grpc <pod>:{} {}",
            word(&probe["grpc"]["port"]),
            word(&probe["grpc"]["service"])
        )
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        or(&probe["initialDelaySeconds"], "0"),
        or(&probe["timeoutSeconds"], "1"),
        or(&probe["periodSeconds"], "10"),
        or(&probe["successThreshold"], "1"),
        or(&probe["failureThreshold"], "3"),
    )
}

fn volumes(volumes: &Value, out: &mut Text) {
    if items(volumes).next().is_none() {
        return out.line("Volumes", "<none>");
    }
    out.section("Volumes", |out| {
        for volume in items(volumes) {
            out.section(&word(&volume["name"]), |out| {
                let source = volume
                    .as_object()
                    .into_iter()
                    .flatten()
                    .find(|(key, _)| *key != "name");
                let Some((kind, source)) = source else { return };
                let mut title = kind.clone();
                title[..1].make_ascii_uppercase();
                out.line("Type", title);
                for (key, value) in source.as_object().into_iter().flatten() {
                    match value {
                        Value::Object(_) | Value::Array(_) => {}
                        value => out.line(key, word(value)),
                    }
                }
            });
        }
    });
}

fn toleration(toleration: &Value) -> String {
    let mut text = word(&toleration["key"]);
    if let Some(value) = toleration["value"]
        .as_str()
        .filter(|value| !value.is_empty())
    {
        text.push_str(&format!("={value}"));
    }
    if let Some(effect) = toleration["effect"]
        .as_str()
        .filter(|effect| !effect.is_empty())
    {
        text.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" {
        text.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}
