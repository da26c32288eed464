//! Every resource of a cluster of Kubernetes v1.37 with its default features, as `kubectl api-resources
//! -o wide` prints it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::server::Server;

/// Group and version, resource, short names, kind, categories; `namespaced` or not. Resources with
/// every verb.
const RESOURCES: &[(&str, &str, &str, bool, &str, &str)] = &[
    ("v1", "configmaps", "cm", true, "ConfigMap", ""),
    ("v1", "endpoints", "ep", true, "Endpoints", ""),
    ("v1", "events", "ev", true, "Event", ""),
    ("v1", "limitranges", "limits", true, "LimitRange", ""),
    ("v1", "namespaces", "ns", false, "Namespace", ""),
    ("v1", "nodes", "no", false, "Node", ""),
    ("v1", "persistentvolumeclaims", "pvc", true, "PersistentVolumeClaim", ""),
    ("v1", "persistentvolumes", "pv", false, "PersistentVolume", ""),
    ("v1", "pods", "po", true, "Pod", "all"),
    ("v1", "podtemplates", "", true, "PodTemplate", ""),
    ("v1", "replicationcontrollers", "rc", true, "ReplicationController", "all"),
    ("v1", "resourcequotas", "quota", true, "ResourceQuota", ""),
    ("v1", "secrets", "", true, "Secret", ""),
    ("v1", "serviceaccounts", "sa", true, "ServiceAccount", ""),
    ("v1", "services", "svc", true, "Service", "all"),
    (
        "admissionregistration.k8s.io/v1",
        "mutatingadmissionpolicies",
        "",
        false,
        "MutatingAdmissionPolicy",
        "api-extensions",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "mutatingadmissionpolicybindings",
        "",
        false,
        "MutatingAdmissionPolicyBinding",
        "api-extensions",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        "",
        false,
        "MutatingWebhookConfiguration",
        "api-extensions",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies",
        "",
        false,
        "ValidatingAdmissionPolicy",
        "api-extensions",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        "",
        false,
        "ValidatingAdmissionPolicyBinding",
        "api-extensions",
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "",
        false,
        "ValidatingWebhookConfiguration",
        "api-extensions",
    ),
    (
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "crd,crds",
        false,
        "CustomResourceDefinition",
        "api-extensions",
    ),
    ("apiregistration.k8s.io/v1", "apiservices", "", false, "APIService", "api-extensions"),
    ("apps/v1", "controllerrevisions", "", true, "ControllerRevision", ""),
    ("apps/v1", "daemonsets", "ds", true, "DaemonSet", "all"),
    ("apps/v1", "deployments", "deploy", true, "Deployment", "all"),
    ("apps/v1", "replicasets", "rs", true, "ReplicaSet", "all"),
    ("apps/v1", "statefulsets", "sts", true, "StatefulSet", "all"),
    ("autoscaling/v2", "horizontalpodautoscalers", "hpa", true, "HorizontalPodAutoscaler", "all"),
    ("autoscaling/v1", "horizontalpodautoscalers", "hpa", true, "HorizontalPodAutoscaler", "all"),
    ("batch/v1", "cronjobs", "cj", true, "CronJob", "all"),
    ("batch/v1", "jobs", "", true, "Job", "all"),
    (
        "certificates.k8s.io/v1",
        "certificatesigningrequests",
        "csr",
        false,
        "CertificateSigningRequest",
        "",
    ),
    ("certificates.k8s.io/v1", "clustertrustbundles", "", false, "ClusterTrustBundle", ""),
    ("certificates.k8s.io/v1", "podcertificaterequests", "", true, "PodCertificateRequest", ""),
    ("coordination.k8s.io/v1", "leases", "", true, "Lease", ""),
    ("discovery.k8s.io/v1", "endpointslices", "", true, "EndpointSlice", ""),
    ("events.k8s.io/v1", "events", "ev", true, "Event", ""),
    ("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "", false, "FlowSchema", ""),
    (
        "flowcontrol.apiserver.k8s.io/v1",
        "prioritylevelconfigurations",
        "",
        false,
        "PriorityLevelConfiguration",
        "",
    ),
    ("networking.k8s.io/v1", "ingressclasses", "", false, "IngressClass", ""),
    ("networking.k8s.io/v1", "ingresses", "ing", true, "Ingress", ""),
    ("networking.k8s.io/v1", "ipaddresses", "ip", false, "IPAddress", ""),
    ("networking.k8s.io/v1", "networkpolicies", "netpol", true, "NetworkPolicy", ""),
    ("networking.k8s.io/v1", "servicecidrs", "", false, "ServiceCIDR", ""),
    ("node.k8s.io/v1", "runtimeclasses", "", false, "RuntimeClass", ""),
    ("policy/v1", "poddisruptionbudgets", "pdb", true, "PodDisruptionBudget", ""),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "", false, "ClusterRoleBinding", ""),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "", false, "ClusterRole", ""),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "", true, "RoleBinding", ""),
    ("rbac.authorization.k8s.io/v1", "roles", "", true, "Role", ""),
    ("resource.k8s.io/v1", "deviceclasses", "", false, "DeviceClass", ""),
    ("resource.k8s.io/v1", "devicetaintrules", "", false, "DeviceTaintRule", ""),
    ("resource.k8s.io/v1", "resourceclaims", "", true, "ResourceClaim", ""),
    ("resource.k8s.io/v1", "resourceclaimtemplates", "", true, "ResourceClaimTemplate", ""),
    ("resource.k8s.io/v1", "resourceslices", "", false, "ResourceSlice", ""),
    ("scheduling.k8s.io/v1", "priorityclasses", "pc", false, "PriorityClass", ""),
    ("storage.k8s.io/v1", "csidrivers", "", false, "CSIDriver", ""),
    ("storage.k8s.io/v1", "csinodes", "", false, "CSINode", ""),
    ("storage.k8s.io/v1", "csistoragecapacities", "", true, "CSIStorageCapacity", ""),
    ("storage.k8s.io/v1", "storageclasses", "sc", false, "StorageClass", ""),
    ("storage.k8s.io/v1", "volumeattachments", "", false, "VolumeAttachment", ""),
    ("storage.k8s.io/v1", "volumeattributesclasses", "vac", false, "VolumeAttributesClass", ""),
    (
        "storagemigration.k8s.io/v1",
        "storageversionmigrations",
        "",
        false,
        "StorageVersionMigration",
        "",
    ),
];

