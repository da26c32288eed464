//! An unmodified kubectl.

use std::process::{Command, Stdio};

use crate::published::{definition, object, rows};
use crate::server::Server;

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: 'nginx:1', ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 80}]}
";

fn kubectl(server: &Server, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(kubectl_program())
        .args(arguments)
        .env("KUBECONFIG", server.kubeconfig())
        .env("HOME", server.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The first minor version that these tests require: it leaves validation to the server and
/// supports `create token`, `auth whoami` and explanations from OpenAPI v3. That older versions
/// work too is tested on whole clusters.
const MINOR: u32 = 27;

fn kubectl_program() -> std::ffi::OsString {
    std::env::var_os("SKIFF_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into())
}

/// Whether these tests can run; false only where the environment allows it.
fn new_enough() -> bool {
    let allowed = std::env::var("SKIFF_TEST_WITHOUT").unwrap_or_default();
    if allowed.split(',').any(|tool| tool == "kubectl") {
        eprintln!("skipped: kubectl");
        return false;
    }
    let output = Command::new(kubectl_program())
        .args(["version", "--client", "-o", "json"])
        .output()
        .expect("there is no kubectl (SKIFF_TEST_WITHOUT=kubectl skips these tests)");
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    let digits = minor.trim_end_matches(|last: char| !last.is_ascii_digit());
    assert!(
        digits.parse::<u32>().unwrap() >= MINOR,
        "kubectl is 1.{minor}, these tests are for 1.{MINOR} and newer (SKIFF_TEST_WITHOUT=kubectl skips them)"
    );
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works() {
    if !new_enough() {
        return;
    }
    let server = Server::start().await;
    let file = server.folder.path().join("shop.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    let file = file.display().to_string();
    for (arguments, expected) in [
        (&["apply", "-f", &file][..], "deployment.apps/web created"),
        (&["apply", "-f", &file], "deployment.apps/web unchanged"),
        (&["get", "deploy,svc", "-n", "shop"], "deployment.apps/web"),
        (&["get", "deploy", "web", "-n", "shop", "-o", "jsonpath={.spec.replicas}"], "2"),
        (&["scale", "deploy", "web", "-n", "shop", "--replicas=3"], "scaled"),
        (&["set", "image", "deploy/web", "web=nginx:2", "-n", "shop"], "image updated"),
        (&["explain", "pod.spec.containers.image"], "FIELD: image <string>"),
        (&["create", "configmap", "c", "--from-literal=a=b"], "configmap/c created"),
        (&["label", "cm", "c", "x=y"], "labeled"),
        (&["get", "cm", "-l", "x=y", "-o", "name"], "configmap/c"),
        (&["create", "sa", "robot"], "serviceaccount/robot created"),
        (&["create", "token", "robot"], "eyJ"),
        (&["auth", "whoami"], "kubernetes-admin"),
        (&["auth", "can-i", "get", "pods", "--as=system:kube-scheduler"], "yes"),
        (&["api-resources", "--api-group=apps"], "statefulsets"),
        (&["diff", "-f", &file], "replicas: 2"),
        (&["delete", "-f", &file, "--wait=false"], "namespace \"shop\" deleted"),
    ] {
        let (_, text) = tokio::task::block_in_place(|| kubectl(&server, arguments));
        assert!(text.contains(expected), "kubectl {arguments:?}: {text}");
    }
    let (success, text) =
        tokio::task::block_in_place(|| kubectl(&server, &["get", "pod", "nothing"]));
    assert!(
        !success && text.contains("Error from server (NotFound): pods \"nothing\" not found"),
        "{text}"
    );
    server.stop().await;
}

const MUTATING: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: sidecar}
spec:
  reinvocationPolicy: IfNeeded
  matchConstraints:
    resourceRules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]
  mutations:
    - patchType: ApplyConfiguration
      applyConfiguration:
        expression: >
          Object{spec: Object.spec{containers: [Object.spec.containers{name: 'sidecar', image: 'side'}]}}
    - patchType: JSONPatch
      jsonPatch:
        expression: >
          [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/team'), value: 'blue'}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: sidecar-everywhere}
spec: {policyName: sidecar}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_policies_that_change_pods() {
    if !new_enough() {
        return;
    }
    let server = Server::start().await;
    server.default_account("default").await;
    let file = server.folder.path().join("policy.yaml");
    std::fs::write(&file, MUTATING).unwrap();
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| kubectl(&server, arguments));
    let (success, text) = run(&["apply", "-f", file.to_str().unwrap()]);
    assert!(success, "{text}");
    let (_, text) = run(&["get", "mutatingadmissionpolicy"]);
    assert!(text.contains("MUTATIONS") && text.contains("sidecar"), "{text}");
    let in_force = async {
        while server.core().admission.webhooks.policies.names().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(1), in_force).await.unwrap();
    let (success, text) = run(&["run", "p", "--image=main"]);
    assert!(success, "{text}");
    let (_, text) = run(&[
        "get",
        "pod",
        "p",
        "-o",
        "jsonpath={.spec.containers[*].name} {.metadata.labels.example\\.com/team}",
    ]);
    assert_eq!(text, "p sidecar blue");
    server.stop().await;
}

/// What a user sees of bad manifests: file name to its text, and kubectl's message.
const BAD: &[(&str, &str, &str)] = &[
    (
        "unknown kind",
        "apiVersion: v1\nkind: Foo\nmetadata: {name: x}\n",
        "no matches for kind \"Foo\" in version \"v1\"",
    ),
    (
        "unknown group",
        "apiVersion: none.io/v1\nkind: Foo\nmetadata: {name: x}\n",
        "no matches for kind \"Foo\" in version \"none.io/v1\"",
    ),
    ("malformed", "apiVersion: v1\nkind: [\n", "error converting YAML to JSON"),
    (
        "unknown field",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {}\n",
        "unknown field \"datum\"",
    ),
    (
        "wrong type",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: 5}\n",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
    ),
    (
        "bad name",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_Good}\n",
        "The ConfigMap \"Not_Good\" is invalid: metadata.name: Invalid value: \"Not_Good\"",
    ),
    (
        "selector",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}\n",
        "`selector` does not match template `labels`",
    ),
    (
        "port",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000}]}\n",
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        "namespace",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: none}\n",
        "namespaces \"none\" not found",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reports_invalid_manifests() {
    if !new_enough() {
        return;
    }
    let server = Server::start().await;
    let path = server.folder.path().join("bad.yaml");
    let file = path.display().to_string();
    for (what, manifest, expected) in BAD {
        std::fs::write(&path, manifest).unwrap();
        // Older versions check types themselves, in their own words.
        let validate = format!("--validate={}", *what != "wrong type");
        let arguments = ["apply", &validate, "-f", &file];
        let (success, text) = tokio::task::block_in_place(|| kubectl(&server, &arguments));
        assert!(!success && text.contains(expected), "{what}: {text}");
        assert!(!text.contains("failed to download openapi"), "{what}: {text}");
    }
    let twice = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: i, env: [{name: A, value: '1'}, {name: A, value: '2'}]}]}\n";
    server.default_account("default").await;
    std::fs::write(&path, twice).unwrap();
    let (success, text) =
        tokio::task::block_in_place(|| kubectl(&server, &["create", "-f", &file]));
    let warning = "Warning: spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
    assert!(success && text.contains(warning), "{text}");
    let (success, text) =
        tokio::task::block_in_place(|| kubectl(&server, &["explain", "deployment", "--recursive"]));
    assert!(success && text.contains("imagePullPolicy"), "{text}");
    server.stop().await;
}

