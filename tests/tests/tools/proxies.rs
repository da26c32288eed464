//! HTTP to pods, Services and nodes through the apiserver, requested through `kubectl proxy`.

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Endpoints;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};

use super::Tool;
use super::port_forward::create;

/// More than the apiserver accepts in any other body.
const LARGE_BYTES: usize = 8 << 20;
/// How long one response may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// `kubectl proxy`; dropping it kills the process.
struct Proxy {
    child: Child,
    address: String,
}

impl Proxy {
    fn start(fixture: &Fixture) -> anyhow::Result<Self> {
        let mut child = fixture
            .cluster
            .kubectl_command()
            .args(["proxy", "--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let Some(address) = line.split_whitespace().last() else {
            child.kill()?;
            bail!("kubectl proxy wrote {line:?}");
        };
        let address = address.to_owned();
        Ok(Self { child, address })
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(stream)
    }

    /// Sends a request with headers (each with its line ending); returns the whole response.
    fn ask(&self, line: &str, headers: &str, body: &[u8]) -> anyhow::Result<String> {
        let mut stream = self.connect()?;
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn expect(response: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(response.contains(part), "{part:?} is not in\n{response:.2000}");
    }
    Ok(())
}

pub async fn pods_and_services_are_proxied(fixture: &Fixture) -> anyhow::Result<()> {
    let pod = create(fixture).await?;
    let selection = Selection::namespace(&fixture.namespace).name("web");
    let ready = |all: &BTreeMap<String, Endpoints>| {
        let subsets = all.values().flat_map(|one| one.subsets.iter().flatten());
        subsets.into_iter().any(|subset| subset.addresses.is_some())
    };
    wait::until(fixture.cluster.client(), selection, "an endpoint is ready", ready).await?;
    let proxy = Proxy::start(fixture)?;
    let within = format!("/api/v1/namespaces/{}", fixture.namespace);
    for name in [
        format!("pods/{pod}"),
        format!("pods/{pod}:8080"),
        format!("pods/http:{pod}:http"),
        "services/web".to_owned(),
        "services/web:80".to_owned(),
        "services/http:web:http".to_owned(),
    ] {
        let path = format!("{within}/{name}/proxy/hostname");
        let response = proxy.ask(&format!("GET {path}"), "", b"")?;
        ensure!(response.ends_with(&pod), "{name}: {response}");
    }
    messages_pass(&proxy, &format!("{within}/services/web:http/proxy"))?;
    upgrades_pass(&proxy, &format!("{within}/pods/{pod}:8080/proxy/upgrade"))?;
    for (name, code, part) in [
        ("services/web:81", "503", "no service port"),
        ("services/missing", "404", "not found"),
        ("pods/missing", "404", "not found"),
        ("pods/ftp:web:80", "400", "invalid proxy request"),
        (&format!("pods/{pod}:81"), "503", "refused"),
        (&format!("pods/https:{pod}:8080"), "503", "error trying to reach service"),
    ] {
        let response = proxy.ask(&format!("GET {within}/{name}/proxy/"), "", b"")?;
        expect(&response, &[&format!("HTTP/1.1 {code}"), part])?;
    }
    Ok(())
}

/// Methods, paths, headers, bodies and redirects.
fn messages_pass(proxy: &Proxy, base: &str) -> anyhow::Result<()> {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let line = format!("{method} {base}/echo/a%20b/?x=1&y=%2F");
        let headers = "X-Mine: yes\r\nAuthorization: Bearer none\r\n";
        let response = proxy.ask(&line, headers, b"the body")?;
        let seen = format!("{method} /echo/a%20b/?x=1&y=%2F\n");
        expect(&response, &["HTTP/1.1 200", &seen, "x-mine: yes", "x-forwarded-for: "])?;
        ensure!(response.ends_with("\n\nthe body"), "{response}");
        ensure!(!response.contains("Bearer"), "{response}");
    }
    let head = proxy.ask(&format!("HEAD {base}/echo"), "", b"")?;
    expect(&head, &["HTTP/1.1 200"])?;

    let large = vec![b'x'; LARGE_BYTES];
    let response = proxy.ask(&format!("POST {base}/echo"), "", &large)?;
    ensure!(response.len() > LARGE_BYTES, "{} bytes came back", response.len());

    let page = proxy.ask(&format!("GET {base}/page"), "Accept: text/html\r\n", b"")?;
    let link = format!("<p>At <a href=\"{base}/hostname\">home</a></p>\n");
    expect(&page, &["HTTP/1.1 200", &link])?;

    let slash = proxy.ask(&format!("GET {base}?a=1"), "", b"")?;
    let location = format!("ocation: {base}/?a=1\r\n");
    expect(&slash, &["HTTP/1.1 301", &location])?;
    let posted = proxy.ask(&format!("POST {base}"), "", b"")?;
    expect(&posted, &["HTTP/1.1 200"])?;
    let redirected = proxy.ask(&format!("GET {base}/redirect/ready"), "", b"")?;
    let location = format!("ocation: {base}/ready\r\n");
    expect(&redirected, &["HTTP/1.1 302", &location])
}

fn upgrades_pass(proxy: &Proxy, path: &str) -> anyhow::Result<()> {
    let mut stream = proxy.connect()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "{head:?}");
    }
    expect(&head, &["HTTP/1.1 101", "pgrade: echo"])?;
    for word in ["one\n", "two\n"] {
        stream.write_all(word.as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line == word, "{line:?}");
    }
    Ok(())
}

