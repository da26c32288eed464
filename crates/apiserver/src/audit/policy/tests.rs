use std::sync::Arc;

use api::Kind;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::request::{Subject, Target, Verb};

fn policy(rules: &Value) -> Result<Policy, String> {
    let policy = json!({"apiVersion": VERSION, "kind": "Policy", "rules": rules});
    Policy::parse(&policy.to_string())
}

#[test]
fn wrong_policies_are_refused_in_upstreams_words() {
    let rule = json!({"level": "Metadata"});
    for (text, expected) in [
        ("{".to_owned(), "failed decoding: "),
        (
            json!({"apiVersion": "audit.k8s.io/v1beta1", "kind": "Policy", "rules": [rule]}).to_string(),
            "failed decoding: no kind \"Policy\" is registered for version \"audit.k8s.io/v1beta1\"",
        ),
        (
            json!({"apiVersion": VERSION, "kind": "Policy"}).to_string(),
            "loaded illegal policy with 0 rules",
        ),
        (
            json!({"apiVersion": VERSION, "kind": "Policy", "rules": [{}]}).to_string(),
            "rules[0].level: Required value",
        ),
        (
            json!({"apiVersion": VERSION, "kind": "Policy", "omitStages": ["Begin"], "rules": [rule]}).to_string(),
            "omitStages[0]: Invalid value: \"Begin\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
        ),
    ] {
        let error = Policy::parse(&text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    for (field, value, expected) in [
        (
            "level",
            json!("All"),
            "rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
        ),
        (
            "nonResourceURLs",
            json!(["x"]),
            "rules[0].nonResourceURLs[0]: Invalid value: \"x\": non-resource URL rules must begin with a '/' character",
        ),
        (
            "nonResourceURLs",
            json!(["/a*b"]),
            "rules[0].nonResourceURLs[0]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must be the final character of the rule",
        ),
        (
            "resources",
            json!([{"resourceNames": ["n"]}]),
            "rules[0].resources.resourceNames: Invalid value: [\"n\"]: using resourceNames requires at least one resource",
        ),
    ] {
        let mut rule = rule.clone();
        rule[field] = value;
        assert_eq!(policy(&json!([rule])).unwrap_err(), expected);
    }
    let both = json!([{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["n"]}]);
    let error = policy(&both).unwrap_err();
    assert!(error.ends_with("rules cannot apply to both regular resources and non-resource URLs"));
    // What is not known is ignored.
    assert!(policy(&json!([{"level": "None", "unknown": 1}])).is_ok());
}

const USERS: [&str; 3] = ["alice", "bob", "system:node:n"];
const GROUPS: [&str; 3] = ["dev", "ops", "system:nodes"];
const VERBS: [Verb; 4] = [Verb::Get, Verb::List, Verb::Create, Verb::Delete];
const NAMESPACES: [&str; 3] = ["", "default", "kube-system"];
const PATHS: [&str; 4] = ["/", "/healthz", "/healthz/ping", "/metrics"];

fn rule() -> impl proptest::strategy::Strategy<Value = Value> {
    let some = |all: &'static [&'static str]| prop::sample::subsequence(all, 0..=all.len());
    let verbs = some(&["get", "list", "create", "delete"]);
    let resources = prop::sample::select(vec![
        json!([]),
        json!([{"group": "", "resources": ["pods"]}]),
        json!([{"group": "", "resources": ["pods/*"]}, {"group": "apps"}]),
        json!([{"group": "*", "resources": ["*/status"]}]),
        json!([{"group": "", "resources": ["secrets"], "resourceNames": ["x"]}]),
        json!([{"group": "*", "resources": ["*"]}]),
    ]);
    let urls =
        prop::sample::select(vec![json!([]), json!(["/healthz*"]), json!(["*"]), json!(["/"])]);
    let levels = prop::sample::select(&LEVELS[..]);
    (levels, some(&USERS), some(&GROUPS), verbs, some(&NAMESPACES), resources, urls).prop_map(
        |(level, users, groups, verbs, namespaces, resources, urls)| {
            let mut rule =
                json!({"level": level, "users": users, "userGroups": groups, "verbs": verbs});
            if urls == json!([]) {
                rule["namespaces"] = json!(namespaces);
                rule["resources"] = resources;
            } else {
                rule["nonResourceURLs"] = urls;
            }
            rule
        },
    )
}

/// What a rule means, said again without its code.
fn model(rule: &Value, user: &User, request: &Request) -> bool {
    let list = |field: &str| -> Vec<String> {
        serde_json::from_value(rule[field].clone()).unwrap_or_default()
    };
    let any = |field: &str, is: &dyn Fn(&str) -> bool| {
        let all = list(field);
        all.is_empty() || all.iter().any(|one| is(one))
    };
    let is_resource = matches!(request.subject, Subject::Resource { .. });
    let (verb, path) = match &request.subject {
        Subject::Resource { verb, .. } => (verb.as_str(), ""),
        Subject::Path { method, path, .. } => (*method, path.as_str()),
        Subject::Delegated(_) | Subject::Unserved(_) => unreachable!("the table has none"),
    };
    let about_resources = !list("namespaces").is_empty()
        || rule["resources"].as_array().is_some_and(|all| !all.is_empty());
    any("users", &|one| one == user.name)
        && any("userGroups", &|one| user.in_group(one))
        && any("verbs", &|one| one == verb)
        && (!about_resources || is_resource)
        && (list("nonResourceURLs").is_empty() || !is_resource)
        && any("nonResourceURLs", &|one| match one.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == one,
        })
        && match &request.subject {
            Subject::Path { .. } | Subject::Delegated(_) | Subject::Unserved(_) => true,
            Subject::Resource { target, .. } => {
                let (plural, sub) = (&*target.row.plural, target.subresource.as_str());
                let group = &*target.row.group;
                let named = match rule["resources"].to_string().as_str() {
                    "null" | "[]" => true,
                    text if text.contains("\"pods\"") => {
                        group.is_empty() && plural == "pods" && sub.is_empty()
                    }
                    text if text.contains("pods/*") => {
                        group == "apps" || (group.is_empty() && plural == "pods")
                    }
                    text if text.contains("*/status") => sub == "status",
                    text if text.contains("secrets") => {
                        group.is_empty()
                            && plural == "secrets"
                            && sub.is_empty()
                            && target.name == "x"
                    }
                    _ => true,
                };
                any("namespaces", &|one| one == target.namespace) && named
            }
        }
}

