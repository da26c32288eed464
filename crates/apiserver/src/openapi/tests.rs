use serde_json::Value;

use super::*;

/// What this server has itself.
fn own() -> Sources<'static> {
    static KINDS: LazyLock<std::sync::Arc<Kinds>> =
        LazyLock::new(|| crate::registry::Registry::default().kinds());
    Sources { kinds: &KINDS, definitions: &|_| None, others: &[], generation: 0, built: &|_| {} }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_document_is_complete() {
    let index = parsed(&index(own()));
    for (path, entry) in index["paths"].as_object().unwrap() {
        let (group, version) = match path.strip_prefix("apis/") {
            Some(rest) => rest.split_once('/').unwrap(),
            None => ("", path.strip_prefix("api/").unwrap()),
        };
        let bytes = document(own(), group, version).unwrap();
        let url = entry["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", hash(&bytes)));
        let document = parsed(&bytes);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        for link in text.split("#/components/schemas/").skip(1) {
            let name = link.split('"').next().unwrap();
            assert!(schemas.get(name).is_some_and(Value::is_object), "{path}: {name}");
        }
    }
    assert!(document(own(), "nonsense", "v1").is_none());
}

#[test]
fn documents_have_what_kubectl_needs() {
    let document = parsed(&document(own(), "apps", "v1").unwrap());
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert!(deployment["description"].as_str().unwrap().starts_with("Deployment enables"));
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        serde_json::json!(["containerPort", "protocol"])
    );
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
}

#[test]
fn v2_has_all_definitions() {
    let swagger = parsed(&swagger(own()));
    assert!(swagger["definitions"]["io.k8s.api.core.v1.PodList"].is_object());
    assert!(swagger["definitions"]["io.k8s.api.batch.v1.CronJob"].is_object());
}

/// Clients before 1.27 check defaults and examples against these themselves.
#[test]
fn values_of_any_type_have_none() {
    let swagger = parsed(&swagger(own()));
    let group = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    let schema = &swagger["definitions"][format!("{group}.JSONSchemaProps")]["properties"];
    for (pointer, name) in [
        ("/default", "JSON"),
        ("/example", "JSON"),
        ("/enum/items", "JSON"),
        ("/items", "JSONSchemaPropsOrArray"),
        ("/additionalItems", "JSONSchemaPropsOrBool"),
        ("/additionalProperties", "JSONSchemaPropsOrBool"),
        ("/dependencies/additionalProperties", "JSONSchemaPropsOrStringArray"),
    ] {
        let link = format!("#/definitions/{group}.{name}");
        assert_eq!(schema.pointer(pointer).unwrap()["$ref"], link, "{pointer}");
        let definition = &swagger["definitions"][format!("{group}.{name}")];
        assert!(definition["description"].is_string() && definition["type"].is_null(), "{name}");
    }
    let raw =
        &swagger["definitions"]["io.k8s.api.apps.v1.ControllerRevision"]["properties"]["data"];
    assert_eq!(raw["type"], "object");
}

#[test]
fn clients_have_to_set_what_upstream_requires() {
    let swagger = parsed(&swagger(own()));
    let definitions = swagger["definitions"].as_object().unwrap();
    let required = |name: &str| -> Vec<&str> {
        let fields = definitions[name]["required"].as_array();
        fields.into_iter().flatten().filter_map(Value::as_str).collect()
    };
    for name in definitions.keys() {
        assert!(!required(name).contains(&"metadata"), "{name}");
    }
    for (name, fields) in [
        ("io.k8s.api.core.v1.Pod", &[][..]),
        ("io.k8s.api.core.v1.LocalObjectReference", &[]),
        ("io.k8s.api.core.v1.SecretEnvSource", &[]),
        ("io.k8s.api.core.v1.SecretKeySelector", &["key"]),
        ("io.k8s.api.core.v1.PodSpec", &["containers"]),
        ("io.k8s.api.core.v1.EnvVar", &["name"]),
        ("io.k8s.api.apps.v1.DeploymentSpec", &["selector", "template"]),
        ("io.k8s.api.authentication.v1.TokenRequestSpec", &["audiences"]),
    ] {
        assert_eq!(required(name), fields, "{name}");
    }
}

