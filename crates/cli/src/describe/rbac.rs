//! Roles and their bindings, PodDisruptionBudgets and NetworkPolicies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::describe::text::{self, Description, bracketed, items, word};
use crate::describe::{heading, labels};

pub fn role(object: &Value, out: &mut Description) {
    out.line("Name", word(&object["metadata"]["name"]));
    labels(object, out);
    let rows = rows(&object["rules"]);
    out.section("PolicyRule", |out| {
        out.cells(&["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]);
        out.cells(&["---------", "-----------------", "--------------", "-----"]);
        for row in &rows {
            out.cells(&row.each_ref().map(String::as_str));
        }
    });
}

/// The key of one row: group, resource, resource names, URLs.
type Subject = (String, String, String, String);

/// One row per resource, with the verbs of all its rules, sorted as in kubectl: by verbs, group and
/// resource in their printed form.
pub fn rows(rules: &Value) -> Vec<[String; 4]> {
    let mut verbs: BTreeMap<Subject, Vec<String>> = BTreeMap::new();
    let mut rows: Vec<(Vec<String>, Subject)> = Vec::new();
    for rule in items(rules) {
        let (names, urls) =
            (bracketed(&rule["resourceNames"]), bracketed(&rule["nonResourceURLs"]));
        let own: Vec<String> = items(&rule["verbs"]).map(word).collect();
        for url in items(&rule["nonResourceURLs"]) {
            let url = format!("[{}]", word(url));
            rows.push((own.clone(), (String::new(), String::new(), names.clone(), url)));
        }
        let several = items(&rule["resourceNames"]).nth(1).is_some();
        for group in items(&rule["apiGroups"]) {
            for resource in items(&rule["resources"]) {
                let subject = (word(group), word(resource), names.clone(), urls.clone());
                if several {
                    rows.push((own.clone(), subject));
                } else {
                    let joined: &mut Vec<String> = verbs.entry(subject).or_default();
                    for verb in &own {
                        if !joined.contains(verb) {
                            joined.push(verb.clone());
                        }
                    }
                }
            }
        }
    }
    rows.extend(verbs.into_iter().map(|(subject, verbs)| (verbs, subject)));
    let printed = |verbs: &[String]| format!("[{}]", verbs.join(" "));
    rows.sort_by_cached_key(|(verbs, (group, resource, names, urls))| {
        let verbs = printed(verbs);
        format!("{verbs},[{group}],[{resource}],{names},{urls}")
    });
    rows.into_iter()
        .map(|(verbs, (group, resource, names, urls))| {
            [title(&group, &resource), urls, names, printed(&verbs)]
        })
        .collect()
}

/// `deployments.apps/scale`
fn title(group: &str, resource: &str) -> String {
    let (name, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let mut title = name.to_owned();
    if !group.is_empty() {
        title.push_str(&format!(".{group}"));
    }
    if !subresource.is_empty() {
        title.push_str(&format!("/{subresource}"));
    }
    title
}

pub fn binding(object: &Value, out: &mut Description) {
    out.line("Name", word(&object["metadata"]["name"]));
    labels(object, out);
    out.section("Role", |out| {
        out.line("Kind", word(&object["roleRef"]["kind"]));
        out.line("Name", word(&object["roleRef"]["name"]));
    });
    out.section("Subjects", |out| {
        out.cells(&["Kind", "Name", "Namespace"]);
        out.cells(&["----", "----", "---------"]);
        for subject in items(&object["subjects"]) {
            let cell = |field: &str| word(&subject[field]);
            out.cells(&[&cell("kind"), &cell("name"), &cell("namespace")]);
        }
    });
}

pub fn disruption_budget(object: &Value, out: &mut Description) {
    heading(object, out);
    let (spec, status) = (&object["spec"], &object["status"]);
    out.line_if("Min available", &spec["minAvailable"]);
    out.line_if("Max unavailable", &spec["maxUnavailable"]);
    out.line("Selector", text::selector(&spec["selector"], "<unset>"));
    out.raw("Status:");
    out.deeper(2, |out| {
        for (title, field) in [
            ("Allowed disruptions", "disruptionsAllowed"),
            ("Current", "currentHealthy"),
            ("Desired", "desiredHealthy"),
            ("Total", "expectedPods"),
        ] {
            out.line_or(title, &status[field], "0");
        }
    });
}

pub fn network_policy(object: &Value, out: &mut Description) {
    let spec = &object["spec"];
    heading(object, out);
    let created = text::time(&object["metadata"]["creationTimestamp"]);
    let created = created
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
        .unwrap_or_default();
    out.line("Created on", created);
    labels(object, out);
    out.section("Spec", |out| {
        let none = "<none> (Allowing the specific traffic to all pods in this namespace)";
        let pods = text::selector(&spec["podSelector"], none);
        out.raw(&format!("PodSelector:     {pods}"));
        for (kind, word, list, peers) in [
            ("Ingress", "ingress", "ingress", ("From", "from")),
            ("Egress", "egress", "egress", ("To", "to")),
        ] {
            let applies = items(&spec["policyTypes"]).any(|one| one == kind);
            if !applies {
                out.raw(&format!("Not affecting {word} traffic"));
                continue;
            }
            out.section(&format!("Allowing {word} traffic"), |out| {
                rules(&spec[list], kind, peers, out);
            });
        }
        let kinds: Vec<String> = items(&spec["policyTypes"]).map(word).collect();
        out.raw(&format!("Policy Types: {}", kinds.join(", ")));
    });
}

fn rules(rules: &Value, kind: &str, (title, field): (&str, &str), out: &mut Description) {
    if items(rules).next().is_none() {
        let word = kind.to_lowercase();
        return out.raw(&format!("<none> (Selected pods are isolated for {word} connectivity)"));
    }
    for (index, rule) in items(rules).enumerate() {
        if index > 0 {
            out.raw("----------");
        }
        let ports: Vec<&Value> = items(&rule["ports"]).collect();
        if ports.is_empty() {
            out.raw("To Port: <any> (traffic allowed to all ports)");
        }
        for port in ports {
            let number = text::or(&port["port"], "<any>");
            out.raw(&format!("To Port: {number}/{}", text::or(&port["protocol"], "TCP")));
        }
        let sources: Vec<&Value> = items(&rule[field]).collect();
        if sources.is_empty() {
            out.raw(&format!(
                "{title}: <any> (traffic not restricted by {})",
                if field == "from" { "source" } else { "destination" }
            ));
        }
        for peer in sources {
            out.section(title, |out| {
                let none = json!(null);
                for (title, selector) in [
                    ("NamespaceSelector", peer.get("namespaceSelector").unwrap_or(&none)),
                    ("PodSelector", peer.get("podSelector").unwrap_or(&none)),
                ] {
                    if selector.is_object() {
                        out.raw(&format!("{title}: {}", text::selector(selector, "<none>")));
                    }
                }
                if peer["ipBlock"].is_object() {
                    out.section("IPBlock", |out| {
                        out.raw(&format!("CIDR: {}", word(&peer["ipBlock"]["cidr"])));
                        let except = text::joined(&peer["ipBlock"]["except"], ", ", "");
                        out.raw(&format!("Except: {except}"));
                    });
                }
            });
        }
    }
}
