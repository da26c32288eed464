//! What only `skiff` shows: trees of objects, traces through the nodes' tables, and why an endpoint
//! is missing.

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::suite::Fixture;
use testkit::wait;
use tests::{pods, web};

use super::Tool;

fn file(fixture: &Fixture, text: &str) -> anyhow::Result<String> {
    let path = fixture.cluster.folder().join(format!("{}.yaml", fixture.namespace));
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

fn skiff(fixture: &Fixture, line: &str) -> anyhow::Result<String> {
    Tool::Skiff.run(fixture, &line.split(' ').collect::<Vec<_>>())
}

/// The output of a command that fails.
fn failing(fixture: &Fixture, line: &str) -> anyhow::Result<String> {
    let output = Tool::Skiff.attempt(fixture, &line.split(' ').collect::<Vec<_>>())?;
    ensure!(!output.success, "{line} succeeds: {}", output.stdout);
    Ok(output.stdout + &output.stderr)
}

fn has(text: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

async fn start(fixture: &Fixture) -> anyhow::Result<()> {
    let manifest = file(fixture, &web::manifest(2, "v1"))?;
    skiff(fixture, &format!("apply -f {manifest}"))?;
    skiff(fixture, "rollout status deployment/web --timeout=90s")?;
    Ok(())
}

pub async fn skiff_shows_trees(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let tree = skiff(fixture, "tree deploy/web")?;
    has(&tree, &["OBJECT", "Deployment/web", "└─ReplicaSet/web-", "Container/server", "Running"])?;
    ensure!(tree.matches("Pod/web-").count() == 2, "{tree}");
    ensure!(tree.lines().nth(1).is_some_and(|line| line.contains("2/2")), "{tree}");
    let found = pods::until(fixture, "app=web", "two pods", |pods| pods.len() == 2).await?;
    let pod = found.keys().next().context("there are pods")?;

    // Owners are above, and nothing else of them.
    let tree = skiff(fixture, &format!("tree pod/{pod}"))?;
    ensure!(tree.lines().nth(1).is_some_and(|line| line.starts_with("Deployment/web ")), "{tree}");
    ensure!(tree.matches("Pod/").count() == 1, "{tree}");
    let tree = skiff(fixture, "tree svc web")?;
    has(&tree, &["Service/web", "EndpointSlice/web-", &format!("Pod/{pod}")])?;
    let names = skiff(fixture, "tree deploy/web -o name")?;
    has(&names, &["deployment.apps/web\nreplicaset.apps/web-", &format!("pod/{pod}\n")])?;
    let value: Value = serde_json::from_str(&skiff(fixture, "tree deploy/web -o json")?)?;
    let replica_set = &value["trees"][0]["dependents"][0];
    ensure!(replica_set["dependents"][0]["containers"][0]["status"] == "Running", "{value}");

    let node = pods::node(&found[pod]);
    let tree = skiff(fixture, &format!("tree node/{node}"))?;
    has(&tree, &[&format!("Node/{node}"), &format!("Lease/{node}"), &format!("Pod/{pod}")])?;
    has(&tree, &["NAMESPACE", "kube-node-lease"])?;
    has(&failing(fixture, "tree deploy/nope")?, &["\"nope\" not found"])?;
    has(&failing(fixture, "tree deploy")?, &["a name is required"])
}

pub async fn skiff_traces_connections(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let found = pods::until(fixture, "app=web", "two pods", |pods| pods.len() == 2).await?;
    let (pod, object) = found.iter().next().context("there are pods")?;
    let address = Tool::Skiff.get(fixture, &["svc", "web"])?["spec"]["clusterIP"].clone();
    let address = address.as_str().context("the Service has an address")?;
    // A node's table may be a moment behind the API.
    wait::eventually("the tables are as expected", async || {
        let trace = skiff(fixture, "trace svc/web")?;
        has(
            &trace,
            &["node-1, node-2", "services: goto cluster-2", "node-ports: goto external-2"],
        )?;
        for (name, pod) in &found {
            let line = format!("{}:8080  pod {name} on {}", pods::address(pod), pods::node(pod));
            has(&trace, &[&line])?;
        }
        Ok(())
    })
    .await?;
    let node = pods::node(object);
    let trace = skiff(fixture, &format!("trace svc/web:http --from pod/{pod}"))?;
    has(&trace, &[&format!("on {node}\n"), &format!("\n{node}\n"), address])?;
    let trace = skiff(fixture, &format!("trace {address}:80/tcp --from node/{node}"))?;
    has(&trace, &["ClusterIP of", "web:http", "services: goto cluster-2"])?;
    let trace = skiff(fixture, &format!("trace pod/{pod}"))?;
    has(&trace, &[&format!("{}:8080", pods::address(object)), "ClusterIP of", "NodePort of"])?;
    let value: Value = serde_json::from_str(&skiff(fixture, "trace svc/web -o json")?)?;
    ensure!(value["nodes"][0]["frontends"][0]["endpoints"][0]["inTable"] == true, "{value}");
    // Nothing is there.
    has(&skiff(fixture, &format!("trace {address}:81"))?, &["no Service has this address"])?;

    // What policies say, by what is in the tables.
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\n\
                  spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}\n";
    let manifest = file(fixture, closed)?;
    skiff(fixture, &format!("apply -f {manifest}"))?;
    wait::eventually("the policy is in force", async || {
        let trace = skiff(fixture, &format!("trace svc/web --from pod/{pod}"))?;
        let open = "egress allowed: no policy isolates the pod";
        let denied = "ingress denied: no policy allows it";
        has(&trace, &[open, denied, "allowed: a pod may always connect to itself"])
    })
    .await?;
    // Only the traced pod is shown, not its Service's other endpoints.
    let trace = skiff(fixture, &format!("trace pod/{pod} --from pod/{pod}"))?;
    let judged = trace.lines().filter(|line| line.contains("  ingress "));
    ensure!(judged.count() == 1, "{trace}");
    skiff(fixture, &format!("delete -f {manifest}"))?;

    // Only who may use the kubelet's API sees a node's tables.
    has(&failing(fixture, "trace svc/web --as=jane")?, &["forbidden"])?;

    // A node whose proxy does not answer is reported as such.
    let proxy = Pid::from_raw(fixture.cluster.pid("proxy-node-1")?);
    kill(proxy, Signal::SIGSTOP)?;
    let trace = failing(fixture, "trace svc/web");
    kill(proxy, Signal::SIGCONT)?;
    has(&trace?, &["does not answer", "node-2\n", "services: goto cluster-2"])
}

pub async fn skiff_tells_why_an_endpoint_is_missing(fixture: &Fixture) -> anyhow::Result<()> {
    start(fixture).await?;
    let described = skiff(fixture, "describe svc web")?;
    ensure!(!described.contains("Missing Endpoints"), "{described}");
    let change = |spec: &str| -> anyhow::Result<String> {
        let patch = format!("{{\"spec\":{spec}}}");
        Tool::Skiff.run(fixture, &["patch", "svc", "web", "--type=merge", "-p", &patch])?;
        skiff(fixture, "describe svc web")
    };
    let described = change(r#"{"ports":[{"name":"http","port":80,"targetPort":"nope"}]}"#)?;
    has(&described, &["Missing Endpoints:", "no container port is named \"nope\""])?;
    let described = change(r#"{"selector":{"app":"web","tier":"front"}}"#)?;
    has(&described, &["no pod is labelled app=web,tier=front; but for tier=front, 2 pods are"])
}

/// Objects that `skiff apply` wrote before, applied by the server.
pub async fn skiff_migrates_to_server_side_apply(fixture: &Fixture) -> anyhow::Result<()> {
    let map = |data: &str| -> anyhow::Result<String> {
        file(
            fixture,
            &format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: t}}\ndata: {data}\n"),
        )
    };
    let data = || skiff(fixture, "get cm t -o jsonpath={.data}");
    skiff(fixture, &format!("apply -f {}", map("{key: v, legacy: x}")?))?;
    let applied = skiff(fixture, &format!("apply --server-side -f {}", map("{key: v, a: c}")?))?;
    has(&applied, &["configmap/t serverside-applied"])?;
    ensure!(data()? == r#"{"a":"c","key":"v"}"#, "{}", data()?);
    has(&skiff(fixture, "apply view-last-applied cm/t")?, &["  a: c\n  key: v\n"])?;
    let conflict = failing(
        fixture,
        &format!("apply --server-side --field-manager=me -f {}", map("{key: w}")?),
    )?;
    has(&conflict, &["error: Apply failed with 1 conflict", ".data.key\n", "--force-conflicts"])?;
    skiff(fixture, &format!("apply -f {}", map("{key: v, b: z}")?))?;
    ensure!(data()? == r#"{"b":"z","key":"v"}"#, "{}", data()?);
    let patched = Tool::Skiff.run(
        fixture,
        &[
            "patch",
            "cm",
            "t",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]"#,
        ],
    )?;
    ensure!(patched == "configmap/t patched\n", "{patched}");
    skiff(fixture, "create deployment scaled --image=x --replicas=0")?;
    has(
        &skiff(fixture, "get deploy scaled --subresource=scale")?,
        &["NAME     DESIRED   AVAILABLE   AGE\n", "scaled   0         0           "],
    )
}
