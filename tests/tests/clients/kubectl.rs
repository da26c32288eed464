//! kubectl against the apiserver: defaults, validation, both kinds of apply, protobuf bodies,
//! OpenAPI. Objects that would need a node are only created with `--dry-run=server`.

use anyhow::{Context, ensure};
use std::path::PathBuf;
use testkit::suite::Fixture;

fn file(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    folder.join(name).to_string_lossy().into_owned()
}

/// kubectl in the scenario's namespace.
pub fn kubectl(fixture: &Fixture, arguments: &[&str]) -> anyhow::Result<String> {
    let namespace = ["-n", fixture.namespace.as_str()];
    fixture.cluster.kubectl(&[arguments, &namespace].concat())
}

/// Writes a manifest for `-f`.
pub fn write_manifest(fixture: &Fixture, name: &str, yaml: &str) -> anyhow::Result<String> {
    let path = fixture.cluster.folder().join(format!("{}-{name}.yaml", fixture.namespace));
    std::fs::write(&path, yaml)?;
    Ok(path.to_string_lossy().into_owned())
}

pub async fn manifests_of_every_kind_are_accepted(fixture: &Fixture) -> anyhow::Result<()> {
    let manifests = file("kinds.yaml");
    let created = kubectl(fixture, &["apply", "--dry-run=server", "-f", &manifests])?;
    let count = std::fs::read_to_string(&manifests)?.matches("\nkind:").count();
    ensure!(created.lines().count() == count, "{count} objects, but {created}");
    kubectl(fixture, &["apply", "--server-side", "--dry-run=server", "-f", &manifests])?;
    Ok(())
}

pub async fn kubectl_create_sends_protobuf(fixture: &Fixture) -> anyhow::Result<()> {
    let commands: &[&[&str]] = &[
        &["create", "configmap", "a", "--from-literal=x=1"],
        &["create", "secret", "generic", "a", "--from-literal=x=1"],
        &["create", "deployment", "a", "--image=a", "--port=80"],
        &["create", "job", "a", "--image=a"],
        &["create", "role", "a", "--verb=get", "--resource=pods"],
        &["create", "rolebinding", "a", "--role=a", "--user=a"],
        &["create", "service", "nodeport", "a", "--tcp=80:90"],
        &["create", "ingress", "a", "--rule=a.example.com/b=c:80"],
        &["create", "quota", "a", "--hard=cpu=1"],
        &["create", "serviceaccount", "a"],
        &["create", "priorityclass", "a", "--value=5"],
    ];
    let newer: &[&[&str]] = &[
        &["create", "cronjob", "a", "--image=a", "--schedule=@hourly"],
        &["create", "poddisruptionbudget", "a", "--selector=a=b", "--min-available=1"],
    ];
    // Older clients create beta versions of these, which were removed in 1.25.
    let newer = if fixture.cluster.kubectl_minor()? < 25 { &[] } else { newer };
    for command in commands.iter().chain(newer) {
        let created = kubectl(fixture, &[*command, &["--dry-run=server", "-o", "name"]].concat())?;
        ensure!(created.trim().ends_with("/a"), "{command:?}: {created}");
    }
    Ok(())
}

