//! Tables of rules, and of what webhooks answer.

use std::sync::Arc;

use api::{Kind, KindRow};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, RuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde_json::{Value, json};

use super::asked::Operation;
use super::configuration::{Hook, Hooks, Phase};
use super::review;
use super::select::{Head, has_no_policies, is_exempt, matches};

fn rule(operations: &str, groups: &str, versions: &str, resources: &str, scope: &str) -> Value {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    json!({"operations": list(operations), "apiGroups": list(groups),
        "apiVersions": list(versions), "resources": list(resources), "scope": scope})
}

/// The webhooks of a configuration with one for each list of rules.
fn hooks(rules: &[Value]) -> Vec<Arc<Hook>> {
    let webhook = |rule: &Value| {
        json!({"name": "a.example.com", "rules": [rule], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://a"}})
    };
    let webhooks: Vec<_> = rules.iter().map(webhook).collect();
    let json = json!({"metadata": {"name": "c"}, "webhooks": webhooks}).to_string();
    let found = MutatingWebhookConfiguration::decode(json.as_bytes()).unwrap();
    let hooks = found.webhooks.unwrap().into_iter().enumerate();
    hooks.map(|(index, hook)| Arc::new(Hook::new("c", index, hook, Phase::Mutating))).collect()
}

fn parsed(rule: &Value) -> RuleWithOperations {
    hooks(std::slice::from_ref(rule))[0].rules[0].clone()
}

#[test]
fn rules_name_requests() {
    let (create, connect) = (Operation::Create, Operation::Connect);
    let pods = |operations, resources, scope| rule(operations, "", "v1", resources, scope);
    let all = rule("*", "*", "*", "*/*", "*");
    let cases: Vec<(Value, Operation, &KindRow, &str, bool)> = vec![
        (pods("CREATE", "pods", "*"), create, Pod::ROW, "", true),
        (pods("CREATE", "pods", "*"), create, Pod::ROW, "status", false),
        (pods("CREATE", "pods", "*"), connect, Pod::ROW, "", false),
        (pods("*", "pods/exec", "*"), connect, Pod::ROW, "exec", true),
        (pods("CREATE,CONNECT", "pods/*", "*"), connect, Pod::ROW, "exec", true),
        (pods("CREATE", "pods/*", "*"), create, Pod::ROW, "", true),
        (pods("CREATE", "*", "*"), create, Pod::ROW, "", true),
        (pods("CREATE", "*", "*"), create, Pod::ROW, "binding", false),
        (pods("CREATE", "*/binding", "*"), create, Pod::ROW, "binding", true),
        (pods("CREATE", "nodes,pods", "Namespaced"), create, Pod::ROW, "", true),
        (pods("CREATE", "pods", "Cluster"), create, Pod::ROW, "", false),
        (pods("CREATE", "nodes", "Cluster"), create, Node::ROW, "", true),
        (pods("CREATE", "nodes", "Namespaced"), create, Node::ROW, "", false),
        (pods("CREATE", "namespaces", "Cluster"), create, Namespace::ROW, "", true),
        (pods("CREATE", "namespaces", "Namespaced"), create, Namespace::ROW, "", false),
        (pods("CREATE", "deployments", "*"), create, Deployment::ROW, "", false),
        (rule("CREATE", "apps", "*", "deployments", "*"), create, Deployment::ROW, "", true),
        (rule("CREATE", "apps", "v2", "deployments", "*"), create, Deployment::ROW, "", false),
        (all.clone(), connect, Pod::ROW, "proxy", true),
        (all, create, Deployment::ROW, "scale", true),
    ];
    for (json, operation, row, subresource, expected) in cases {
        let is_in_namespace = row.namespaced();
        let head = Head { operation, subresource, is_in_namespace };
        let named = matches(&parsed(&json), &head, row);
        assert_eq!(named, expected, "{operation:?} {row}/{subresource} by {json}");
    }
}

#[test]
fn webhooks_are_found_by_resource_in_their_order() {
    let of = |resources| rule("*", "*", "*", resources, "*");
    let rules = [of("pods"), of("*"), of("pods/exec,nodes,pods"), of("secrets"), of("*/scale")];
    let hooks = Hooks::new(hooks(&rules));
    let found = |plural: &str| -> Vec<String> {
        let ids = hooks.about(plural).map(|hook| hook.id.clone());
        ids.map(|id| id.rsplit('/').next().unwrap().to_owned()).collect()
    };
    assert_eq!(found("pods"), ["0", "1", "2", "4"]);
    assert_eq!(found("nodes"), ["1", "2", "4"]);
    assert_eq!(found("leases"), ["1", "4"]);
    assert_eq!(Hooks::default().about("pods").count(), 0);
}

/// Nobody can be locked out of what decides who he is and what he may do, or of repairing a
/// configuration.
#[test]
fn some_resources_are_exempt() {
    let table: [(&KindRow, bool, bool); 11] = [
        (MutatingWebhookConfiguration::ROW, true, false),
        (ValidatingWebhookConfiguration::ROW, true, false),
        (ValidatingAdmissionPolicy::ROW, true, true),
        (MutatingAdmissionPolicyBinding::ROW, true, true),
        (TokenReview::ROW, true, true),
        (SelfSubjectReview::ROW, true, true),
        (SubjectAccessReview::ROW, true, true),
        (LocalSubjectAccessReview::ROW, true, true),
        (SelfSubjectAccessReview::ROW, true, true),
        (SelfSubjectRulesReview::ROW, true, true),
        (Pod::ROW, false, false),
    ];
    for (row, no_webhooks, no_policies) in table {
        assert_eq!((is_exempt(row), has_no_policies(row)), (no_webhooks, no_policies), "{row:?}");
    }
}

/// What a webhook answers, and what is made of it.
#[test]
fn answers_are_judged() {
    const PATCH: &str = "W10=";
    let (v1, beta) = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let good = json!({"uid": "u", "allowed": true});
    let review = |api_version: &str, kind: &str, response: Value| json!({"apiVersion": api_version, "kind": kind, "response": response});
    let with = |name: &str, value: &str| {
        let mut response = good.clone();
        response[name] = value.into();
        review(v1, "AdmissionReview", response)
    };
    let both = {
        let mut both = with("patch", PATCH);
        both["response"]["patchType"] = "JSONPatch".into();
        both
    };
    let mut listed = both.clone();
    listed["response"]["patch"] = json!([91, 93]);
    let cases: Vec<(Value, &str, bool, Result<(), &str>)> = vec![
        (review(v1, "AdmissionReview", good.clone()), "v1", true, Ok(())),
        (both.clone(), "v1", true, Ok(())),
        (listed, "v1", true, Ok(())),
        (json!({}), "v1", true, Err("webhook response was absent")),
        (with("uid", "x"), "v1", true, Err("expected response.uid=\"u\", got \"x\"")),
        (
            review("", "", good.clone()),
            "v1",
            true,
            Err(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
            ),
        ),
        (
            review("v1", "Pod", good.clone()),
            "v1",
            true,
            Err(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod",
            ),
        ),
        (
            with("patch", PATCH),
            "v1",
            true,
            Err("webhook returned response.patch but not response.patchType"),
        ),
        (
            with("patchType", "JSONPatch"),
            "v1",
            true,
            Err("webhook returned response.patchType but not response.patch"),
        ),
        (both, "v1", false, Err("validating webhook may not return response.patch")),
        (
            with("patchType", "JSONPatch"),
            "v1",
            false,
            Err("validating webhook may not return response.patchType"),
        ),
        // The older version was never checked.
        (review(beta, "AdmissionReview", json!({"allowed": true})), "v1beta1", true, Ok(())),
        (json!({"response": {"allowed": true, "patch": PATCH}}), "v1beta1", true, Ok(())),
        (json!({}), "v1beta1", false, Err("webhook response was absent")),
    ];
    for (json, version, mutating, expected) in cases {
        let answer = review::Answer::read(json.to_string().as_bytes()).unwrap();
        let accepted = answer.accept(version, "u", mutating);
        let outcome = accepted.as_ref().map(|accepted| assert!(accepted.allowed));
        assert_eq!(outcome.map_err(String::as_str), expected, "{version} {json}");
    }
    for wrong in ["", "[]", r#"{"response":{"allowed":"yes"}}"#, r#"{"response":{"warnings":"w"}}"#]
    {
        assert!(review::Answer::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn denials_say_who_denies() {
    let cases = [
        (None, 400, "denied the request without explanation"),
        (Some(r#"{"message":"no"}"#), 400, "denied the request: no"),
        (Some(r#"{"reason":"Because","code":200}"#), 400, "denied the request: Because"),
        (Some(r#"{"message":"no","code":418,"status":"Success"}"#), 418, "denied the request: no"),
    ];
    for (status, code, expected) in cases {
        let status = status.map(|json| serde_json::from_str(json).unwrap());
        let error = review::denial("a.b.c", status);
        assert_eq!(error.message(), format!("admission webhook \"a.b.c\" {expected}"));
        assert_eq!((error.code(), error.status().status.as_deref()), (code, Some("Failure")));
    }
}
