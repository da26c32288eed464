//! What a namespace's objects use of a quota's resources: pure functions
//! (`k8s.io/kubernetes/pkg/quota/v1/evaluator/core`).

use std::collections::BTreeMap;

use api::pod::{Side, resources};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuotaSpec, ScopedResourceSelectorRequirement, Service,
};

/// Amounts by resource name.
pub type Usage = BTreeMap<String, Quantity>;

pub fn add(total: &mut Usage, name: impl Into<String>, amount: Quantity) {
    let sum = total.entry(name.into()).or_default();
    *sum = *sum + amount;
}

fn one() -> Quantity {
    Quantity::from_units(1)
}

/// What a pod uses. A finished pod uses only its place among the objects.
pub fn of_pod(pod: &Pod) -> Usage {
    let mut usage = Usage::new();
    add(&mut usage, "count/pods", one());
    if api::pod::is_terminal(pod) {
        return usage;
    }
    add(&mut usage, "pods", one());
    let Some(spec) = &pod.spec else {
        return usage;
    };
    for (name, amount) in resources(spec, Side::Requests) {
        // The plain name of a basic resource means its requests.
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
        {
            add(&mut usage, name.clone(), amount);
        }
        add(&mut usage, format!("requests.{name}"), amount);
    }
    for (name, amount) in resources(spec, Side::Limits) {
        add(&mut usage, format!("limits.{name}"), amount);
    }
    usage
}

pub fn of_service(service: &Service) -> Usage {
    let mut usage = Usage::new();
    add(&mut usage, "services", one());
    let Some(spec) = &service.spec else {
        return usage;
    };
    let ports = spec.ports.iter().flatten();
    let node_ports = ports
        .filter(|port| port.node_port.is_some_and(|port| port != 0))
        .count();
    let node_ports = Quantity::from_units(i64::try_from(node_ports).unwrap_or(i64::MAX));
    match spec.type_.as_deref() {
        Some("NodePort") => add(&mut usage, "services.nodeports", node_ports),
        Some("LoadBalancer") => {
            add(&mut usage, "services.nodeports", node_ports);
            add(&mut usage, "services.loadbalancers", one());
        }
        _ => {}
    }
    usage
}

pub fn of_claim(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = Usage::new();
    add(&mut usage, "persistentvolumeclaims", one());
    let Some(spec) = &claim.spec else {
        return usage;
    };
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let storage = requests
        .and_then(|requests| requests.get("storage"))
        .map(Quantity::of);
    let class = spec
        .storage_class_name
        .as_deref()
        .filter(|class| !class.is_empty());
    if let Some(class) = class {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        add(
            &mut usage,
            format!("{prefix}/persistentvolumeclaims"),
            one(),
        );
        if let Some(storage) = storage {
            add(&mut usage, format!("{prefix}/requests.storage"), storage);
        }
    }
    if let Some(storage) = storage {
        add(&mut usage, "requests.storage", storage);
    }
    usage
}

/// Whether a pod counts for a quota with scopes.
pub fn pod_in_scope(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let selected = spec.scope_selector.as_ref();
    let expressions = selected.and_then(|selector| selector.match_expressions.as_deref());
    spec.scopes
        .iter()
        .flatten()
        .all(|scope| has_scope(scope, pod))
        && expressions
            .unwrap_or_default()
            .iter()
            .all(|expression| selects(expression, pod))
}

fn selects(expression: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    if expression.scope_name != "PriorityClass" {
        return has_scope(&expression.scope_name, pod);
    }
    let class = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.priority_class_name.as_ref());
    let listed = class.is_some_and(|class| {
        expression
            .values
            .as_ref()
            .is_some_and(|values| values.contains(class))
    });
    match expression.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => class.is_some_and(|class| !class.is_empty()),
        "DoesNotExist" => class.is_none_or(String::is_empty),
        _ => false,
    }
}

fn has_scope(scope: &str, pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let basic = |side| {
        let all = resources(spec, side);
        let mut names = all.iter().filter(|(_, amount)| !amount.is_zero());
        names.any(|(name, _)| name == "cpu" || name == "memory")
    };
    let best_effort = || !basic(Side::Requests) && !basic(Side::Limits);
    match scope {
        "Terminating" => spec.active_deadline_seconds.is_some(),
        "NotTerminating" => spec.active_deadline_seconds.is_none(),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => spec
            .priority_class_name
            .as_ref()
            .is_some_and(|name| !name.is_empty()),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else {
        return false;
    };
    let near = affinity.pod_affinity.iter().flat_map(|affinity| {
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        let preferred = affinity
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.iter().flat_map(|affinity| {
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        let preferred = affinity
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    let mut terms = near.chain(far);
    terms.any(|term| {
        term.namespace_selector.is_some()
            || term
                .namespaces
                .as_ref()
                .is_some_and(|namespaces| !namespaces.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, service};
    use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    fn sized(cpu: &str) -> Pod {
        let mut pod = pod("p").build();
        pod.spec.get_or_insert_default().containers = vec![Container {
            resources: Some(ResourceRequirements {
                requests: Some([("cpu".to_owned(), Text(cpu.into()))].into()),
                limits: Some([("cpu".to_owned(), Text("2".into()))].into()),
                ..Default::default()
            }),
            ..Default::default()
        }];
        pod
    }

    #[test]
    fn pods_use_requests_and_limits_until_they_end() {
        let usage = of_pod(&sized("500m"));
        let text = |name: &str| usage[name].to_string();
        assert_eq!(
            (
                text("cpu"),
                text("requests.cpu"),
                text("limits.cpu"),
                text("pods")
            ),
            ("500m".into(), "500m".into(), "2".into(), "1".into())
        );
        let mut done = sized("1");
        done.status.as_mut().unwrap().phase = Some("Failed".into());
        assert_eq!(of_pod(&done).len(), 1);
    }

    #[test]
    fn services_and_scopes() {
        let mut of = service("s", &[("a", 80, 80), ("b", 81, 81)]);
        let spec = of.spec.as_mut().unwrap();
        spec.type_ = Some("LoadBalancer".into());
        spec.ports.as_mut().unwrap()[0].node_port = Some(30000);
        let usage = of_service(&of);
        assert_eq!(usage["services.nodeports"].to_string(), "1");
        assert_eq!(usage["services.loadbalancers"].to_string(), "1");
        let scoped = |scope: &str| ResourceQuotaSpec {
            scopes: Some(vec![scope.into()]),
            ..Default::default()
        };
        assert!(pod_in_scope(&scoped("NotBestEffort"), &sized("1")));
        assert!(!pod_in_scope(&scoped("BestEffort"), &sized("1")));
        assert!(pod_in_scope(
            &scoped("BestEffort"),
            &pod("p").on("n").build()
        ));
        assert!(pod_in_scope(&scoped("NotTerminating"), &sized("1")));
    }
}