/// As much of gnostic's messages as shows that the layouts agree.
mod gnostic {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Document {
        #[prost(string, tag = "1")]
        pub swagger: String,
        #[prost(message, optional, tag = "8")]
        pub paths: Option<Paths>,
        #[prost(message, optional, tag = "9")]
        pub definitions: Option<Schemas>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Paths {
        #[prost(message, repeated, tag = "2")]
        pub path: Vec<Path>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Path {
        #[prost(string, tag = "1")]
        pub name: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Schemas {
        #[prost(message, repeated, tag = "1")]
        pub entries: Vec<NamedSchema>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NamedSchema {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<Schema>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Schema {
        #[prost(string, tag = "1")]
        pub reference: String,
        #[prost(string, repeated, tag = "19")]
        pub required: Vec<String>,
        #[prost(message, optional, tag = "22")]
        pub ty: Option<Texts>,
        #[prost(message, optional, tag = "25")]
        pub properties: Option<Schemas>,
        #[prost(message, repeated, tag = "31")]
        pub extensions: Vec<Named>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Texts {
        #[prost(string, repeated, tag = "1")]
        pub value: Vec<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Named {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Any {
        #[prost(string, tag = "2")]
        pub yaml: String,
    }
}

#[test]
fn v2_is_served_as_protobuf() {
    use gnostic::{Document, Schema};
    use prost::Message;

    let json = parsed(&swagger(own()));
    let document = Document::decode(swagger_protobuf(own())).unwrap();
    assert_eq!(document.swagger, "2.0");
    let count = |of: &str| json[of].as_object().unwrap().len();
    assert_eq!(document.paths.unwrap().path.len(), count("paths"));
    let definitions = document.definitions.unwrap().entries;
    assert_eq!(definitions.len(), count("definitions"));
    let schema = |name: &str| -> Schema {
        let found = definitions.iter().find(|entry| entry.name == name);
        found.unwrap().value.clone().unwrap()
    };
    let container = schema("io.k8s.api.core.v1.Container");
    assert_eq!(container.required, ["name"]);
    assert_eq!(container.ty.unwrap().value, ["object"]);
    let properties = container.properties.unwrap().entries;
    let ports = properties
        .iter()
        .find(|entry| entry.name == "ports")
        .and_then(|entry| entry.value.clone())
        .unwrap();
    let key = ports
        .extensions
        .iter()
        .find(|extension| extension.name == "x-kubernetes-patch-merge-key")
        .and_then(|extension| extension.value.clone());
    assert_eq!(key.unwrap().yaml, "\"containerPort\"");
    let list = schema("io.k8s.api.core.v1.PodList");
    let metadata = list.properties.unwrap().entries;
    let metadata = metadata.iter().find(|entry| entry.name == "metadata");
    let reference = metadata.unwrap().value.clone().unwrap().reference;
    assert!(reference.ends_with("v1.ListMeta"), "{reference}");
}

#[test]
fn operations_are_named_as_upstreams() {
    let swagger = parsed(&swagger(own()));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    for (path, method, id, action) in [
        ("/api/v1/pods".to_owned(), "get", "listCoreV1PodForAllNamespaces", "list"),
        ("/api/v1/namespaces/{namespace}/pods".into(), "get", "listCoreV1NamespacedPod", "list"),
        ("/api/v1/namespaces/{namespace}/pods".into(), "post", "createCoreV1NamespacedPod", "post"),
        (
            "/api/v1/namespaces/{namespace}/pods".into(),
            "delete",
            "deleteCoreV1CollectionNamespacedPod",
            "deletecollection",
        ),
        (pod.into(), "get", "readCoreV1NamespacedPod", "get"),
        (pod.into(), "put", "replaceCoreV1NamespacedPod", "put"),
        (pod.into(), "patch", "patchCoreV1NamespacedPod", "patch"),
        (pod.into(), "delete", "deleteCoreV1NamespacedPod", "delete"),
        (format!("{pod}/status"), "patch", "patchCoreV1NamespacedPodStatus", "patch"),
        (format!("{pod}/log"), "get", "readCoreV1NamespacedPodLog", "get"),
        (format!("{pod}/eviction"), "post", "createCoreV1NamespacedPodEviction", "post"),
        (format!("{pod}/exec"), "post", "connectCoreV1PostNamespacedPodExec", "connect"),
        (format!("{pod}/attach"), "get", "connectCoreV1GetNamespacedPodAttach", "connect"),
        (format!("{pod}/proxy"), "head", "connectCoreV1HeadNamespacedPodProxy", "connect"),
        (
            format!("{pod}/proxy/{{path}}"),
            "options",
            "connectCoreV1OptionsNamespacedPodProxyWithPath",
            "connect",
        ),
        ("/api/v1/nodes/{name}/proxy".into(), "get", "connectCoreV1GetNodeProxy", "connect"),
        (
            "/api/v1/namespaces/{name}/finalize".into(),
            "put",
            "replaceCoreV1NamespaceFinalize",
            "put",
        ),
        ("/api/v1/watch/pods".into(), "get", "watchCoreV1PodListForAllNamespaces", "watchlist"),
        (
            "/api/v1/watch/namespaces/{namespace}/pods/{name}".into(),
            "get",
            "watchCoreV1NamespacedPod",
            "watch",
        ),
        (
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale".into(),
            "get",
            "readAppsV1NamespacedDeploymentScale",
            "get",
        ),
        (format!("{rbac}/clusterroles"), "get", "listRbacAuthorizationV1ClusterRole", "list"),
        (
            format!("{rbac}/watch/clusterroles"),
            "get",
            "watchRbacAuthorizationV1ClusterRoleList",
            "watchlist",
        ),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews".into(),
            "post",
            "createAuthorizationV1SubjectAccessReview",
            "post",
        ),
    ] {
        let operation = &swagger["paths"][&path][method];
        assert_eq!(operation["operationId"], id, "{path}");
        assert_eq!(operation["x-kubernetes-action"], action, "{path}");
    }
    let list = &swagger["paths"][format!("{rbac}/roles")]["get"];
    assert_eq!(list["tags"], serde_json::json!(["rbacAuthorization_v1"]));
    let exec = &swagger["paths"][format!("{pod}/exec")]["get"];
    assert_eq!(exec["x-kubernetes-group-version-kind"]["kind"], "PodExecOptions");
}

/// Generators of clients refuse a document in which names repeat or parameters are missing.
#[test]
fn operations_and_parameters_are_whole() {
    let mut documents = vec![parsed(&swagger(own()))];
    documents.extend(
        group_versions(own().kinds).iter().map(|(g, v)| parsed(&document(own(), g, v).unwrap())),
    );
    for document in documents {
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let named = |place: &str| -> Vec<&str> {
                let own = item["parameters"].as_array().unwrap().iter();
                let own = own.filter(|parameter| parameter["in"] == place);
                own.map(|parameter| parameter["name"].as_str().unwrap()).collect()
            };
            let inside: Vec<&str> =
                path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
            let mut wanted = inside.clone();
            wanted.sort_unstable();
            let mut there = named("path");
            there.sort_unstable();
            assert_eq!(there, wanted, "{path}");
            for (method, operation) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                assert!(ids.insert(operation["operationId"].to_string()), "{path} {method}");
                assert!(operation["responses"]["401"].is_object(), "{path} {method}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let link = parameter["$ref"].as_str().map(|link| link.trim_start_matches('#'));
                    let found = link.map_or(Some(parameter), |link| document.pointer(link));
                    assert!(found.is_some_and(|found| found["name"].is_string()), "{parameter}");
                }
            }
        }
    }
}

#[test]
fn closed_sets_of_values_are_listed() {
    let swagger = parsed(&swagger(own()));
    let field = |definition: &str, name: &str| {
        swagger["definitions"][definition]["properties"][name].clone()
    };
    let policy = field("io.k8s.api.core.v1.PodSpec", "restartPolicy");
    assert_eq!(policy["enum"], serde_json::json!(["Always", "Never", "OnFailure"]));
    let types = field("io.k8s.api.networking.v1.NetworkPolicySpec", "policyTypes");
    assert_eq!(types["items"]["enum"], serde_json::json!(["Egress", "Ingress"]));
}
