//! Each controller does its work with no rights but those of its own ServiceAccount.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use api::certificates;
use client::dynamic::target;
use client::{Api, DeleteOptions, PatchKind};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolume, PersistentVolumeClaim, ServiceAccount,
};
use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::wait::{self, Selection};

use super::plane::Plane;
use super::{create, template};

/// What one controller does when nothing else runs.
struct Case {
    /// Its name for `--controllers`, and further flags.
    flags: &'static [&'static str],
    /// The kind of the objects by which its work is judged, in `default` or of the cluster.
    kind: (&'static str, &'static str),
    /// Whether its work is done.
    done: fn(&BTreeMap<String, Value>) -> bool,
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Nodes are cordoned until it has seen that they are ready.
    Case { flags: &["node-lifecycle-controller"], kind: ("v1", "Node"), done: |all| all.values().all(|node| node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)) },
    Case { flags: &["serviceaccount-controller"], kind: ("v1", "ServiceAccount"), done: |all| all.contains_key("default") },
    Case { flags: &["root-ca-certificate-publisher-controller"], kind: ("v1", "ConfigMap"), done: |all| all.contains_key("kube-root-ca.crt") },
    Case { flags: &["kube-apiserver-serving-clustertrustbundle-publisher-controller"], kind: ("certificates.k8s.io/v1", "ClusterTrustBundle"), done: |all| {
        all.values().any(|bundle| bundle["spec"]["signerName"] == "kubernetes.io/kube-apiserver-serving")
    } },
    // What it removes is older than this test; its rights are in the other one.
    Case { flags: &["podcertificaterequest-cleaner-controller"], kind: ("certificates.k8s.io/v1", "PodCertificateRequest"), done: |all| all.contains_key("fresh") },
    Case { flags: &["certificatesigningrequest-approving-controller"], kind: SIGNING, done: |all| {
        let conditions = &all["node"]["status"]["conditions"];
        conditions[0]["type"] == "Approved" && conditions[0]["reason"] == "AutoApproved"
    } },
    Case { flags: &["certificatesigningrequest-signing-controller"], kind: SIGNING, done: |all| all["node"]["status"]["certificate"].is_string() },
    Case { flags: &["certificatesigningrequest-cleaner-controller"], kind: SIGNING, done: |all| !all.contains_key("old") && all.contains_key("node") },
    Case { flags: &["kubelet-serving-certificate-approver-controller", "--approve-kubelet-serving-certificates"], kind: SIGNING, done: |all| {
        all["serving"]["status"]["conditions"][0]["type"] == "Approved" && all["foreign"]["status"]["conditions"].is_null()
    } },
    Case { flags: &["token-cleaner-controller"], kind: ("v1", "Secret"), done: |all| {
        all.contains_key("bootstrap-token-abcdef") && !all.contains_key("bootstrap-token-past00")
    } },
    Case { flags: &["bootstrap-signer-controller"], kind: ("v1", "ConfigMap"), done: |all| {
        all["cluster-info"]["data"]["jws-kubeconfig-abcdef"].is_string()
    } },
    Case { flags: &["node-ipam-controller"], kind: ("v1", "Node"), done: |all| all.values().all(|node| node["spec"]["podCIDR"].is_string()) },
    Case { flags: &["replicaset-controller"], kind: ("apps/v1", "ReplicaSet"), done: |all| all["set"]["status"]["replicas"] == 1 },
    Case { flags: &["replicationcontroller-controller"], kind: ("v1", "ReplicationController"), done: |all| all["old"]["status"]["replicas"] == 1 },
    Case { flags: &["deployment-controller"], kind: ("apps/v1", "Deployment"), done: |all| {
        let web = &all["web"];
        web["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1" && web["status"]["observedGeneration"] == 1
    } },
    Case { flags: &["horizontal-pod-autoscaler-controller"], kind: ("autoscaling/v2", "HorizontalPodAutoscaler"), done: |all| {
        all["scaler"]["status"]["conditions"][0]["reason"] == "SucceededRescale" && all["scaler"]["status"]["desiredReplicas"] == 2
    } },
    Case { flags: &["daemonset-controller"], kind: ("apps/v1", "DaemonSet"), done: |all| all["ds"]["status"]["numberAvailable"] == 2 },
    Case { flags: &["job-controller"], kind: ("batch/v1", "Job"), done: |all| all["good"]["status"]["succeeded"] == 2 && all["good"]["status"]["completionTime"].is_string() },
    Case { flags: &["statefulset-controller"], kind: ("apps/v1", "StatefulSet"), done: |all| all["db"]["status"]["replicas"] == 1 },
    Case { flags: &["statefulset-controller"], kind: ("v1", "PersistentVolumeClaim"), done: |all| {
        all.get("data-db-0").is_some_and(|claim| claim["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet")
    } },
    Case { flags: &["cronjob-controller"], kind: ("batch/v1", "CronJob"), done: |all| all["cron"]["status"]["active"].is_array() },
    Case { flags: &["ttl-after-finished-controller"], kind: ("batch/v1", "Job"), done: |all| {
        all.get("good").is_none_or(|job| job["metadata"]["deletionTimestamp"].is_string())
    } },
    Case { flags: &["disruption-controller"], kind: ("policy/v1", "PodDisruptionBudget"), done: |all| all["budget"]["status"]["observedGeneration"] == 1 },
    Case { flags: &["local-path-provisioner-controller"], kind: ("v1", "PersistentVolume"), done: |all| all.keys().any(|name| name.starts_with("pvc-")) },
    Case { flags: &["persistentvolume-binder-controller"], kind: ("v1", "PersistentVolumeClaim"), done: |all| {
        ["claim", "demand"].iter().all(|name| all[*name]["status"]["phase"] == "Bound")
    } },
    Case { flags: &["persistentvolume-expander-controller"], kind: ("v1", "Event"), done: |all| all.values().any(|event| event["reason"] == "ExternalExpanding") },
    Case { flags: &["persistentvolumeclaim-protection-controller"], kind: ("v1", "PersistentVolumeClaim"), done: |all| !all.contains_key("unused") },
    Case { flags: &["persistentvolume-protection-controller"], kind: ("v1", "PersistentVolume"), done: |all| !all.contains_key("unused") },
    Case { flags: &["ephemeral-volume-controller"], kind: ("v1", "PersistentVolumeClaim"), done: |all| all.contains_key("ephemeral-scratch") },
    Case { flags: &["clusterrole-aggregation-controller"], kind: ("rbac.authorization.k8s.io/v1", "ClusterRole"), done: |all| {
        // Its holder gets a right that the controller does not have itself.
        all["sum"]["rules"][0]["resources"][0] == "secrets"
    } },
    Case { flags: &["endpointslice-controller"], kind: ("discovery.k8s.io/v1", "EndpointSlice"), done: |all| {
        all.values().any(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web" && slice["endpoints"][0]["addresses"].is_array() && is_timed(slice))
    } },
    Case { flags: &["endpoints-controller"], kind: ("v1", "Endpoints"), done: |all| all.get("web").is_some_and(|one| one["subsets"].is_array() && is_timed(one)) },
    Case { flags: &["endpointslice-mirroring-controller"], kind: ("discovery.k8s.io/v1", "EndpointSlice"), done: |all| {
        all.values().any(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "manual")
    } },
    Case { flags: &["node-lifecycle-controller", "--node-monitor-grace-period=2s"], kind: ("v1", "Node"), done: |all| {
        let taints = all["n2"]["spec"]["taints"].as_array().into_iter().flatten();
        taints.filter(|taint| taint["key"] == "node.kubernetes.io/unreachable").count() == 2
    } },
    Case { flags: &["taint-eviction-controller"], kind: ("v1", "Pod"), done: |all| {
        all.values().filter(|pod| pod["spec"]["nodeName"] == "n2" && pod["metadata"]["labels"]["on"] == "n2")
            .all(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    } },
    Case { flags: &["pod-garbage-collector-controller"], kind: ("v1", "Pod"), done: |all| !all.contains_key("stuck") },
    Case { flags: &["service-lb-controller", "--load-balancer-cidr=192.0.2.0/28"], kind: ("v1", "Service"), done: |all| {
        all["balanced"]["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1" && all["balanced"]["metadata"]["finalizers"].is_array()
    } },
    Case { flags: &["resourcequota-controller"], kind: ("v1", "ResourceQuota"), done: |all| all["room"]["status"]["used"]["services"].is_string() },
    Case { flags: &["garbage-collector-controller"], kind: ("v1", "ConfigMap"), done: |all| !all.contains_key("orphan") },
    Case { flags: &["service-cidr-controller"], kind: ("networking.k8s.io/v1", "ServiceCIDR"), done: |all| {
        all["kubernetes"]["status"]["conditions"][0]["status"] == "True" && all["kubernetes"]["metadata"]["finalizers"].is_array()
    } },
    Case { flags: &["validatingadmissionpolicy-status-controller"], kind: ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"), done: |all| {
        let status = &all["typed"]["status"];
        let warning = status["typeChecking"]["expressionWarnings"][0]["warning"].as_str().unwrap_or_default();
        status["observedGeneration"] == 1 && warning.contains("apps/v1, Kind=Deployment") && warning.contains("undefined field 'replicaz'")
    } },
    Case { flags: &["resourceclaim-controller"], kind: ("resource.k8s.io/v1", "ResourceClaim"), done: |all| all.keys().any(|name| name.starts_with("device-gpu-")) },
    Case { flags: &["storage-version-migrator-controller"], kind: ("storagemigration.k8s.io/v1", "StorageVersionMigration"), done: |all| {
        let conditions = all["anew"]["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Succeeded" && one["status"] == "True")
    } },
    Case { flags: &["namespace-controller"], kind: ("v1", "Namespace"), done: |all| !all.contains_key("ending") },
];

const SIGNING: (&str, &str) = ("certificates.k8s.io/v1", "CertificateSigningRequest");

/// Creates a request for a certificate, as the node's own user.
pub(super) async fn ask(
    plane: &Plane,
    name: &str,
    node: &str,
    names: &[&str],
) -> anyhow::Result<CertificateSigningRequest> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let serving = !names.is_empty();
    let user = format!("system:node:{node}");
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, user.as_str());
    let pem = params.serialize_request(&rcgen::KeyPair::generate()?)?.pem()?;
    let (signer, usage) = match serving {
        true => (certificates::KUBELET_SERVING_SIGNER, certificates::SERVER_AUTH),
        false => (certificates::KUBELET_CLIENT_SIGNER, certificates::CLIENT_AUTH),
    };
    let mut request = CertificateSigningRequest::default();
    request.metadata.name = Some(name.to_owned());
    request.spec.request = ByteString(pem.into_bytes());
    request.spec.signer_name = signer.to_owned();
    request.spec.usages = Some(vec!["digital signature".to_owned(), usage.to_owned()]);
    let client = match serving {
        true => plane.identity_in(&user, "system:nodes")?,
        // An administrator may become any node.
        false => plane.client.clone(),
    };
    Ok(Api::<CertificateSigningRequest>::all(&client).create(&request).await?)
}

/// Denies a request as of long ago.
async fn deny(plane: &Plane, mut request: CertificateSigningRequest) -> anyhow::Result<()> {
    let condition =
        json!({"type": "Denied", "status": "True", "lastUpdateTime": "2020-01-01T00:00:00Z"});
    let conditions = serde_json::from_value(json!([condition]))?;
    request.status.get_or_insert_default().conditions = Some(conditions);
    let requests = Api::<CertificateSigningRequest>::all(&plane.client);
    requests.replace_approval(&request).await?;
    Ok(())
}

/// Whether endpoints say when the change happened that caused them.
fn is_timed(endpoints: &Value) -> bool {
    let annotations = &endpoints["metadata"]["annotations"];
    annotations["endpoints.kubernetes.io/last-change-trigger-time"].is_string()
}

/// What the controllers work on.
fn objects() -> Vec<Value> {
    let labelled = |of: &str, exit: Value| {
        let mut template = template("v1", exit);
        template["metadata"]["labels"] = json!({"app": of});
        template
    };
    let workload = |api: &str, kind: &str, name: &str, spec: Value| {
        let mut object =
            json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec});
        if object["spec"]["template"].is_null() {
            object["spec"]["template"] = labelled(name, json!({}));
            object["spec"]["selector"] = json!({"matchLabels": {"app": name}});
        }
        object
    };
    let mut finishing = labelled("good", json!({"hollow/exit": "0"}));
    finishing["spec"]["restartPolicy"] = "Never".into();
    let mut scheduled = finishing.clone();
    scheduled["metadata"]["labels"] = json!({"app": "cron"});
    let claim = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
        })
    };
    let volume = |name: &str, size: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/none"}},
        })
    };
    let mut replicated = workload("v1", "ReplicationController", "old", json!({"replicas": 1}));
    replicated["spec"]["selector"] = json!({"app": "old"});
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let mut demand = claim("demand");
    demand["spec"]["storageClassName"] = "standard".into();
    demand["metadata"]["annotations"] = json!({
        "volume.kubernetes.io/selected-node": "n1",
        "volume.kubernetes.io/storage-provisioner": "skiff.dev/local-path",
    });
    let mut template = claim("data");
    template["spec"]["storageClassName"] = "none".into();
    vec![
        workload("apps/v1", "ReplicaSet", "set", json!({"replicas": 1})),
        replicated,
        workload("apps/v1", "Deployment", "web", json!({"replicas": 1})),
        workload("apps/v1", "DaemonSet", "ds", json!({})),
        workload(
            "batch/v1",
            "Job",
            "good",
            json!({"completions": 2, "parallelism": 2, "template": finishing}),
        ),
        workload(
            "apps/v1",
            "StatefulSet",
            "db",
            json!({
                "replicas": 1, "serviceName": "db", "volumeClaimTemplates": [template],
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
            }),
        ),
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": scheduled}}},
        }),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "budget"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "set"}}},
        }),
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "scaler"},
            "spec": {"minReplicas": 2, "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        }),
        claim("claim"),
        demand,
        volume("large", "9Gi"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "part", "labels": {"to": "sum"}},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["delete"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "sum"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]},
        }),
        service("web", json!({"selector": {"app": "set"}, "ports": [{"port": 80}]})),
        service("manual", json!({"ports": [{"port": 80}]})),
        service("balanced", json!({"type": "LoadBalancer", "ports": [{"port": 80}]})),
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "manual"},
            "subsets": [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 80}]}],
        }),
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "room"}, "spec": {"hard": {"services": "99"}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "orphan", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "0b9f8a3e-0000-4000-8000-000000000000"}]}}),
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "gpu"}, "spec": {"spec": {
            "devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}}),
        pod(
            "device",
            json!({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]}),
        ),
        json!({"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration", "metadata": {"name": "anew"},
            "spec": {"resource": {"group": "", "resource": "configmaps"}}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "typed"},
            "spec": {"validations": [{"expression": "object.spec.replicaz > 1"}], "matchConstraints": {"resourceRules": [{
                "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ending"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "content", "namespace": "ending"}}),
    ]
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = template("v1", json!({}));
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["labels"] = json!({"on": spec["nodeName"].as_str().unwrap_or("any")});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

async fn patch(
    plane: &Plane,
    kind: (&str, &str),
    name: &str,
    subresource: &str,
    patch: Value,
) -> anyhow::Result<()> {
    let row = api::kind::by_kind(kind.0, kind.1).context("the kind is served")?;
    let target = target(row, "default", name, subresource);
    let body = patch.to_string().into_bytes();
    plane.client.patch_object(target, PatchKind::Merge, body, pb::WriteOptions::default()).await?;
    Ok(())
}

/// What must happen right before a controller starts.
async fn prepare(plane: &Plane, controller: &str) -> anyhow::Result<()> {
    let client = &plane.client;
    match controller {
        "replicaset-controller" => create(plane, &objects()).await,
        "podcertificaterequest-cleaner-controller" => {
            let request = rcgen::CertificateParams::default()
                .serialize_request(&rcgen::KeyPair::generate()?)?;
            let spec = json!({"signerName": "example.com/pods", "podName": "p", "podUID": "1",
                "serviceAccountName": "default", "serviceAccountUID": "2", "nodeName": "n1", "nodeUID": "3",
                "stubPKCS10Request": ByteString(request.der().to_vec())});
            create(
                plane,
                &[json!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
                "metadata": {"name": "fresh"}, "spec": spec})],
            )
            .await
        }
        "certificatesigningrequest-approving-controller" => {
            ask(plane, "node", "new", &[]).await?;
            let old = ask(plane, "old", "new", &[]).await?;
            deny(plane, old).await
        }
        "token-cleaner-controller" => {
            let token = |id: &str, expiration: &str| {
                json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
                    "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
                    "stringData": {"token-id": id, "token-secret": "0123456789abcdef",
                        "usage-bootstrap-signing": "true", "expiration": expiration}})
            };
            let tokens =
                [token("past00", "2020-01-01T00:00:00Z"), token("abcdef", "2220-01-01T00:00:00Z")];
            create(plane, &tokens).await?;
            create(
                plane,
                &[json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"kubeconfig": "x"},
                "metadata": {"name": "cluster-info", "namespace": "kube-public"}})],
            )
            .await
        }
        "kubelet-serving-certificate-approver-controller" => {
            let addresses = json!([{"type": "InternalIP", "address": "192.0.2.7"}]);
            patch(
                plane,
                ("v1", "Node"),
                "n1",
                "status",
                json!({"status": {"addresses": addresses}}),
            )
            .await?;
            ask(plane, "foreign", "n1", &["n1", "192.0.2.8"]).await?;
            ask(plane, "serving", "n1", &["n1", "192.0.2.7"]).await?;
            Ok(())
        }
        "cronjob-controller" => {
            // Its last run is long ago, so that it is due.
            let long_ago = json!({"status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}});
            let suspended = json!({"spec": {"startingDeadlineSeconds": 100}});
            patch(plane, ("batch/v1", "CronJob"), "cron", "", suspended).await?;
            patch(plane, ("batch/v1", "CronJob"), "cron", "status", long_ago).await
        }
        "ttl-after-finished-controller" => {
            let at_once = json!({"spec": {"ttlSecondsAfterFinished": 0}});
            patch(plane, ("batch/v1", "Job"), "good", "", at_once).await
        }
        "persistentvolumeclaim-protection-controller" => {
            let mut claim = objects()
                .into_iter()
                .find(|one| one["metadata"]["name"] == "claim")
                .context("it exists")?;
            claim["metadata"]["name"] = "unused".into();
            claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
            create(plane, &[claim]).await?;
            let claims = Api::<PersistentVolumeClaim>::namespaced(client, "default");
            Ok(claims.delete("unused", &DeleteOptions::default()).await?)
        }
        "persistentvolume-protection-controller" => {
            let mut volume = objects()
                .into_iter()
                .find(|one| one["metadata"]["name"] == "large")
                .context("it exists")?;
            volume["metadata"]["name"] = "unused".into();
            volume["metadata"]["finalizers"] = json!(["kubernetes.io/pv-protection"]);
            create(plane, &[volume]).await?;
            Ok(Api::<PersistentVolume>::all(client)
                .delete("unused", &DeleteOptions::default())
                .await?)
        }
        "ephemeral-volume-controller" => {
            let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
            let volumes = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": claim}}]);
            create(plane, &[pod("ephemeral", json!({"volumes": volumes}))]).await
        }
        "taint-eviction-controller" => {
            create(plane, &[pod("evicted", json!({"nodeName": "n2"}))]).await?;
            let taint = json!({"spec": {"taints": [{"key": "gone", "effect": "NoExecute"}]}});
            patch(plane, ("v1", "Node"), "n2", "", taint).await
        }
        "pod-garbage-collector-controller" => {
            create(plane, &[pod("stuck", json!({"nodeName": "n2"}))]).await?;
            let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client, "default");
            pods.delete("stuck", &DeleteOptions::default()).await?;
            let key = "node.kubernetes.io/out-of-service";
            let taint = json!({"spec": {"taints": [{"key": key, "effect": "NoExecute"}]}});
            patch(plane, ("v1", "Node"), "n2", "", taint).await
        }
        "namespace-controller" => {
            Ok(Api::<Namespace>::all(client).delete("ending", &DeleteOptions::default()).await?)
        }
        _ => Ok(()),
    }
}

