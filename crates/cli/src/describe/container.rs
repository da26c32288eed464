//! Containers of pods and of pod templates.

use api::quantity::Quantity;
use serde_json::Value;

use crate::describe::text::{Description, fields, items, joined, moment, or, truth, word};

/// The containers of a list. Without a pod they are a template's, which kubectl indents by one more
/// space.
pub fn containers(
    title: &str,
    containers: &Value,
    statuses: &Value,
    pod: Option<&Value>,
    out: &mut Description,
) {
    if items(containers).next().is_none() {
        return;
    }
    let template = pod.is_none();
    out.raw(&format!("{}{title}:", if template { "  " } else { "" }));
    for container in items(containers) {
        let status = items(statuses).find(|status| status["name"] == container["name"]);
        out.nested(|out| {
            let space = if template { " " } else { "" };
            out.raw(&format!("{space}{}:", word(&container["name"])));
        });
        out.deeper(2, |out| one(container, status, pod, out));
    }
}

fn one(container: &Value, status: Option<&Value>, pod: Option<&Value>, out: &mut Description) {
    if let Some(status) = status {
        out.line("Container ID", word(&status["containerID"]));
    }
    out.line("Image", word(&container["image"]));
    if let Some(status) = status {
        out.line("Image ID", word(&status["imageID"]));
    }
    ports(container, out);
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        if items(&container[field]).next().is_some() {
            out.section(title, |out| {
                items(&container[field])
                    .flat_map(|part| word(part).lines().map(str::to_owned).collect::<Vec<_>>())
                    .for_each(|line| out.raw(&line));
            });
        }
    }
    if let Some(status) = status {
        state("State", &status["state"], out);
        if status["lastState"]["terminated"].is_object() {
            state("Last State", &status["lastState"], out);
        }
        out.line("Ready", truth(&status["ready"], "False"));
        out.line_or("Restart Count", &status["restartCount"], "0");
    }
    for (title, side) in [("Limits", "limits"), ("Requests", "requests")] {
        let amounts = &container["resources"][side];
        if fields(amounts).next().is_some() {
            out.section(title, |out| {
                fields(amounts).for_each(|(name, amount)| out.line(name, word(amount)));
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
    environment(container, pod, out);
    mounts(container, out);
}

fn ports(container: &Value, out: &mut Description) {
    let list = |field: &str| -> Vec<String> {
        items(&container["ports"])
            .map(|port| format!("{}/{}", or(&port[field], "0"), or(&port["protocol"], "TCP")))
            .collect()
    };
    let (own, host) = (list("containerPort"), list("hostPort"));
    let plural = if own.len() > 1 { "s" } else { "" };
    let text = |list: Vec<String>| {
        if list.is_empty() { "<none>".to_owned() } else { list.join(", ") }
    };
    out.line(&format!("Port{plural}"), text(own));
    out.line(&format!("Host Port{plural}"), text(host));
}

fn state(title: &str, state: &Value, out: &mut Description) {
    if state["running"].is_object() {
        out.line(title, "Running");
        out.nested(|out| out.line("Started", moment(&state["running"]["startedAt"])));
    } else if state["terminated"].is_object() {
        let ended = &state["terminated"];
        out.line(title, "Terminated");
        out.nested(|out| {
            out.line_if("Reason", &ended["reason"]);
            out.line_if("Message", &ended["message"]);
            out.line_or("Exit Code", &ended["exitCode"], "0");
            out.line_if("Signal", &ended["signal"]);
            out.line("Started", moment(&ended["startedAt"]));
            out.line("Finished", moment(&ended["finishedAt"]));
        });
    } else {
        let waiting = &state["waiting"];
        out.line(title, "Waiting");
        out.nested(|out| out.line_if("Reason", &waiting["reason"]));
    }
}

fn probe(probe: &Value) -> String {
    let what = if probe["exec"].is_object() {
        format!("exec [{}]", joined(&probe["exec"]["command"], " ", ""))
    } else if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = or(&get["scheme"], "HTTP").to_lowercase();
        let (host, port, path) = (word(&get["host"]), word(&get["port"]), word(&get["path"]));
        format!("http-get {scheme}://{host}:{port}{path}")
    } else if probe["tcpSocket"].is_object() {
        let socket = &probe["tcpSocket"];
        format!("tcp-socket {}:{}", word(&socket["host"]), word(&socket["port"]))
    } else {
        let grpc = &probe["grpc"];
        format!("grpc <pod>:{} {}", word(&grpc["port"]), word(&grpc["service"]))
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

fn environment(container: &Value, pod: Option<&Value>, out: &mut Description) {
    if items(&container["envFrom"]).next().is_some() {
        out.section("Environment Variables from", |out| {
            for source in items(&container["envFrom"]) {
                for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                    let from = &source[field];
                    if from.is_object() {
                        let prefix = source["prefix"]
                            .as_str()
                            .map(|prefix| format!(" with prefix '{prefix}'"))
                            .unwrap_or_default();
                        let optional = format!("Optional: {}", from["optional"] == true);
                        out.cells(&[&word(&from["name"]), &format!("{kind}{prefix}"), &optional]);
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
            let name = format!("{}:", word(&variable["name"]));
            let from = &variable["valueFrom"];
            let optional = |field: &str| format!("Optional: {}", from[field]["optional"] == true);
            if let Some(key) = from["secretKeyRef"]["key"].as_str() {
                let secret = word(&from["secretKeyRef"]["name"]);
                let text = format!("<set to the key '{key}' in secret '{secret}'>");
                out.cells(&[&name, &text, &optional("secretKeyRef")]);
            } else if let Some(key) = from["configMapKeyRef"]["key"].as_str() {
                let map = word(&from["configMapKeyRef"]["name"]);
                let text = format!("<set to the key '{key}' of config map '{map}'>");
                out.cells(&[&name, &text, &optional("configMapKeyRef")]);
            } else if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
                let version = or(&from["fieldRef"]["apiVersion"], "v1");
                let value = match path.strip_prefix("metadata.") {
                    Some(field @ ("name" | "namespace")) => {
                        pod.map(|pod| word(&pod["metadata"][field]))
                    }
                    _ => None,
                };
                let value = value.unwrap_or_default();
                out.cells(&[&name, &format!("{value} ({version}:{path})")]);
            } else if let Some(resource) = from["resourceFieldRef"]["resource"].as_str() {
                let amount = amount(container, resource, &from["resourceFieldRef"]["divisor"]);
                out.cells(&[&name, &format!("{amount} ({resource})")]);
            } else {
                for (index, line) in word(&variable["value"]).split('\n').enumerate() {
                    out.cells(&[if index == 0 { &name } else { "" }, line]);
                }
            }
        }
    });
}

/// The value of a `resourceFieldRef`, in units of its divisor, rounded up.
fn amount(container: &Value, resource: &str, divisor: &Value) -> i64 {
    let quantity = |value: &Value| {
        let text = k8s_openapi::apimachinery::pkg::api::resource::Quantity(word(value));
        Quantity::of(&text)
    };
    let (side, name) = resource.split_once('.').unwrap_or(("", resource));
    let amount = quantity(&container["resources"][side][name]);
    let divisor = match or(divisor, "1").as_str() {
        "0" => Quantity::from_units(1),
        text => quantity(&Value::from(text)),
    };
    let divisor = divisor.millis().max(1);
    amount.millis().div_euclid(divisor) + i64::from(amount.millis().rem_euclid(divisor) > 0)
}

fn mounts(container: &Value, out: &mut Description) {
    let mut mounts: Vec<(String, String)> = items(&container["volumeMounts"])
        .map(|mount| {
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            let path =
                mount["subPath"].as_str().map(|path| format!(",path={path:?}")).unwrap_or_default();
            let place = word(&mount["mountPath"]);
            let text = format!("{place} from {} ({mode}{path})", word(&mount["name"]));
            (place, text)
        })
        .collect();
    mounts.sort();
    if mounts.is_empty() {
        return out.line("Mounts", "<none>");
    }
    out.section("Mounts", |out| mounts.iter().for_each(|(_, text)| out.raw(text)));
}
