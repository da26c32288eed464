//! `kubectl top`, on a cluster that nobody has prepared for it.

use anyhow::{Context, ensure};
use testkit::suite::Fixture;
use tests::pods;

use super::Tool;

/// A pod of two containers, one of which never rests.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: busy
  labels:
    app: busy
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: works
    image: skiff.test/busybox:1
    command: ["sh", "-c", "while :; do :; done"]
    resources:
      limits:
        cpu: 200m
  - name: rests
    image: skiff.test/busybox:1
    command: ["sleep", "3600"]
"#;

/// `12` of `12m`.
fn number(cell: &str, unit: &str) -> anyhow::Result<u64> {
    let digits = cell.strip_suffix(unit).with_context(|| format!("{cell} is not in {unit}"))?;
    Ok(digits.parse()?)
}

pub async fn kubectl_shows_usage(fixture: &Fixture) -> anyhow::Result<()> {
    let kubectl = Tool::Kubectl;
    let file = fixture.cluster.folder().join("busy.yaml").to_string_lossy().into_owned();
    std::fs::write(&file, POD)?;
    kubectl.run(fixture, &["apply", "-f", &file])?;
    kubectl.run(fixture, &["wait", "--for=condition=Ready", "pod/busy", "--timeout=60s"])?;
    let nodes = kubectl.run(fixture, &["top", "nodes"])?;
    let rows: Vec<Vec<&str>> =
        nodes.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows.len() == 2, "{nodes}");
    for row in rows {
        ensure!(number(row[1], "m")? > 0 && number(row[3], "Mi")? > 0, "{nodes}");
    }
    // The pod may be younger than the last two samples.
    let shown = ["top", "pods", "-l", "app=busy", "--containers", "--no-headers"];
    let mut text = String::new();
    for _ in 0..45 {
        text = kubectl.run(fixture, &shown)?;
        if text.contains("works") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |name: &str| rows.iter().find(|row| row.get(1) == Some(&name)).context(text.clone());
    let (works, rests) = (number(of("works")?[2], "m")?, number(of("rests")?[2], "m")?);
    ensure!((100..=230).contains(&works) && rests < 50, "{text}");
    let alone = kubectl.run(fixture, &["top", "pod", "busy", "--no-headers"])?;
    ensure!(alone.starts_with("busy"), "{alone}");
    let raw = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", fixture.namespace);
    let raw = kubectl.run(fixture, &["get", "--raw", &raw])?;
    ensure!(raw.contains("\"kind\":\"PodMetricsList\""), "{raw}");
    pods::until(fixture, "app=busy", "the pod is there", |pods| pods.len() == 1).await?;
    Ok(())
}
