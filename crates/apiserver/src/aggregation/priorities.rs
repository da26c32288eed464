//! The priorities of the group versions that this server answers itself (upstream's
//! `pkg/controlplane/apiserver/aggregator.go` and `cmd/kube-apiserver/app/aggregator.go`).

/// The group of APIServices themselves has none: it comes first.
pub const FIRST: &str = "apiregistration.k8s.io";
/// That of CustomResourceDefinitions (upstream's `crdregistration`).
pub const CUSTOM: (i32, i32) = (1_000, 100);

/// Group, version, and the priorities of both.
const BUILT_IN: &[(&str, &str, i32, i32)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("autoscaling", "v1", 17_500, 15),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("storagemigration.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("resource.k8s.io", "v1", 15_900, 20),
    // As metrics-server's own APIService.
    (api::metrics::GROUP, "v1beta1", 100, 100),
];

/// Those of a built-in group version.
pub fn built_in(group: &str, version: &str) -> Option<(i32, i32)> {
    let row = BUILT_IN.iter().find(|row| row.0 == group && row.1 == version);
    row.map(|row| (row.2, row.3))
}

/// Those of any group version that this server answers.
pub fn of(group: &str, version: &str) -> (i32, i32) {
    built_in(group, version).unwrap_or(CUSTOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_group_version_has_its_own() {
        for row in api::kind::KINDS.iter().filter(|row| row.group != FIRST) {
            assert!(built_in(&row.group, &row.version).is_some(), "{}", row.api_version());
        }
    }
}
