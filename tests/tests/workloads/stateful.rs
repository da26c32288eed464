//! Workloads with state: a StatefulSet's names and volumes, and a Job's completions.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use testkit::manifest;
use testkit::suite::Fixture;
use tests::pods;

/// Volumes on the machine's disk, which every node can reach.
fn volumes(fixture: &Fixture) -> String {
    let folder = fixture.cluster.folder().join("volumes");
    (0..2)
        .map(|number| {
            format!(
                "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: stateful-{number}}}\nspec:\n  \
                 capacity: {{storage: 1Gi}}\n  accessModes: [ReadWriteOnce]\n  storageClassName: stateful\n  \
                 hostPath: {{path: {}/{number}, type: DirectoryOrCreate}}\n---\n",
                folder.display()
            )
        })
        .collect()
}

const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: skiff.test/busybox:1
        command: [sh, -c, "hostname >> /data/starts; exec sleep 1000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: stateful, resources: {requests: {storage: 1Gi}}}
"#;

pub async fn a_stateful_set_keeps_names_and_volumes(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, &volumes(fixture)).await?;
    manifest::create(client, &fixture.namespace, SET).await?;
    let both = |what: &'static str| pods::until(fixture, "app=db", what, ready_in_order);
    let before = both("both pods are Ready").await?;
    let skiff = |arguments: &[&str]| -> anyhow::Result<String> {
        let namespace = ["-n", fixture.namespace.as_str()];
        fixture.cluster.skiff(&[&namespace, arguments].concat())
    };
    skiff(&["delete", "pod", "db-0"])?;
    let after = both("the deleted pod is back").await?;
    let uid = |pods: &BTreeMap<String, Pod>| pods["db-0"].metadata.uid.clone();
    ensure!(uid(&before) != uid(&after), "it is the same pod");
    let starts = skiff(&["exec", "db-0", "--", "cat", "/data/starts"])?;
    ensure!(starts == "db-0\ndb-0\n", "its volume contains {starts:?}");
    skiff(&["scale", "statefulset", "db", "--replicas=1"])?;
    pods::until(fixture, "app=db", "the last pod is gone", |pods| pods.keys().eq(["db-0"])).await?;
    let claims = skiff(&["get", "pvc", "-o", "name"])?;
    ensure!(
        claims == "persistentvolumeclaim/data-db-0\npersistentvolumeclaim/data-db-1\n",
        "claims stay: {claims}"
    );
    skiff(&["scale", "statefulset", "db", "--replicas=2"])?;
    both("the last pod is back").await?;
    let starts = skiff(&["exec", "db-1", "--", "cat", "/data/starts"])?;
    ensure!(starts == "db-1\ndb-1\n", "its volume contains {starts:?}");
    skiff(&["delete", "statefulset,pvc", "--all"])?;
    skiff(&["delete", "pv", "stateful-0", "stateful-1"])?;
    Ok(())
}

fn ready_in_order(pods: &BTreeMap<String, Pod>) -> bool {
    pods.keys().eq(["db-0", "db-1"]) && pods.values().all(pods::is_ready)
}

pub async fn a_job_reaches_its_completions(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      completions: 3
      parallelism: 2
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: "skiff.test/busybox:1", command: [echo, done]}]
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    let skiff = |arguments: &[&str]| -> anyhow::Result<String> {
        let namespace = ["-n", fixture.namespace.as_str()];
        fixture.cluster.skiff(&[&namespace, arguments].concat())
    };
    skiff(&["create", "job", "now", "--from=cronjob/report"])?;
    skiff(&["wait", "--for=condition=Complete", "job/now", "--timeout=60s"])?;
    let count = skiff(&["get", "job", "now", "-o", "jsonpath={.status.succeeded}"])?;
    ensure!(count == "3", "{count} pods succeeded");
    let log = skiff(&["logs", "-l", "job-name=now"])?;
    ensure!(log == "done\n".repeat(3), "{log:?}");
    // The Job belongs to the CronJob, and is deleted with it.
    skiff(&["delete", "cronjob", "report"])?;
    pods::until(fixture, "job-name=now", "the Job's pods are gone", |pods| pods.is_empty()).await?;
    Ok(())
}
