//! The state of an object in few words: from the columns that the server prints of its kind, so
//! that custom resources have one too. And what an object refers to without owning it. Pure.

use serde_json::Value;

use super::graph::Relation;
use crate::describe::text::{items, or, word};
use crate::output::go_text;

/// The columns of the server's table that make the status, where it is not `Status`.
const STATUS_COLUMNS: [(&str, &[&str]); 6] = [
    ("CronJob", &["Schedule"]),
    ("EndpointSlice", &["Ports", "Endpoints"]),
    ("Lease", &["Holder"]),
    ("PersistentVolumeClaim", &["Status", "Volume"]),
    ("PersistentVolume", &["Status", "Claim"]),
    ("Service", &["Type", "Cluster-IP", "Port(s)"]),
];
/// Conditions that are bad if they hold, and those that are bad if they do not.
const BAD: [&str; 3] = ["Failed", "ReplicaFailure", "Stalled"];
const GOOD: [&str; 4] = ["Ready", "Available", "Progressing", "Established"];

/// What is shown of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `2/3`; empty for kinds that are not counted.
    pub ready: String,
    pub status: String,
}

impl State {
    /// Whether fewer are ready than wanted.
    pub fn is_short(&self) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        let parts = self.ready.split_once('/');
        parts.is_some_and(|(ready, wanted)| number(ready) < number(wanted))
    }
}

/// The state of a row of a table of that kind; the row includes the object.
pub fn state(kind: &str, definitions: &Value, row: &Value) -> State {
    let cell = |name: &str| {
        let index = items(definitions).position(|column| column["name"] == name)?;
        let text = go_text(&row["cells"][index]);
        (!row["cells"][index].is_null() && !text.is_empty()).then_some(text)
    };
    let ready = match (cell("Ready"), cell("Desired")) {
        (Some(ready), Some(desired)) => format!("{ready}/{desired}"),
        (Some(ready), None) => ready,
        (None, _) => cell("Completions").unwrap_or_default(),
    };
    let object = &row["object"];
    let columns = STATUS_COLUMNS.iter().find(|(other, _)| *other == kind);
    let columns = columns.map_or(&["Status"][..], |(_, columns)| columns);
    let cells: Vec<String> = columns.iter().filter_map(|name| cell(name)).collect();
    let status = if cells.is_empty() { conditions(object) } else { cells.join(" ") };
    let deleting = !object["metadata"]["deletionTimestamp"].is_null();
    let status =
        if deleting && !status.starts_with("Terminating") { terminating(object) } else { status };
    State { ready, status }
}

fn terminating(object: &Value) -> String {
    let finalizers: Vec<String> = items(&object["metadata"]["finalizers"]).map(word).collect();
    match finalizers.is_empty() {
        true => "Terminating".to_owned(),
        false => format!("Terminating (finalizers {})", finalizers.join(", ")),
    }
}

/// The reasons of conditions that are not as they should be.
fn conditions(object: &Value) -> String {
    let is_bad = |condition: &&Value| {
        let kind = word(&condition["type"]);
        (BAD.contains(&kind.as_str()) && condition["status"] == "True")
            || (GOOD.contains(&kind.as_str()) && condition["status"] == "False")
    };
    let bad = items(&object["status"]["conditions"]).filter(is_bad);
    let reasons: Vec<String> =
        bad.map(|condition| or(&condition["reason"], &word(&condition["type"]))).collect();
    reasons.join(", ")
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub kind: &'static str,
    pub name: String,
    pub state: State,
    pub started: Option<jiff::Timestamp>,
}

/// The containers of a pod, in the order in which they start.
pub fn containers(pod: &Value) -> Vec<Container> {
    let lists = [
        ("InitContainer", "initContainers", "initContainerStatuses"),
        ("Container", "containers", "containerStatuses"),
        ("EphemeralContainer", "ephemeralContainers", "ephemeralContainerStatuses"),
    ];
    let mut found = Vec::new();
    for (kind, list, statuses) in lists {
        for container in items(&pod["spec"][list]) {
            let status = items(&pod["status"][statuses])
                .find(|status| status["name"] == container["name"])
                .unwrap_or(&Value::Null);
            let started = &status["state"]["running"]["startedAt"];
            found.push(Container {
                kind,
                name: word(&container["name"]),
                state: container_state(status),
                started: started.as_str().and_then(|time| time.parse().ok()),
            });
        }
    }
    found
}

fn container_state(status: &Value) -> State {
    let state = &status["state"];
    let mut text = if state["running"].is_object() {
        "Running".to_owned()
    } else if let Some(ended) = state["terminated"].as_object() {
        let reason = or(&ended["reason"].clone(), "Terminated");
        match ended["exitCode"].as_i64() {
            Some(0) | None => reason,
            Some(code) => format!("{reason} (exit code {code})"),
        }
    } else {
        or(&state["waiting"]["reason"], "Waiting")
    };
    if let Some(restarts @ 1..) = status["restartCount"].as_i64() {
        text.push_str(&format!(" (restarts {restarts})"));
    }
    // A container that has ended as it should is not ready either.
    let counted = !state["terminated"].is_object() && status["ready"].is_boolean();
    let ready = if status["ready"] == true { "1/1" } else { "0/1" };
    State { ready: if counted { ready.to_owned() } else { String::new() }, status: text }
}

/// A namespaced object that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Named {
        relation: Relation,
        kind: &'static str,
        name: String,
    },
    /// Claims named `TEMPLATE-SET-ORDINAL`.
    Claims {
        prefix: String,
    },
}

impl Reference {
    pub fn relation(&self) -> Relation {
        match self {
            Self::Named { relation, .. } => *relation,
            Self::Claims { .. } => Relation::Claim,
        }
    }

    /// Whether it refers to an object of that kind and name.
    pub fn is_to(&self, kind: &str, name: &str) -> bool {
        match self {
            Self::Named { kind: other, name: wanted, .. } => *other == kind && wanted == name,
            Self::Claims { prefix } => {
                let ordinal = name.strip_prefix(prefix.as_str());
                let is_number = |text: &str| {
                    !text.is_empty() && text.chars().all(|character| character.is_ascii_digit())
                };
                kind == "PersistentVolumeClaim" && ordinal.is_some_and(is_number)
            }
        }
    }
}

/// What an object of its namespace refers to, other than by owner references.
pub fn references(kind: &str, object: &Value) -> Vec<Reference> {
    let name = word(&object["metadata"]["name"]);
    match kind {
        "EndpointSlice" => items(&object["endpoints"])
            .filter(|endpoint| endpoint["targetRef"]["kind"] == "Pod")
            .map(|endpoint| Reference::Named {
                relation: Relation::Endpoint,
                kind: "Pod",
                name: word(&endpoint["targetRef"]["name"]),
            })
            .collect(),
        "StatefulSet" => items(&object["spec"]["volumeClaimTemplates"])
            .map(|claim| Reference::Claims {
                prefix: format!("{}-{name}-", word(&claim["metadata"]["name"])),
            })
            .collect(),
        "Pod" => items(&object["spec"]["volumes"])
            .filter(|volume| volume["persistentVolumeClaim"].is_object())
            .map(|volume| Reference::Named {
                relation: Relation::Claim,
                kind: "PersistentVolumeClaim",
                name: word(&volume["persistentVolumeClaim"]["claimName"]),
            })
            .collect(),
        _ => Vec::new(),
    }
}