proptest! {
    /// The first rule that matches says how much is kept.
    #[test]
    fn policies_mean_what_the_model_says(
        rules in prop::collection::vec(rule(), 1..6),
        asked in prop::collection::vec(
            (0..3_usize, 0..3_usize, 0..4_usize, 0..3_usize, 0..4_usize, prop::bool::ANY, 0..3_usize, prop::bool::ANY), 1..20)
    ) {
        let policy = policy(&json!(rules)).unwrap();
        for (user, group, verb, namespace, path, is_path, kind, status) in asked {
            let user = User {
                name: USERS[user].to_owned(),
                groups: vec![GROUPS[group].to_owned()],
                ..User::default()
            };
            let rows = [Pod::ROW, Secret::ROW, Deployment::ROW];
            let subject = if is_path {
                Subject::Path { path: PATHS[path].to_owned(), method: "get", accept: String::new() }
            } else {
                let target = Target {
                    row: rows[kind].into(),
                    namespace: NAMESPACES[namespace].to_owned(),
                    name: ["x", "y"][usize::from(path > 1)].to_owned(),
                    subresource: if status { "status".to_owned() } else { String::new() },
                    subpath: String::new(),
                };
                Subject::Resource { verb: VERBS[verb], target }
            };
            let request = Request { user: Arc::new(user.clone()), ..Request::new(subject, Default::default()) };
            let first = rules.iter().find(|rule| model(rule, &user, &request));
            let expected = first.map_or("None", |rule| rule["level"].as_str().unwrap());
            prop_assert_eq!(policy.decide(&user, &request).level.text(), expected, "{:?}", request.subject);
        }
    }
}

#[test]
fn stages_are_omitted_by_the_policy_and_by_its_rules() {
    let text = json!({"apiVersion": VERSION, "kind": "Policy", "omitStages": ["RequestReceived"],
        "omitManagedFields": true, "rules": [
            {"level": "Metadata", "users": ["a"], "omitStages": ["Panic"], "omitManagedFields": false},
            {"level": "Request"}]});
    let policy = Policy::parse(&text.to_string()).unwrap();
    let omitted: Vec<_> = policy.0.iter().map(|(_, decision)| decision.omitted).collect();
    assert_eq!(omitted, [[true, false, false, true], [true, false, false, false]]);
    let managed: Vec<_> =
        policy.0.iter().map(|(_, decision)| decision.omits_managed_fields).collect();
    assert_eq!(managed, [false, true]);
}
