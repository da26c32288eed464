//! Custom resources as people use them: a definition is applied, its objects work with either tool,
//! and they are collected and removed like any others.

use anyhow::ensure;
use testkit::suite::Fixture;
use testkit::wait;

use super::Tool;

/// A group of its own for each tool, so that both may run at once.
fn definition(group: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: engines.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: engines, singular: engine, kind: Engine, shortNames: [eng]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {{name: Fuel, type: string, jsonPath: .spec.fuel}}
    - {{name: Ready, type: string, jsonPath: '.status.conditions[?(@.type==\"Ready\")].status'}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            description: What the engine is to do.
            type: object
            required: [power]
            x-kubernetes-validations:
            - rule: \"self.fuel != 'wood' || self.power < 10\"
              message: wood gives less power
            properties:
              power: {{type: integer, minimum: 1, description: In kilowatts.}}
              fuel: {{type: string, default: diesel}}
              replicas: {{type: integer}}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"
    )
}

pub async fn skiff_handles_custom_kinds(fixture: &Fixture) -> anyhow::Result<()> {
    handles_custom_kinds(fixture, Tool::Skiff, "skiff.example.com").await
}

pub async fn kubectl_handles_custom_kinds(fixture: &Fixture) -> anyhow::Result<()> {
    handles_custom_kinds(fixture, Tool::Kubectl, "kubectl.example.com").await
}

async fn handles_custom_kinds(fixture: &Fixture, tool: Tool, group: &str) -> anyhow::Result<()> {
    let path = fixture.cluster.folder().join(format!("{}.yaml", fixture.namespace));
    let file = path.to_string_lossy().into_owned();
    let run = |line: &str| tool.run(fixture, &line.split(' ').collect::<Vec<_>>());
    std::fs::write(&path, definition(group))?;
    let output = run(&format!("apply -f {file}"))?;
    ensure!(output.contains(&format!("engines.{group} created")), "{output}");
    run(&format!("wait --for=condition=established crd/engines.{group} --timeout=10s"))?;
    let output = run(&format!("apply -f {file}"))?;
    ensure!(output.contains("unchanged"), "applied again: {output}");

    let engine = |power: &str, fuel: &str| {
        format!(
            "apiVersion: {group}/v1\nkind: Engine\nmetadata: {{name: main}}\nspec: {{power: {power}{fuel}}}\n"
        )
    };
    for (power, fuel, problem) in [
        ("0", "", "spec.power"),
        ("20", ", fuel: wood", "wood gives less power"),
        ("1", ", colour: red", "colour"),
    ] {
        std::fs::write(&path, engine(power, fuel))?;
        let refused = tool.attempt(fixture, &["create", "-f", &file])?;
        ensure!(
            !refused.success && refused.stderr.contains(problem),
            "{problem}: {}",
            refused.stderr
        );
    }
    std::fs::write(&path, engine("5", ""))?;
    let output = run(&format!("apply -f {file}"))?;
    ensure!(output.contains(&format!("engine.{group}/main created")), "{output}");
    let table = run(&format!("get engines.{group}"))?;
    ensure!(table.contains("FUEL") && table.contains("diesel"), "{table}");
    let explained = run(&format!("explain engine.spec.power --api-version={group}/v1"))?;
    ensure!(explained.contains("In kilowatts."), "{explained}");
    let described = run(&format!("describe engines.{group} main"))?;
    ensure!(described.contains("Power:") && described.contains("diesel"), "{described}");
    run(&format!("patch engines.{group} main --type=merge -p {{\"spec\":{{\"replicas\":1}}}}"))?;
    run(&format!("scale engines.{group}/main --replicas=3"))?;
    let replicas = run(&format!("get engines.{group} main -o jsonpath={{.spec.replicas}}"))?;
    ensure!(replicas == "3", "{replicas}");

    // What it owns goes with it.
    let uid = run(&format!("get engines.{group} main -o jsonpath={{.metadata.uid}}"))?;
    let owned = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences:\n  - \
         {{apiVersion: {group}/v1, kind: Engine, name: main, uid: {uid}}}\n"
    );
    std::fs::write(&path, owned)?;
    run(&format!("create -f {file}"))?;
    run(&format!("delete engines.{group} main"))?;
    wait::eventually("the owned map is collected", async || {
        let found = tool.attempt(fixture, &["get", "configmap", "owned"])?;
        ensure!(!found.success, "it is there");
        Ok(())
    })
    .await?;

    // A namespace takes its custom resources along.
    let other = format!("{}-engines", fixture.namespace);
    run(&format!("create namespace {other}"))?;
    let placed =
        engine("5", "").replace("{name: main}", &format!("{{name: main, namespace: {other}}}"));
    std::fs::write(&path, placed)?;
    let output = fixture.cluster.try_kubectl(&["create", "-f", &file])?;
    ensure!(output.success, "{}", output.stderr);
    run(&format!("delete namespace {other} --timeout=60s"))?;
    let left = fixture.cluster.try_kubectl(&["get", &format!("engines.{group}"), "-A"])?;
    ensure!(left.stdout.is_empty(), "{}", left.stdout);

    run(&format!("delete crd engines.{group} --timeout=30s"))?;
    let gone = tool.attempt(fixture, &["get", &format!("engines.{group}")])?;
    ensure!(!gone.success, "{}", gone.stdout);
    Ok(())
}
