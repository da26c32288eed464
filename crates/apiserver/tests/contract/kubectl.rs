//! kubectl, unchanged.

use std::process::{Command, Stdio};

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
    let output = Command::new("kubectl")
        .args(arguments)
        .env("KUBECONFIG", server.kubeconfig())
        .env("HOME", server.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        eprintln!("skipped: there is no kubectl on this machine");
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
        (
            &[
                "get",
                "deploy",
                "web",
                "-n",
                "shop",
                "-o",
                "jsonpath={.spec.replicas}",
            ],
            "2",
        ),
        (
            &["scale", "deploy", "web", "-n", "shop", "--replicas=3"],
            "scaled",
        ),
        (
            &["set", "image", "deploy/web", "web=nginx:2", "-n", "shop"],
            "image updated",
        ),
        (
            &["explain", "pod.spec.containers.image"],
            "FIELD: image <string>",
        ),
        (
            &["create", "configmap", "c", "--from-literal=a=b"],
            "configmap/c created",
        ),
        (&["label", "cm", "c", "x=y"], "labeled"),
        (&["get", "cm", "-l", "x=y", "-o", "name"], "configmap/c"),
        (&["create", "sa", "robot"], "serviceaccount/robot created"),
        (&["create", "token", "robot"], "eyJ"),
        (&["auth", "whoami"], "kubernetes-admin"),
        (
            &["auth", "can-i", "get", "pods", "--as=system:kube-scheduler"],
            "yes",
        ),
        (&["api-resources", "--api-group=apps"], "statefulsets"),
        (&["diff", "-f", &file], "replicas: 2"),
        (
            &["delete", "-f", &file, "--wait=false"],
            "namespace \"shop\" deleted",
        ),
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
