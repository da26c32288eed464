//! The controllers against the real apiserver and scheduler, on hollow nodes.

mod alone;
mod balancers;
mod certificates;
mod elsewhere;
mod extensions;
mod finalizers;
mod migrations;
mod nodes;
mod owners;
mod plane;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::leader::Election;
use client::{Api, DeleteOptions, ListOptions, PatchKind};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use plane::Plane;
use serde_json::{Value, json};
use testkit::manifest;
use testkit::wait::{self, Selection};
use tokio_util::sync::CancellationToken;

fn selection() -> Selection {
    Selection::namespace("default")
}

async fn create(plane: &Plane, objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        manifest::create(&plane.client, "default", &object.to_string()).await?;
    }
    Ok(())
}

fn template(version: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": format!("web:{version}"), "ports": [{"containerPort": 80}]}]},
    })
}

fn deployment(replicas: i32, version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
            "template": template(version, json!({})),
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

fn is_complete(deployment: &Deployment, replicas: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
        && status.replicas == Some(replicas)
}

async fn until_complete(plane: &Plane, replicas: i32) -> anyhow::Result<Deployment> {
    let all = wait::until::<Deployment>(
        &plane.client,
        selection().name("web"),
        "the rollout is complete",
        |all| all.get("web").is_some_and(|one| is_complete(one, replicas)),
    )
    .await?;
    Ok(all["web"].clone())
}

fn ready_endpoints(slices: &std::collections::BTreeMap<String, EndpointSlice>) -> BTreeSet<String> {
    let endpoints = slices.values().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .filter(|one| one.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
        .flat_map(|one| one.addresses.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_keeps_enough_endpoints_ready() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let nodes = plane.nodes(&["n1", "n2"]).await?;
    create(&plane, &[deployment(5, "v1"), service()]).await?;
    let first = until_complete(&plane, 5).await?;
    assert_eq!(first.metadata.generation, Some(1), "nobody changed its spec");
    let of_web = || selection().labels("kubernetes.io/service-name=web");
    wait::until::<EndpointSlice>(&plane.client, of_web(), "five endpoints", |slices| {
        ready_endpoints(slices).len() == 5
    })
    .await?;

    let deployments = Api::<Deployment>::namespaced(&plane.client, "default");
    let patch = json!({"spec": {"template": template("v2", json!({}))}});
    let watching = {
        let client = plane.client.clone();
        let mut fewest = usize::MAX;
        let mut seen = BTreeSet::new();
        tokio::spawn(async move {
            wait::until::<EndpointSlice>(&client, of_web(), "all endpoints are new", |slices| {
                let ready = ready_endpoints(slices);
                fewest = fewest.min(ready.len());
                seen.extend(ready.iter().cloned());
                // Five old addresses, five new ones, and the old ones gone.
                seen.len() == 10 && ready.len() == 5
            })
            .await
            .map(|_| fewest)
        })
    };
    deployments.patch("web", PatchKind::Strategic, &patch).await?;
    let fewest = watching.await??;
    anyhow::ensure!(fewest >= 5, "only {fewest} endpoints were ready");

    let done = until_complete(&plane, 5).await?;
    anyhow::ensure!(
        done.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"] == "2"
    );
    let sets = Api::<ReplicaSet>::namespaced(&plane.client, "default");
    let sizes = sets.list(&ListOptions::default()).await?.items;
    let mut sizes: Vec<_> = sizes.iter().map(|set| set.spec.replicas).collect();
    sizes.sort();
    anyhow::ensure!(sizes == [Some(0), Some(5)]);
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_killed_at_any_moment_lose_and_duplicate_nothing() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let nodes = plane.nodes(&["n1"]).await?;
    create(&plane, &[deployment(40, "v1")]).await?;
    let most = {
        let client = plane.client.clone();
        let mut most = 0;
        tokio::spawn(async move {
            let mut ever = BTreeSet::new();
            wait::until::<Pod>(&client, selection(), "forty pods run", |pods| {
                ever.extend(pods.values().filter_map(|pod| pod.metadata.uid.clone()));
                most = most.max(ever.len());
                pods.len() == 40 && pods.values().all(|pod| api::pod::phase(pod) == "Running")
            })
            .await
            .map(|_| most)
        })
    };
    // Killed after more and more pods; each successor continues from the existing state.
    for round in 1..=6 {
        let connection = plane.identity("system:kube-controller-manager")?;
        let task = plane.control_through(connection.clone(), &[])?;
        wait::until::<Pod>(&plane.client, selection(), "some pods", |pods| pods.len() >= round * 5)
            .await?;
        task.abort();
        task.await.ok();
        // The successor would not count what arrives later, as no controller would.
        plane.landed(&connection).await?;
    }
    plane.control(&[])?;
    let most = most.await??;
    anyhow::ensure!(most == 40, "{most} pods were created for 40");
    until_complete(&plane, 40).await?;
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads_of_every_kind_complete() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let nodes = plane.nodes(&["n1", "n2", "n3"]).await?;
    let with_exit = |name: &str, code: &str, more: Value| {
        let mut template = template("v1", json!({"hollow/exit": code}));
        template["metadata"]["labels"] = json!({"of": name});
        template["spec"]["restartPolicy"] = "Never".into();
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}});
        for (key, value) in more.as_object().into_iter().flatten() {
            job["spec"][key] = value.clone();
        }
        job
    };
    let selecting = |kind: &str, name: &str| {
        let mut template = template("v1", json!({}));
        template["metadata"]["labels"] = json!({"of": name});
        json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"of": name}}, "serviceName": name, "replicas": 3, "template": template},
        })
    };
    let mut daemons = selecting("DaemonSet", "ds");
    let spec = daemons["spec"].as_object_mut().expect("it is a map");
    spec.remove("replicas");
    spec.remove("serviceName");
    create(
        &plane,
        &[
            with_exit("good", "0", json!({"completions": 5, "parallelism": 2})),
            with_exit(
                "indexed",
                "0",
                json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"}),
            ),
            with_exit("bad", "1", json!({"backoffLimit": 0})),
            selecting("StatefulSet", "db"),
            daemons,
        ],
    )
    .await?;
    let client = &plane.client;
    let ended = |job: Option<&Job>, type_: &str| {
        let status = job.and_then(|job| job.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        conditions
            .is_some_and(|all| all.iter().any(|one| one.type_ == type_ && one.status == "True"))
    };
    let jobs = wait::until::<Job>(client, selection(), "the jobs end", |jobs| {
        ended(jobs.get("good"), "Complete")
            && ended(jobs.get("indexed"), "Complete")
            && ended(jobs.get("bad"), "Failed")
    })
    .await?;
    let status = |name: &str| jobs[name].status.clone().unwrap_or_default();
    anyhow::ensure!(status("good").succeeded == Some(5));
    anyhow::ensure!(status("indexed").completed_indexes.as_deref() == Some("0-3"));
    anyhow::ensure!(status("bad").failed == Some(1));
    wait::until::<StatefulSet>(client, selection(), "three stateful pods", |sets| {
        let status = sets.get("db").and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.available_replicas == Some(3))
    })
    .await?;
    wait::until::<DaemonSet>(client, selection(), "a daemon on each node", |sets| {
        let status = sets.get("ds").and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.number_available == Some(3))
    })
    .await?;
    let pods = Api::<Pod>::namespaced(client, "default");
    let stateful = pods.get("db-2").await?;
    anyhow::ensure!(
        stateful.metadata.labels.as_ref().unwrap()["apps.kubernetes.io/pod-index"] == "2"
    );
    // Deleting the owners deletes their pods.
    let options = DeleteOptions { propagation_policy: Some("Background"), ..Default::default() };
    Api::<StatefulSet>::namespaced(client, "default").delete("db", &options).await?;
    Api::<DaemonSet>::namespaced(client, "default").delete("ds", &options).await?;
    for job in ["good", "indexed", "bad"] {
        Api::<Job>::namespaced(client, "default").delete(job, &options).await?;
    }
    wait::until::<Pod>(client, selection(), "no pod is left", |pods| pods.is_empty()).await?;
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_lets_go_of_its_pods_on_every_way_out() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let nodes = plane.nodes(&["n1"]).await?;
    let client = &plane.client;
    let (jobs, pods) =
        (Api::<Job>::namespaced(client, "default"), Api::<Pod>::namespaced(client, "default"));
    let ways = ["released", "orphaned", "background", "foreground", "suspended"];
    for name in ways {
        let mut template = template("v1", json!({}));
        template["metadata"]["labels"] = json!({"of": name});
        template["spec"]["restartPolicy"] = "Never".into();
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"template": template},
        });
        create(&plane, &[job]).await?;
    }
    let of = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get("of").cloned());
    let started = wait::until::<Pod>(client, selection(), "each job has a pod", |pods| {
        ways.iter().all(|way| pods.values().any(|pod| of(pod).as_deref() == Some(way)))
    })
    .await?;
    let tracked = |pod: &Pod| {
        let mut finalizers = pod.metadata.finalizers.iter().flatten();
        finalizers.any(|finalizer| finalizer == "batch.kubernetes.io/job-tracking")
    };
    anyhow::ensure!(started.values().all(&tracked), "all are tracked at first");

    let released = started.iter().find(|(_, pod)| of(pod).as_deref() == Some("released"));
    let (released, _) = released.expect("it was waited for");
    let labels = json!({"metadata": {"labels": {"batch.kubernetes.io/controller-uid": null}}});
    pods.patch(released, PatchKind::Merge, &labels).await?;
    for (name, policy) in
        [("orphaned", "Orphan"), ("background", "Background"), ("foreground", "Foreground")]
    {
        let options = DeleteOptions { propagation_policy: Some(policy), ..Default::default() };
        jobs.delete(name, &options).await?;
    }
    jobs.patch("suspended", PatchKind::Merge, &json!({"spec": {"suspend": true}})).await?;

    let left = wait::until::<Pod>(client, selection(), "the pods are let go", |pods| {
        let before = pods.iter().filter(|(name, _)| started.contains_key(*name));
        let before: Vec<&Pod> = before.map(|(_, pod)| pod).collect();
        let stays = before.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
        before.iter().all(|pod| !tracked(pod)) && stays <= 2
    })
    .await?;
    let mut left: Vec<_> = left.iter().filter(|(name, _)| started.contains_key(*name)).collect();
    left.retain(|(_, pod)| pod.metadata.deletion_timestamp.is_none());
    let mut left: Vec<_> = left.into_iter().filter_map(|(_, pod)| of(pod)).collect();
    left.sort();
    anyhow::ensure!(left == ["orphaned", "released"], "{left:?}");
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_its_pods_and_a_namespace_its_content() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&["--node-monitor-grace-period", "2s"])?;
    let mut nodes = plane.nodes(&["n1", "n2"]).await?;
    let mut web = deployment(4, "v1");
    let key = "node.kubernetes.io/unreachable";
    web["spec"]["template"]["spec"]["tolerations"] =
        json!([{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]);
    web["metadata"]["namespace"] = "apart".into();
    let mut of_web = service();
    of_web["metadata"]["namespace"] = "apart".into();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "apart"}});
    create(&plane, &[namespace]).await?;
    let apart = || Selection::namespace("apart");
    let client = &plane.client;
    for object in [web, of_web] {
        manifest::create(client, "apart", &object.to_string()).await?;
    }
    let running = |pods: &std::collections::BTreeMap<String, Pod>, on: &str| {
        let alive = pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let ready = alive.filter(|pod| api::pod::condition_is_true(pod, "Ready"));
        ready.filter(|pod| api::pod::node_name(pod) == Some(on)).count()
    };
    wait::until::<Pod>(client, apart(), "four pods on two nodes", |pods| {
        running(pods, "n1") == 2 && running(pods, "n2") == 2
    })
    .await?;
    let accounts = Api::<ServiceAccount>::namespaced(client, "apart");
    anyhow::ensure!(accounts.get_opt("default").await?.is_some());
    let maps = Api::<ConfigMap>::namespaced(client, "apart");
    anyhow::ensure!(maps.get_opt("kube-root-ca.crt").await?.is_some());

    nodes.remove(1).stop();
    wait::until::<Pod>(client, apart(), "all on the other node", |pods| running(pods, "n1") == 4)
        .await?;
    let node = Api::<Node>::all(client).get("n2").await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    anyhow::ensure!(taints.iter().any(|taint| taint.key == key && taint.effect == "NoExecute"));
    let slices = apart().labels("kubernetes.io/service-name=web");
    wait::until::<EndpointSlice>(client, slices, "no dead endpoint is ready", |slices| {
        ready_endpoints(slices).len() == 4
    })
    .await?;

    // The dead node's kubelet no longer confirms deletions; its pods are deleted without a grace
    // period.
    let pods = Api::<Pod>::namespaced(client, "apart");
    let namespaces = Api::<Namespace>::all(client);
    namespaces.delete("apart", &DeleteOptions::default()).await?;
    for pod in pods.list(&ListOptions::default()).await?.items {
        if api::pod::node_name(&pod) == Some("n2") {
            let force = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
            pods.delete(pod.metadata.name.as_deref().unwrap(), &force).await.ok();
        }
    }
    wait::until::<Namespace>(client, Selection::default(), "the namespace is gone", |all| {
        !all.contains_key("apart")
    })
    .await?;
    anyhow::ensure!(
        Api::<Service>::namespaced(client, "apart")
            .list(&ListOptions::default())
            .await?
            .items
            .is_empty()
    );
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_bound_and_its_volume_released_and_deleted() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let amounts = |size: &str| json!({"storage": size});
    let volume = |name: &str, size: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": amounts(size), "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/none"},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        })
    };
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": amounts("1Gi")}},
    });
    create(&plane, &[claim.clone(), volume("large", "9Gi"), volume("small", "2Gi")]).await?;
    let client = &plane.client;
    let phase = |volume: Option<&PersistentVolume>| {
        let status = volume.and_then(|volume| volume.status.clone());
        status.and_then(|status| status.phase).unwrap_or_default()
    };
    let claims =
        wait::until::<PersistentVolumeClaim>(client, selection(), "the claim is bound", |claims| {
            let status = claims.get("data").and_then(|claim| claim.status.as_ref());
            status.is_some_and(|status| status.phase.as_deref() == Some("Bound"))
        })
        .await?;
    let spec = claims["data"].spec.clone().unwrap_or_default();
    let bound = spec.volume_name.unwrap_or_default();
    wait::until::<PersistentVolume>(
        client,
        Selection::default(),
        "one is bound, one free",
        |volumes| {
            volumes.iter().all(|(name, volume)| {
                phase(Some(volume)) == if *name == bound { "Bound" } else { "Available" }
            }) && volumes.len() == 2
        },
    )
    .await?;
    let api = Api::<PersistentVolumeClaim>::namespaced(client, "default");
    api.delete("data", &DeleteOptions::default()).await?;
    wait::until::<PersistentVolume>(
        client,
        Selection::default(),
        "the volume is released",
        |volumes| phase(volumes.get(&bound)) == "Released",
    )
    .await?;
    // A volume that is deleted while it is Bound goes with its claim.
    let is = |name: &'static str, expected: &'static str| {
        wait::until::<PersistentVolume>(client, Selection::default(), expected, move |volumes| {
            phase(volumes.get(name)) == expected
        })
    };
    create(&plane, &[volume("exact", "1Gi")]).await?;
    is("exact", "Available").await?;
    create(&plane, &[claim]).await?;
    is("exact", "Bound").await?;
    Api::<PersistentVolume>::all(client).delete("exact", &DeleteOptions::default()).await?;
    api.delete("data", &DeleteOptions::default()).await?;
    wait::until::<PersistentVolume>(client, Selection::default(), "it is gone", |volumes| {
        !volumes.contains_key("exact")
    })
    .await?;
    plane.finish(Vec::new()).await
}