pub async fn field_ownership_is_tracked(fixture: &Fixture) -> anyhow::Result<()> {
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned}}\ndata: {{a: {value}, b: same}}\n"
        )
    };
    let path = write_manifest(fixture, "owned", &manifest("mine"))?;
    kubectl(fixture, &["apply", "--server-side", "-f", &path])?;
    kubectl(
        fixture,
        &[
            "patch",
            "configmap",
            "owned",
            "--field-manager=other",
            "-p",
            r#"{"data":{"a":"theirs"}}"#,
        ],
    )?;
    let refused = fixture.cluster.try_kubectl(&[
        "apply",
        "--server-side",
        "-f",
        &path,
        "-n",
        &fixture.namespace,
    ])?;
    let expected = "Apply failed with 1 conflict: conflict with \"other\" using v1";
    ensure!(!refused.success && refused.stderr.contains(expected), "{}", refused.stderr);
    ensure!(refused.stderr.contains(".data.a"), "{}", refused.stderr);
    kubectl(fixture, &["apply", "--server-side", "--force-conflicts", "-f", &path])?;
    let less = write_manifest(
        fixture,
        "less",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {a: mine}\n",
    )?;
    kubectl(fixture, &["apply", "--server-side", "-f", &less])?;
    let data = kubectl(fixture, &["get", "configmap", "owned", "-o", "jsonpath={.data}"])?;
    ensure!(data == r#"{"a":"mine"}"#, "{data}");
    Ok(())
}

pub async fn errors_are_reported_as_in_kubernetes(fixture: &Fixture) -> anyhow::Result<()> {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  \
        selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    \
        spec: {containers: [{name: c, image: x, ports: [{containerPort: 70000}]}]}\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: 1bad}\nspec: {ports: [{port: 80, nodePort: 1}]}\n";
    let unknown = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: c, imaeg: x}]}\n";
    let cases: &[(&str, &[&str])] = &[
        (
            deployment,
            &[
                "The Deployment \"bad\" is invalid:",
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
                "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            service,
            &[
                "metadata.name: Invalid value: \"1bad\": a DNS-1035 label must consist of",
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ],
        ),
        // Older versions of kubectl find this themselves, and do not report the whole path.
        (unknown, &["unknown field", "imaeg\""]),
    ];
    for (index, (manifest, texts)) in cases.iter().enumerate() {
        let path = write_manifest(fixture, &format!("fault{index}"), manifest)?;
        let refused =
            fixture.cluster.try_kubectl(&["apply", "-f", &path, "-n", &fixture.namespace])?;
        ensure!(!refused.success, "{manifest} was accepted");
        for text in *texts {
            ensure!(refused.stderr.contains(text), "{text} is not in {}", refused.stderr);
        }
    }
    Ok(())
}

/// Both kubectl and `skiff` print warnings about what is accepted but unlikely to be intended.
pub async fn warnings_are_shown(fixture: &Fixture) -> anyhow::Result<()> {
    let manifest = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeSelector: {{never: there}}\n  \
             containers: [{{name: c, image: x, env: [{{name: A, value: '1'}}, {{name: A, value: '2'}}]}}]\n"
        )
    };
    let warning = "Warning: spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
    let namespace = ["-n", fixture.namespace.as_str()];
    let path = write_manifest(fixture, "first", &manifest("first"))?;
    let output =
        fixture.cluster.try_kubectl(&[&["create", "-f", &path], &namespace[..]].concat())?;
    ensure!(output.stderr.contains(warning), "kubectl: {}", output.stderr);
    let path = write_manifest(fixture, "second", &manifest("second"))?;
    let output = fixture.cluster.try_skiff(&[&["create", "-f", &path], &namespace[..]].concat())?;
    ensure!(output.stderr.contains(warning), "skiff: {}", output.stderr);
    Ok(())
}

pub async fn fields_are_explained(fixture: &Fixture) -> anyhow::Result<()> {
    let text = kubectl(fixture, &["explain", "deployment.spec.template.spec.containers.ports"])?;
    for part in ["Deployment", "ports <[]", "containerPort\t<integer> -required-"] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    let index = fixture.cluster.kubectl(&["get", "--raw", "/openapi/v3"])?;
    let index: serde_json::Value = serde_json::from_str(&index)?;
    let url = index["paths"]["apis/batch/v1"]["serverRelativeURL"]
        .as_str()
        .context("no document of batch/v1")?;
    let document = fixture.cluster.kubectl(&["get", "--raw", url])?;
    ensure!(document.contains("io.k8s.api.batch.v1.CronJobList"));
    Ok(())
}