/// All but deletecollection, which Namespaces do not have.
const OF_NAMESPACES: &str = "create,delete,get,list,patch,update,watch";

/// Resources that can only be created: group and version, resource, namespaced, kind.
const REVIEWS: &[(&str, &str, bool, &str)] = &[
    ("v1", "bindings", true, "Binding"),
    ("authentication.k8s.io/v1", "selfsubjectreviews", false, "SelfSubjectReview"),
    ("authentication.k8s.io/v1", "tokenreviews", false, "TokenReview"),
    ("authorization.k8s.io/v1", "localsubjectaccessreviews", true, "LocalSubjectAccessReview"),
    ("authorization.k8s.io/v1", "selfsubjectaccessreviews", false, "SelfSubjectAccessReview"),
    ("authorization.k8s.io/v1", "selfsubjectrulesreviews", false, "SelfSubjectRulesReview"),
    ("authorization.k8s.io/v1", "subjectaccessreviews", false, "SubjectAccessReview"),
];

/// Served here, and not by upstream itself: metrics-server's.
const OWN: &[&str] = &["metrics.k8s.io/v1beta1 nodes", "metrics.k8s.io/v1beta1 pods"];

const VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

fn line(
    group: &str,
    resource: &str,
    short: &str,
    namespaced: bool,
    kind: &str,
    verbs: &str,
    categories: &str,
) -> String {
    format!("{resource} {short} {group} {namespaced} {kind} {verbs} {categories}")
}