fn used(quota: &ResourceQuota, resource: &str) -> Option<String> {
    let used = quota.status.as_ref()?.used.as_ref()?;
    used.get(resource).map(|amount| amount.0.clone())
}

async fn until_used(plane: &Plane, pods: &str) -> anyhow::Result<()> {
    let what = format!("the quota says that {pods} pods are used");
    wait::until::<ResourceQuota>(&plane.client, selection().name("room"), &what, |all| {
        all.get("room").is_some_and(|quota| used(quota, "pods").as_deref() == Some(pods))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_limits_a_deployment() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let nodes = plane.nodes(&["n1"]).await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "room"},
        "spec": {"hard": {"pods": "3", "count/deployments.apps": "1"}},
    });
    create(&plane, &[quota]).await?;
    until_used(&plane, "0").await?;
    create(&plane, &[deployment(5, "v1")]).await?;
    until_used(&plane, "3").await?;
    let is_reported = |deployment: &Deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.type_.as_deref() == Some("ReplicaFailure")
                && condition.message.as_deref().unwrap_or_default().contains(
                    "exceeded quota: room, requested: pods=1, used: pods=3, limited: pods=3",
                )
        })
    };
    wait::until::<Deployment>(
        &plane.client,
        selection().name("web"),
        "the deployment reports the exceeded quota",
        |all| all.get("web").is_some_and(is_reported),
    )
    .await?;
    let pods = Api::<Pod>::namespaced(&plane.client, "default");
    let there = pods.list(&ListOptions::default()).await?.items.len();
    anyhow::ensure!(there == 3, "{there} pods in room for 3");
    let mut other = deployment(1, "v1");
    other["metadata"]["name"] = "other".into();
    let refused = manifest::create(&plane.client, "default", &other.to_string()).await;
    let text = format!("{:#}", refused.expect_err("there is room for one deployment"));
    anyhow::ensure!(
        text.contains("exceeded quota: room, requested: count/deployments.apps=1"),
        "{text}"
    );

    let quotas = Api::<ResourceQuota>::namespaced(&plane.client, "default");
    let more = json!({"spec": {"hard": {"pods": "9"}}});
    quotas.patch("room", PatchKind::Merge, &more).await?;
    until_complete(&plane, 5).await?;
    until_used(&plane, "5").await?;
    // Both say so no longer.
    let failure = |status: serde_json::Value| status.to_string().contains("ReplicaFailure");
    let what = "the deployment's failure is over";
    wait::until::<Deployment>(&plane.client, selection().name("web"), what, |all| {
        all.values().all(|one| !failure(json!(one.status)))
    })
    .await?;
    let what = "its replica set's failure is over";
    wait::until::<ReplicaSet>(&plane.client, selection(), what, |all| {
        !all.is_empty() && all.values().all(|one| !failure(json!(one.status)))
    })
    .await?;
    let deployments = Api::<Deployment>::namespaced(&plane.client, "default");
    deployments.delete("web", &DeleteOptions::default()).await?;
    until_used(&plane, "0").await?;
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_at_once() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let client = plane.identity("system:kube-controller-manager")?;
    // Its role names this Lease.
    let candidate = || Election::for_component("kube-controller-manager");
    let (first, second) = (candidate(), candidate());
    let stop = CancellationToken::new();
    let leading = first.acquire(&client, &stop).await.expect("there is no other candidate");
    let mut holder = second.holder();
    let released = Arc::new(AtomicBool::new(false));
    let waiting = {
        let (client, stop, released) = (client.clone(), stop.clone(), released.clone());
        tokio::spawn(async move {
            let led = second.acquire(&client, &stop).await;
            (led, released.load(Ordering::SeqCst))
        })
    };
    // The second has seen that the first leads, and has decided when to try.
    holder.wait_for(|holder| !holder.is_empty()).await?;
    anyhow::ensure!(!leading.lost().is_cancelled());
    released.store(true, Ordering::SeqCst);
    leading.release().await;
    // Without the release it would have to wait for the lease's fifteen seconds.
    let (led, in_order) = tokio::time::timeout(Duration::from_secs(12), waiting).await??;
    let led = led.expect("the second leads now");
    anyhow::ensure!(in_order, "two led at once");
    anyhow::ensure!(!led.lost().is_cancelled());
    stop.cancel();
    anyhow::ensure!(first.acquire(&client, &stop).await.is_none(), "cancellation ends the wait");
    led.release().await;
    plane.finish(Vec::new()).await
}
