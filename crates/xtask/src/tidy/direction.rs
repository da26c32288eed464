//! Which package may depend on which:
//! `{api, clock} ← {rpc, store} ← client ← runtime ← components`.

use super::Finding;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Which other packages each package may depend on, dev-dependencies aside. A package that is not
/// listed is a finding: its place in the order has to be decided.
const ALLOWED: [(&str, &[&str]); 18] = [
    ("api", &[]),
    ("clock", &[]),
    ("rpc", &["api"]),
    ("store", &["api", "clock"]),
    ("client", &["api", "clock", "rpc"]),
    ("runtime", &["api", "clock", "rpc", "client"]),
    ("apiserver", &["api", "clock", "rpc", "store", "runtime"]),
    ("scheduler", COMPONENT),
    ("controller-manager", COMPONENT),
    ("kubelet", COMPONENT),
    ("proxy", COMPONENT),
    ("dns", COMPONENT),
    ("cli", COMPONENT),
    ("testkit", &["api", "clock", "rpc", "client", "runtime"]),
    ("tests", &["api", "clock", "rpc", "client", "runtime", "testkit"]),
    ("testserver", &[]),
    ("benches", &["api", "clock", "rpc", "client", "runtime", "testkit"]),
    ("xtask", &["clock"]),
];
const COMPONENT: &[&str] = &["api", "clock", "rpc", "client", "runtime"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Checks the workspace's packages.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(check_packages(&serde_json::from_slice(&output.stdout)?))
}

fn check_packages(metadata: &Metadata) -> Vec<Finding> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let location = format!("package {}", package.name);
        let Some(may) = allowed.get(package.name.as_str()) else {
            let rule = "has no place in the order of packages (xtask/src/tidy/direction.rs)";
            findings.push(Finding { location, rule: rule.to_owned() });
            continue;
        };
        for dependency in &package.dependencies {
            let own = dependency.path.is_some();
            let for_tests = dependency.kind.as_deref() == Some("dev");
            if own && !for_tests && !may.contains(&dependency.name.as_str()) {
                let rule = format!("must not depend on {}", dependency.name);
                findings.push(Finding { location: location.clone(), rule });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_must_not_reach_the_store() {
        let metadata = serde_json::json!({"packages": [
            {"name": "kubelet", "dependencies": [
                {"name": "client", "kind": null, "path": "/x"},
                {"name": "store", "kind": null, "path": "/x"},
                {"name": "testkit", "kind": "dev", "path": "/x"},
                {"name": "serde", "kind": null, "path": null},
            ]},
            {"name": "new", "dependencies": []},
        ]});
        let findings = check_packages(&serde_json::from_value(metadata).unwrap());
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].rule, "must not depend on store");
        assert_eq!(findings[1].location, "package new");
    }
}