/// Definitions with the features of published ones, and objects of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_installs_published_definitions() {
    if !new_enough() {
        return;
    }
    let server = Server::start().await;
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| kubectl(&server, arguments));
    for resource in KINDS {
        let row = rows().into_iter().find(|row| row.resource == *resource).unwrap();
        let defined = definition(&row);
        let write = |name: &str, manifest: &serde_json::Value| {
            let path = server.folder.path().join(format!("{name}.json"));
            std::fs::write(&path, manifest.to_string()).unwrap();
            path.display().to_string()
        };
        let (kind, file) = (row.kind().to_lowercase(), write("definition", &defined));
        let own = write("object", &object(&row, &defined, "one"));
        let path = format!("{kind}.v1.{}", row.group());
        let within = format!("{path}/one");
        let definition = format!("crd/{resource}");
        let explained = format!("{kind}.spec.level");
        let version = format!("--api-version={}/v1", row.group());
        let cases: [(&[&str], &str); 10] = [
            (&["apply", "-f", &file], " created"),
            (&["wait", "--for=condition=Established", &definition], "condition met"),
            (&["apply", "-f", &file], " unchanged"),
            (&["apply", "--server-side", "-f", &file, "--force-conflicts"], "serverside-applied"),
            (&["apply", "-f", &own], " created"),
            (&["apply", "-f", &own], " unchanged"),
            (&["apply", "--server-side", "-f", &own], "serverside-applied"),
            (&["get", &path], "one"),
            (&["get", &within, "-o", "jsonpath={.spec.level}"], "5"),
            (&["explain", &explained, &version], "level <integer>"),
        ];
        for (arguments, expected) in cases {
            let (success, text) = run(arguments);
            assert!(success && text.contains(expected), "kubectl {arguments:?}: {text:.2000}");
        }
        let level = r#"{"spec": {"level": 11}}"#;
        let (success, text) = run(&["patch", &within, "--type=merge", "-p", level]);
        assert!(!success && text.contains("level"), "{resource}: {text:.2000}");
    }
    server.stop().await;
}

/// Of each large project the smallest kind that has most of its features.
const KINDS: &[&str] = &[
    "issuers.cert-manager.io",
    "gateways.gateway.networking.k8s.io",
    "bgpfilters.crd.projectcalico.org",
    "services.serving.knative.dev",
    "bgppeers.metallb.io",
    "volumes.longhorn.io",
];
