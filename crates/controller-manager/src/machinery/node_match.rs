//! Which nodes can run a pod: node selector, required node affinity, taints
//! (`k8s.io/component-helpers/scheduling/corev1`).

use api::labels::Requirement;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// Whether the node matches the pod's node selector and required node affinity.
pub fn affinity_allows(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).cloned();
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| label(key).as_ref() == Some(value));
    let affinity = spec.affinity.as_ref();
    let required = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|required| {
            let mut terms = required.node_selector_terms.iter();
            terms.any(|term| term_matches(term, node, &label))
        })
}

/// An empty term matches nothing.
fn term_matches(
    term: &NodeSelectorTerm,
    node: &Node,
    label: &impl Fn(&str) -> Option<String>,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| match key {
        "metadata.name" => node.metadata.name.clone(),
        _ => None,
    };
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|one| requirement(one).is_some_and(|requirement| requirement.matches(label)))
        && fields
            .iter()
            .all(|one| requirement(one).is_some_and(|requirement| requirement.matches(field)))
}

fn requirement(one: &NodeSelectorRequirement) -> Option<Requirement> {
    let (key, values) = (one.key.clone(), one.values.clone().unwrap_or_default());
    let number = || values.first().and_then(|value| value.parse().ok());
    Some(match one.operator.as_str() {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::NotExists(key),
        "Gt" => Requirement::Greater(key, number()?),
        "Lt" => Requirement::Less(key, number()?),
        _ => return None,
    })
}

/// Whether a toleration tolerates a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => key.is_empty() || key == taint.key,
        _ => key == taint.key && text(&toleration.value) == text(&taint.value),
    }
}

/// The first taint of the node with one of the effects that no toleration tolerates.
pub fn untolerated<'a>(
    node: &'a Node,
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.find(|taint| {
        effects.contains(&taint.effect.as_str())
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::labels;
    use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelector};

    fn spec(key: &str, operator: &str, values: &[&str], by_field: bool) -> PodSpec {
        let requirement = NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).into()).collect()),
        };
        let mut term = NodeSelectorTerm::default();
        if by_field {
            term.match_fields = Some(vec![requirement]);
        } else {
            term.match_expressions = Some(vec![requirement]);
        }
        PodSpec {
            affinity: Some(Affinity {
                node_affinity: Some(NodeAffinity {
                    required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                        node_selector_terms: vec![NodeSelectorTerm::default(), term],
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn affinity_terms() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.metadata.labels = Some(labels(&[("zone", "a"), ("size", "5")]));
        for (key, operator, values, by_field, expected) in [
            ("zone", "In", vec!["a", "b"], false, true),
            ("zone", "NotIn", vec!["a"], false, false),
            ("zone", "Exists", vec![], false, true),
            ("other", "DoesNotExist", vec![], false, true),
            ("size", "Gt", vec!["4"], false, true),
            ("size", "Lt", vec!["4"], false, false),
            ("metadata.name", "In", vec!["n1"], true, true),
            ("metadata.name", "In", vec!["n2"], true, false),
            ("zone", "Odd", vec![], false, false),
        ] {
            let spec = spec(key, operator, &values, by_field);
            assert_eq!(affinity_allows(&spec, &node), expected, "{key} {operator}");
        }
        let selecting =
            PodSpec { node_selector: Some(labels(&[("zone", "b")])), ..Default::default() };
        assert!(!affinity_allows(&selecting, &node));
        assert!(affinity_allows(&PodSpec::default(), &node));
    }
}