pub async fn nodes_are_proxied(fixture: &Fixture) -> anyhow::Result<()> {
    let pod = create(fixture).await?;
    let node =
        Tool::Kubectl.run(fixture, &["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"])?;
    let raw = |path: &str| {
        let path = format!("/api/v1/nodes/{node}/proxy/{path}");
        Tool::Kubectl.attempt(fixture, &["get", "--raw", &path])
    };
    expect(&raw("metrics")?.stdout, &["kubelet_running_pods "])?;
    let metrics = raw("metrics/cadvisor")?.stdout;
    expect(&metrics, &["# TYPE container_memory_usage_bytes", &pod])?;
    let summary: serde_json::Value = serde_json::from_str(&raw("stats/summary")?.stdout)?;
    ensure!(summary["node"]["nodeName"] == node.as_str(), "{summary}");
    ensure!(raw("healthz")?.stdout == "ok");
    let log = raw(&format!("containerLogs/{}/{pod}/server", fixture.namespace))?;
    expect(&log.stdout, &["serving on port 8080"])?;
    let names = |list: &str| -> anyhow::Result<Vec<String>> {
        let list: serde_json::Value = serde_json::from_str(list)?;
        ensure!(list["kind"] == "PodList", "{list}");
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned())).collect())
    };
    for path in ["pods", "runningpods/"] {
        ensure!(names(&raw(path)?.stdout)?.contains(&pod), "{path}");
    }
    let settings: serde_json::Value = serde_json::from_str(&raw("configz")?.stdout)?;
    ensure!(settings["kubeletconfig"]["maxPods"].is_u64(), "{settings}");
    expect(&raw("logs/")?.stdout, &["<pre>", "</pre>"])?;
    expect(&raw("exec/n/p/c")?.stderr, &["does not serve /exec"])?;
    // The kubelet's port and scheme may be given.
    for name in [format!("{node}:10250"), format!("https:{node}:10250"), format!("https:{node}:")] {
        let path = format!("/api/v1/nodes/{name}/proxy/healthz");
        let healthy = Tool::Kubectl.attempt(fixture, &["get", "--raw", &path])?;
        ensure!(healthy.stdout == "ok", "{name}: {}", healthy.stderr);
    }

    // The proxy of a node needs a permission of its own.
    let target = format!("/api/v1/nodes/{node}/proxy/metrics");
    let refused = Tool::Kubectl.attempt(fixture, &["get", "--raw", &target, "--as=jane"])?;
    expect(&refused.stderr, &["Forbidden", "nodes/proxy"])
}

/// As Prometheus and metrics-server do: directly from the kubelet's port, with the token of a
/// ServiceAccount.
pub async fn monitoring_scrapes_kubelets(fixture: &Fixture) -> anyhow::Result<()> {
    let pod = create(fixture).await?;
    let node =
        Tool::Kubectl.run(fixture, &["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"])?;
    let authority = std::fs::read(fixture.cluster.folder().join("pki/ca.crt"))?;
    let web = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&authority)?])
        .build()?;
    Tool::Skiff.run(fixture, &["create", "serviceaccount", "monitor"])?;
    let token = Tool::Skiff.run(fixture, &["create", "token", "monitor"])?;
    let address = fixture.cluster.node_address(&node);
    let read = async |path: &str, token: &str| -> anyhow::Result<(u16, String)> {
        let url = format!("https://{address}:10250/{path}");
        let response = web.get(url).bearer_auth(token.trim()).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    };
    let anonymous = web.get(format!("https://{address}:10250/metrics"));
    ensure!(anonymous.send().await?.status().as_u16() == 401);
    ensure!(read("metrics", "abc").await?.0 == 401);
    let (code, refusal) = read("metrics", &token).await?;
    ensure!(code == 403, "{code} {refusal}");
    let user = format!("system:serviceaccount:{}:monitor", fixture.namespace);
    let rule = format!("user={user}, verb=get, resource=nodes, subresource(s)=[metrics]");
    expect(&refusal, &[&rule])?;

    let name = format!("{}-monitor", fixture.namespace);
    let account = format!("--serviceaccount={}:monitor", fixture.namespace);
    let rights = ["--verb=get", "--resource=nodes/metrics"];
    Tool::Kubectl.run(fixture, &[&["create", "clusterrole", &name], &rights[..]].concat())?;
    let role = format!("--clusterrole={name}");
    Tool::Kubectl.run(fixture, &["create", "clusterrolebinding", &name, &role, &account])?;
    let labels =
        format!("{{container=\"server\",namespace=\"{}\",pod=\"{pod}\"}} ", fixture.namespace);
    for (path, expected) in [
        ("metrics", "kubelet_running_pods ".to_owned()),
        ("metrics/cadvisor", format!("container_memory_usage_bytes{labels}")),
        ("metrics/resource", format!("container_cpu_usage_seconds_total{labels}")),
        ("metrics/resource", "node_memory_working_set_bytes ".to_owned()),
    ] {
        let text = wait::eventually(path, async || {
            let (code, text) = read(path, &token).await?;
            ensure!(code == 200, "{code} {text}");
            Ok(text)
        })
        .await?;
        expect(&text, &[&expected])?;
    }
    // It has no other permission.
    for path in ["stats/summary", "pods", "configz", "logs/", "healthz", ""] {
        ensure!(read(path, &token).await?.0 == 403, "{path}");
    }
    Tool::Kubectl.run(fixture, &["delete", "clusterrolebinding,clusterrole", &name])?;
    Ok(())
}
