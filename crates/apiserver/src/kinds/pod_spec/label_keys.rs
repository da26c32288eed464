//! `matchLabelKeys` and `mismatchLabelKeys` of pod affinity and topology spread: keys whose values
//! in the pod itself become part of the selector when the pod is created.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::kinds::at::At;

type Labels = BTreeMap<String, String>;

/// Merges the pod's own values of the keys into the selectors, once, on creation.
pub fn merge(spec: &mut PodSpec, labels: Option<&Labels>) {
    let none = Labels::new();
    let labels = labels.unwrap_or(&none);
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let keys = constraint.match_label_keys.as_deref();
        require(&mut constraint.label_selector, keys, "In", labels);
    }
    let Some(affinity) = spec.affinity.as_mut() else {
        return;
    };
    if let Some(pods) = affinity.pod_affinity.as_mut() {
        let required = pods.required_during_scheduling_ignored_during_execution.iter_mut();
        required.flatten().for_each(|term| merge_term(term, labels));
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut();
        preferred.flatten().for_each(|term| merge_term(&mut term.pod_affinity_term, labels));
    }
    if let Some(pods) = affinity.pod_anti_affinity.as_mut() {
        let required = pods.required_during_scheduling_ignored_during_execution.iter_mut();
        required.flatten().for_each(|term| merge_term(term, labels));
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut();
        preferred.flatten().for_each(|term| merge_term(&mut term.pod_affinity_term, labels));
    }
}

fn merge_term(term: &mut PodAffinityTerm, labels: &Labels) {
    require(&mut term.label_selector, term.match_label_keys.as_deref(), "In", labels);
    require(&mut term.label_selector, term.mismatch_label_keys.as_deref(), "NotIn", labels);
}

/// A selector that is not set selects nothing, with and without keys.
fn require(
    selector: &mut Option<LabelSelector>,
    keys: Option<&[String]>,
    operator: &str,
    labels: &Labels,
) {
    let Some(selector) = selector else { return };
    for key in keys.into_iter().flatten() {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}

/// `ValidateMatchLabelKeysAndMismatchLabelKeys`: after the merge the selector has each key once.
pub fn validate(
    matching: Option<&[String]>,
    mismatching: Option<&[String]>,
    selector: Option<&LabelSelector>,
    at: &At<'_>,
) {
    let matching = matching.unwrap_or_default();
    let mismatching = mismatching.unwrap_or_default();
    for (field, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let at = at.child(field);
        if !keys.is_empty() && selector.is_none() {
            at.forbidden("must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            at.index(index).qualified_name(key);
        }
    }
    let labels = selector.iter().flat_map(|own| own.match_labels.iter().flatten());
    let mut seen: BTreeSet<&str> = labels.map(|(key, _)| key.as_str()).collect();
    let indexes: BTreeMap<&str, usize> =
        matching.iter().enumerate().map(|(index, key)| (key.as_str(), index)).collect();
    let expressions = selector.iter().flat_map(|own| own.match_expressions.iter().flatten());
    for expression in expressions {
        let key = expression.key.as_str();
        if let Some(index) = indexes.get(key).filter(|_| seen.contains(key)) {
            at.index(*index).invalid(key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.insert(key);
    }
    let mismatching: BTreeSet<&String> = mismatching.iter().collect();
    for (index, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let problem = "exists in both matchLabelKeys and mismatchLabelKeys";
        let at = at.item("matchLabelKeys", index);
        at.invalid(key, problem);
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use crate::kinds::Strategy;

    /// The pod as it is stored, or the fields that are wrong.
    fn created(spec: Value) -> Result<Value, Vec<String>> {
        let mut object = json!({
            "metadata": {"name": "p", "labels": {"hash": "1", "app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut pod = Pod::decode(object.to_string().as_bytes()).unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let context = crate::kinds::Context { now, ..crate::kinds::tests::context() };
        crate::kinds::pod::RULES.prepare_create(&mut pod, &context);
        let errors = crate::kinds::pod::RULES.validate(&pod);
        if !errors.is_empty() {
            return Err(errors
                .iter()
                .map(|error| format!("{}: {}", error.field, error.detail))
                .collect());
        }
        let stored: Value = serde_json::from_slice(&pod.encode()).unwrap();
        Ok(stored["spec"].clone())
    }

    /// One pod per place where the keys can be, and where its selector is.
    fn places(term: &Value) -> Vec<(Value, String)> {
        let mut all = vec![{
            let mut term = term.clone();
            term.as_object_mut().unwrap().remove("mismatchLabelKeys");
            term["maxSkew"] = json!(1);
            term["whenUnsatisfiable"] = json!("DoNotSchedule");
            let spec = json!({"topologySpreadConstraints": [term]});
            (spec, "/topologySpreadConstraints/0".to_owned())
        }];
        for side in ["podAffinity", "podAntiAffinity"] {
            let required = "requiredDuringSchedulingIgnoredDuringExecution";
            let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
            all.push((
                json!({"affinity": {side: {required: [term]}}}),
                format!("/affinity/{side}/{required}/0"),
            ));
            all.push((
                json!({"affinity": {side: {preferred: [{"weight": 1, "podAffinityTerm": term}]}}}),
                format!("/affinity/{side}/{preferred}/0/podAffinityTerm"),
            ));
        }
        all
    }

    #[test]
    fn the_pods_own_values_join_the_selector() {
        let term = json!({
            "topologyKey": "zone",
            "labelSelector": {"matchLabels": {"app": "web"}},
            "matchLabelKeys": ["hash", "absent"],
            "mismatchLabelKeys": ["tenant"],
        });
        for (spec, at) in places(&term) {
            let stored = created(spec).unwrap();
            let expressions = &stored.pointer(&at).unwrap()["labelSelector"]["matchExpressions"];
            let expected = json!([{"key": "hash", "operator": "In", "values": ["1"]}]);
            assert_eq!(expressions, &expected, "{at}");
        }
        let term =
            json!({"topologyKey": "zone", "labelSelector": {}, "mismatchLabelKeys": ["app"]});
        for (spec, at) in places(&term).into_iter().skip(1) {
            let stored = created(spec).unwrap();
            let expressions = &stored.pointer(&at).unwrap()["labelSelector"]["matchExpressions"];
            let expected = json!([{"key": "app", "operator": "NotIn", "values": ["web"]}]);
            assert_eq!(expressions, &expected, "{at}");
        }
    }

    #[test]
    fn keys_that_make_no_sense_are_refused() {
        for (selector, keys, problem) in [
            (Value::Null, json!(["hash"]), "must not be specified when labelSelector is not set"),
            (json!({}), json!(["a b"]), "name part must consist of"),
            (
                json!({"matchLabels": {"hash": "2"}}),
                json!(["hash"]),
                "exists in both matchLabelKeys and labelSelector",
            ),
        ] {
            let mut term = json!({"topologyKey": "zone", "matchLabelKeys": keys});
            if !selector.is_null() {
                term["labelSelector"] = selector;
            }
            for (spec, at) in places(&term) {
                let errors = created(spec).unwrap_err();
                assert!(errors.iter().any(|error| error.contains(problem)), "{at}: {errors:?}");
            }
        }
        let term = json!({
            "topologyKey": "zone", "labelSelector": {}, "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"],
        });
        for (spec, at) in places(&term).into_iter().skip(1) {
            let errors = created(spec).unwrap_err();
            let problem = "exists in both matchLabelKeys and mismatchLabelKeys";
            assert!(errors[0].ends_with(problem), "{at}: {errors:?}");
            assert!(errors[0].contains(".matchLabelKeys[0]"), "{at}: {errors:?}");
        }
    }
}