/// What a controller acts on only when it happens.
async fn happen(plane: &Plane, controller: &str, attempt: u32) -> anyhow::Result<()> {
    if controller != "persistentvolume-expander-controller" {
        return Ok(());
    }
    let size = format!("{}Gi", 2 + attempt);
    let larger = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    patch(plane, ("v1", "PersistentVolumeClaim"), "demand", "", larger).await
}

async fn done(plane: &Plane, case: &Case) -> anyhow::Result<()> {
    let row = api::kind::by_kind(case.kind.0, case.kind.1).context("the kind is served")?;
    let namespace = match case.flags[0] {
        "token-cleaner-controller" => "kube-system",
        "bootstrap-signer-controller" => "kube-public",
        _ => "default",
    };
    let request =
        pb::ListRequest { target: Some(target(row, namespace, "", "")), ..Default::default() };
    let (items, _) = plane.client.list_objects(request).await?;
    let mut all = BTreeMap::new();
    for item in items {
        all.insert(item.name.clone(), serde_json::from_slice::<Value>(&item.json)?);
    }
    ensure!((case.done)(&all), "{}: {all:#?}", case.flags[0]);
    Ok(())
}

/// Requests that the server has refused for want of rights.
async fn refusals(plane: &Plane) -> anyhow::Result<Vec<String>> {
    let metrics = plane.client.get_path("/metrics", "").await?;
    let text = String::from_utf8(metrics.to_vec())?;
    let refused =
        |line: &&str| line.starts_with("apiserver_request_total") && line.contains("code=\"403\"");
    Ok(text.lines().filter(refused).map(str::to_owned).collect())
}

