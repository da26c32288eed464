//! The event about a change of a Service, as Kubernetes' service controller records it: the first
//! difference of interest, in its order.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::plan::wants;

/// The reason and message of the event; `None` if there is none.
pub fn event(old: &Service, new: &Service) -> Option<(&'static str, String)> {
    let none = ServiceSpec::default();
    let spec = |service: &Service| service.spec.clone().unwrap_or_else(|| none.clone());
    let (before, after) = (spec(old), spec(new));
    let arrow = |before: &str, after: &str| format!("{before} -> {after}");
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let of = |reason, before: &Option<String>, after: &Option<String>| {
        (text(before) != text(after)).then(|| (reason, arrow(&text(before), &text(after))))
    };
    if old.metadata.uid != new.metadata.uid || !(wants(old) || wants(new)) {
        return None;
    }
    if wants(old) != wants(new) {
        return of("Type", &before.type_, &after.type_);
    }
    let ranges = |spec: &ServiceSpec| listed(spec.load_balancer_source_ranges.as_ref());
    if ranges(&before) != ranges(&after) {
        let message = arrow(&ranges(&before), &ranges(&after));
        return Some(("LoadBalancerSourceRanges", message));
    }
    let affinity =
        |spec: &ServiceSpec| (spec.session_affinity.clone(), spec.session_affinity_config.clone());
    if ports(&before) != ports(&after) || affinity(&before) != affinity(&after) {
        return None;
    }
    of("LoadbalancerIP", &before.load_balancer_ip, &after.load_balancer_ip)
        .or_else(|| external_ips(&before, &after))
        .or_else(|| {
            if old.metadata.annotations != new.metadata.annotations {
                return None;
            }
            let (was, is) = (&before.external_traffic_policy, &after.external_traffic_policy);
            let port = |spec: &ServiceSpec| {
                Some(spec.health_check_node_port.unwrap_or_default().to_string())
            };
            of("ExternalTrafficPolicy", was, is)
                .or_else(|| of("HealthCheckNodePort", &port(&before), &port(&after)))
        })
}

fn external_ips(before: &ServiceSpec, after: &ServiceSpec) -> Option<(&'static str, String)> {
    let ips = |spec: &ServiceSpec| spec.external_ips.clone().unwrap_or_default();
    let (before, after) = (ips(before), ips(after));
    if before.len() != after.len() {
        return Some(("ExternalIP", format!("Count: {} -> {}", before.len(), after.len())));
    }
    let added = before.iter().zip(after).find(|(before, after)| *before != after);
    added.map(|(_, after)| ("ExternalIP", format!("Added: {after}")))
}

fn ports(spec: &ServiceSpec) -> Vec<ServicePort> {
    let of = |port: &ServicePort| ServicePort { app_protocol: None, ..port.clone() };
    spec.ports.iter().flatten().map(of).collect()
}

/// A list as Go prints it.
fn listed(list: Option<&Vec<String>>) -> String {
    format!("[{}]", list.map(|list| list.join(" ")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{labels, service};

    #[test]
    fn the_first_difference_is_reported() {
        let with = |change: &dyn Fn(&mut ServiceSpec)| {
            let mut service = service("web", &[("http", 80, 8080)]);
            let spec = service.spec.as_mut().unwrap();
            spec.type_ = Some("LoadBalancer".into());
            change(spec);
            service
        };
        let old = with(&|_| {});
        let strings = |all: &[&str]| Some(all.iter().map(|one| (*one).to_owned()).collect());
        let expect = |change: &dyn Fn(&mut ServiceSpec), reason: &str, message: &str| {
            let found = event(&old, &with(change));
            assert_eq!(found, Some((reason, message.to_owned())).filter(|_| !reason.is_empty()));
        };
        expect(&|_| {}, "", "");
        expect(&|spec| spec.type_ = Some("NodePort".into()), "Type", "LoadBalancer -> NodePort");
        let ranges = "LoadBalancerSourceRanges";
        expect(
            &|spec| spec.load_balancer_source_ranges = strings(&["10.0.0.0/8", "1.0.0.0/8"]),
            ranges,
            "[] -> [10.0.0.0/8 1.0.0.0/8]",
        );
        expect(
            &|spec| {
                spec.ports = None;
                spec.load_balancer_ip = Some("1.1.1.1".into());
            },
            "",
            "",
        );
        expect(
            &|spec| spec.load_balancer_ip = Some("1.1.1.1".into()),
            "LoadbalancerIP",
            " -> 1.1.1.1",
        );
        expect(&|spec| spec.external_ips = strings(&["1.1.1.1"]), "ExternalIP", "Count: 0 -> 1");
        expect(
            &|spec| spec.external_traffic_policy = Some("Local".into()),
            "ExternalTrafficPolicy",
            " -> Local",
        );
        expect(
            &|spec| spec.health_check_node_port = Some(31000),
            "HealthCheckNodePort",
            "0 -> 31000",
        );
        let mut annotated = with(&|spec| spec.external_traffic_policy = Some("Local".into()));
        annotated.metadata.annotations = Some(labels(&[("a", "b")]));
        assert_eq!(event(&old, &annotated), None);
        let mut plain = old.clone();
        plain.spec.as_mut().unwrap().type_ = Some("NodePort".into());
        assert_eq!(event(&plain, &plain), None);
    }
}