fn upstream() -> BTreeSet<String> {
    let all = RESOURCES.iter().map(|(group, resource, short, namespaced, kind, categories)| {
        let verbs = if *resource == "namespaces" { OF_NAMESPACES } else { VERBS };
        line(group, resource, short, *namespaced, kind, verbs, categories)
    });
    let reviews = REVIEWS.iter().map(|(group, resource, namespaced, kind)| {
        line(group, resource, "", *namespaced, kind, "create", "")
    });
    let components =
        line("v1", "componentstatuses", "cs", false, "ComponentStatus", "get,list", "");
    all.chain(reviews).chain([components]).collect()
}

fn joined(list: &Value) -> String {
    let mut texts: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    texts.sort_unstable();
    texts.join(",")
}

#[tokio::test]
async fn resources_are_those_of_upstream() {
    let server = Server::start().await;
    let admin = server.admin();
    let groups = admin.get("/apis").await.expect(200);
    let versions = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["versions"].as_array().unwrap());
    let mut all = vec!["v1".to_owned()];
    all.extend(versions.map(|version| version["groupVersion"].as_str().unwrap().to_owned()));
    let mut served = BTreeSet::new();
    for version in &all {
        let root = if version == "v1" { "/api" } else { "/apis" };
        let list = admin.get(&format!("{root}/{version}")).await.expect(200);
        for one in list["resources"].as_array().unwrap() {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            if text("name").contains('/') || OWN.contains(&&*format!("{version} {}", text("name")))
            {
                continue;
            }
            let namespaced = one["namespaced"].as_bool().unwrap();
            served.insert(line(
                version,
                text("name"),
                &joined(&one["shortNames"]),
                namespaced,
                text("kind"),
                &joined(&one["verbs"]),
                &joined(&one["categories"]),
            ));
        }
    }
    let upstream = upstream();
    let missing: Vec<_> = upstream.difference(&served).collect();
    let more: Vec<_> = served.difference(&upstream).collect();
    assert!(missing.is_empty(), "not served: {missing:#?}");
    assert!(more.is_empty(), "not upstream's: {more:#?}");
    server.stop().await;
}

/// Answers one request after the other with a status line and a body.
async fn component(answer: &'static str) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /healthz "));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_say_whether_they_are_healthy() {
    let (scheduler, _answering) =
        component("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let (manager, dying) =
        component("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let server = Server::start_with(&[
        &format!("--scheduler-health-address={scheduler}"),
        &format!("--controller-manager-health-address={manager}"),
    ])
    .await;
    let admin = server.admin();
    let all = "/api/v1/componentstatuses";
    let list = admin.get(all).await.expect(200);
    assert_eq!(list["kind"], "ComponentStatusList");
    let found: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let condition = &one["conditions"][0];
            assert_eq!(condition["type"], "Healthy");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&one["metadata"]["name"]),
                text(&condition["status"]),
                text(&condition["message"]),
            )
        })
        .collect();
    let expected = [
        ("controller-manager", "False", "HTTP probe failed with statuscode: 500"),
        ("scheduler", "True", "ok"),
        ("etcd-0", "True", "ok"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, status, message)| (name.into(), status.into(), message.into()))
    );
    // As kubectl asks for it.
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", all, &accept, Vec::new()).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let names: Vec<_> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Status", "Message", "Error"]);
    assert_eq!(table["rows"][1]["cells"], json!(["scheduler", "Healthy", "ok", ""]));
    // One that is gone.
    dying.abort();
    assert!(dying.await.is_err());
    let one = admin.get(&format!("{all}/controller-manager")).await.expect(200);
    let message = one["conditions"][0]["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("Get \"http://{manager}/healthz\": ")), "{message}");
    let chosen = format!("{all}?fieldSelector=metadata.name%3Detcd-0");
    assert_eq!(admin.get(&chosen).await.expect(200)["items"].as_array().unwrap().len(), 1);
    let missing = admin.get(&format!("{all}/nothing")).await.expect(500);
    assert_eq!(missing["message"], "Component not found: nothing");
    admin.get(&format!("{all}?watch=true")).await.expect(405);
    admin.delete(&format!("{all}/scheduler")).await.expect(405);
    server.rest_as("stranger", &[]).get(all).await.expect(403);
    server.stop().await;
}