/// Runs one controller until its work is done.
async fn alone(plane: &Plane, case: &Case) -> anyhow::Result<()> {
    let controller = case.flags[0];
    prepare(plane, controller).await.with_context(|| format!("prepare {controller}"))?;
    let mut flags = vec!["--controllers"];
    flags.extend(case.flags);
    plane.control(&flags)?;
    let attempts = AtomicU32::new(0);
    let done = wait::eventually(controller, async || {
        happen(plane, controller, attempts.fetch_add(1, Ordering::Relaxed)).await?;
        done(plane, case).await
    });
    let done = done.await;
    plane.stop_controllers().await?;
    done?;
    let refused = refusals(plane).await?;
    ensure!(refused.is_empty(), "{controller}: {refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_controller_works_alone_with_its_own_rights() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let mut nodes = plane.nodes(&["n1", "n2"]).await?;
    let mut failures = Vec::new();
    for case in CASES {
        if case.flags.contains(&"--node-monitor-grace-period=2s") {
            nodes.pop().context("it runs")?.stop();
        }
        if let Err(error) = alone(&plane, case).await {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    let tried: BTreeSet<&str> = CASES.iter().map(|case| case.flags[0]).collect();
    let missing: Vec<_> =
        controller_manager::wire::names().filter(|name| !tried.contains(name)).collect();
    ensure!(missing.is_empty(), "not tried: {missing:?}");
    plane.finish(nodes).await
}

/// Verb, API group, resource, and the accounts that have the right.
#[rustfmt::skip]
const RIGHTS: &[(&str, &str, &str, &[&str])] = &[
    ("create", "", "pods", &["daemon-set-controller", "job-controller", "replicaset-controller", "replication-controller", "statefulset-controller"]),
    ("create", "apps", "replicasets", &["deployment-controller"]),
    ("create", "batch", "jobs", &["cronjob-controller"]),
    ("create", "", "endpoints", &["endpoint-controller"]),
    ("create", "", "serviceaccounts", &["service-account-controller"]),
    ("create", "", "serviceaccounts/token", &[]),
    ("create", "", "configmaps", &["root-ca-cert-publisher"]),
    ("create", "", "secrets", &[]),
    ("create", "certificates.k8s.io", "clustertrustbundles", &["kube-apiserver-serving-clustertrustbundle-publisher"]),
    ("delete", "certificates.k8s.io", "podcertificaterequests", &["generic-garbage-collector", "namespace-controller", "podcertificaterequestcleaner"]),
    ("update", "certificates.k8s.io", "certificatesigningrequests/approval", &["certificate-controller", "generic-garbage-collector", "kubelet-serving-certificate-approver"]),
    ("create", "certificates.k8s.io", "certificatesigningrequests", &[]),
    ("sign", "certificates.k8s.io", "signers", &[]),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings", &[]),
    ("create", "", "pods/exec", &[]),
    ("get", "", "secrets", &["generic-garbage-collector", "namespace-controller"]),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", &["clusterrole-aggregation-controller"]),
    ("delete", "", "nodes", &["generic-garbage-collector", "namespace-controller", "node-controller"]),
    ("patch", "", "nodes", &["generic-garbage-collector", "node-controller", "storage-version-migrator-controller"]),
    ("deletecollection", "", "pods", &["namespace-controller"]),
    ("update", "", "namespaces/finalize", &["generic-garbage-collector", "namespace-controller"]),
    ("update", "apps", "deployments", &["deployment-controller", "generic-garbage-collector"]),
    ("impersonate", "", "users", &[]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_controller_may_do_the_work_of_another() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let nodes = plane.nodes(&["n1"]).await?;
    // Whoever has something to do has an account; the rights are bound to all of them.
    let bound = Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(&plane.client);
    let bound = bound.list(&Default::default()).await?.items;
    let names = bound.iter().filter_map(|one| one.metadata.name.as_deref());
    let accounts: Vec<&str> =
        names.filter_map(|name| name.strip_prefix("system:controller:")).collect();
    ensure!(accounts.len() > 20, "{accounts:?}");
    let reviews = Api::<SubjectAccessReview>::all(&plane.client);
    for (verb, group, resource, expected) in RIGHTS {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let mut holders = Vec::new();
        for account in &accounts {
            let review = serde_json::from_value(json!({"spec": {
                "user": format!("system:serviceaccount:kube-system:{account}"),
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                "resourceAttributes": {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": "default"},
            }}))?;
            let answer = reviews.create(&review).await?;
            if answer.status.is_some_and(|status| status.allowed) {
                holders.push(*account);
            }
        }
        holders.sort_unstable();
        ensure!(holders == *expected, "{verb} {resource}: {holders:?}, expected {expected:?}");
    }
    // The process itself only has what its caches, its events and the accounts need.
    let own = plane.identity("system:kube-controller-manager")?;
    let sets = Api::<ReplicaSet>::namespaced(&own, "default");
    sets.list(&Default::default()).await?;
    let refused = sets.delete("any", &DeleteOptions::default()).await;
    let refused = refused.err().and_then(|error| error.api().map(|error| error.code()));
    ensure!(refused == Some(403), "{refused:?}");
    plane.finish(nodes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_service_account_is_restored_and_its_controller_goes_on() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&[])?;
    let client = &plane.client;
    let mut set =
        objects().into_iter().find(|one| one["kind"] == "ReplicaSet").context("it exists")?;
    set["spec"]["replicas"] = 1.into();
    create(&plane, &[set]).await?;
    let with_replicas = |count: i32| {
        let selection = Selection::namespace("default").name("set");
        wait::until::<ReplicaSet>(client, selection, "the replicas exist", move |sets| {
            let status = sets.get("set").and_then(|set| set.status.as_ref());
            status.is_some_and(|status| status.replicas == count)
        })
    };
    with_replicas(1).await?;
    let accounts = Api::<ServiceAccount>::namespaced(client, "kube-system");
    let before = accounts.get("replicaset-controller").await?.metadata.uid;
    accounts.delete("replicaset-controller", &DeleteOptions::default()).await?;
    // The server may accept the old token for some seconds more.
    let sets = Api::<ReplicaSet>::namespaced(client, "default");
    let mut replicas = 1;
    wait::eventually("the account is restored", || {
        replicas += 1;
        let scale = json!({"spec": {"replicas": replicas}});
        let (sets, accounts) = (sets.clone(), accounts.clone());
        async move {
            sets.patch("set", PatchKind::Merge, &scale).await?;
            accounts.get("replicaset-controller").await?;
            Ok(())
        }
    })
    .await?;
    let after = accounts.get("replicaset-controller").await?.metadata.uid;
    ensure!(before != after, "it was created again");
    sets.patch("set", PatchKind::Merge, &json!({"spec": {"replicas": 3}})).await?;
    with_replicas(3).await?;
    plane.finish(Vec::new()).await
}
