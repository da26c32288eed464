use api::custom::definition::version_order;

use super::*;

#[test]
fn versions_are_in_kubernetes_order() {
    let mut versions = [
        "foo1",
        "v1alpha2",
        "v11alpha2",
        "v3beta1",
        "v12alpha1",
        "foo10",
        "v10",
        "v2",
        "v1",
        "v10beta3",
        "v11beta2",
    ];
    versions.sort_by(|one, other| version_order(one, other));
    assert_eq!(
        versions,
        [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "v1alpha2",
            "foo1",
            "foo10",
        ]
    );
}

#[test]
fn built_in_kinds_are_always_served() {
    let registry = Registry::default();
    for row in KINDS {
        let found = registry.by_resource(&row.group, &row.version, &row.plural);
        assert!(found.is_some_and(|found| found == *row), "{row}");
    }
    assert_eq!(registry.kinds().groups()[0].name, "");
    assert!(registry.by_resource("", "v2", "pods").is_none());
}
