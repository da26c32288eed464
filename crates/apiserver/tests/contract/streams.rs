//! Streams: what may be opened, by which method and right, on both front ends. A kubelet that only
//! keeps a record says what was really dialed.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use rpc::api_v1 as api_pb;
use rpc::kubelet_v1 as pb;
use serde_json::json;
use tonic::{Request, Response, Status, Streaming};

use crate::server::{Rest, Server};

const POD: &str = "/api/v1/namespaces/default/pods/p";
/// The only name that a test's certificates are valid for.
pub const NODE: &str = "localhost";
const STREAMS: &[&str] = &["log", "exec", "attach", "portforward"];
/// Subresources that must never be opened as a stream over gRPC, and never dial anything.
const OTHERS: &[&str] =
    &["eviction", "binding", "ephemeralcontainers", "resize", "status", "token"];
/// Each is the rights of a user of its own.
const RIGHTS: &[&[&str]] = &[&[], &["get"], &["create"], &["get", "create"], &["*"]];
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
/// The methods that are proxied, each with its verb.
const PROXIED: &[(&str, &str)] = &[
    ("GET", "get"),
    ("POST", "create"),
    ("PUT", "update"),
    ("PATCH", "patch"),
    ("DELETE", "delete"),
];

type Frames = Pin<Box<dyn Stream<Item = Result<api_pb::Frame, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<pb::LogChunk, Status>> + Send>>;

/// A node that always uses 250 millicores, all of it in the container `c` of the pod `p`.
fn summary() -> serde_json::Value {
    let now = clock::now();
    let figures = json!({
        "startTime": "2026-01-01T00:00:00Z",
        "cpu": {"time": now.to_string(), "usageCoreNanoSeconds": now.as_nanosecond() / 4},
        "memory": {"workingSetBytes": 3 << 20},
    });
    let mut container = figures.clone();
    container["name"] = "c".into();
    json!({"node": figures, "pods": [
        {"podRef": {"name": "p", "namespace": "default"}, "containers": [container]}]})
}

#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Vec<&'static str>>>);

impl Record {
    fn add(&self, call: &'static str) -> Result<Response<Frames>, Status> {
        self.0.lock().push(call);
        Ok(Response::new(Box::pin(futures::stream::pending())))
    }

    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[tonic::async_trait]
impl pb::kubelet_server::Kubelet for Record {
    type LogsStream = Chunks;
    type ExecStream = Frames;
    type AttachStream = Frames;
    type PortForwardStream = Frames;

    async fn logs(&self, _: Request<pb::LogsRequest>) -> Result<Response<Chunks>, Status> {
        self.0.lock().push("log");
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }

    async fn exec(
        &self,
        _: Request<Streaming<pb::ExecRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.add("exec")
    }

    async fn attach(
        &self,
        _: Request<Streaming<pb::AttachRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.add("attach")
    }

    async fn port_forward(
        &self,
        _: Request<Streaming<pb::PortForwardRequest>>,
    ) -> Result<Response<Frames>, Status> {
        self.0.lock().push("portforward");
        // A proxied server that ends every connection.
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }

    async fn stats(
        &self,
        _: Request<pb::StatsRequest>,
    ) -> Result<Response<pb::StatsResponse>, Status> {
        self.0.lock().push("stats");
        Ok(Response::new(pb::StatsResponse { json: summary().to_string().into() }))
    }

    async fn metrics(
        &self,
        _: Request<pb::MetricsRequest>,
    ) -> Result<Response<pb::MetricsResponse>, Status> {
        Err(Status::unimplemented("metrics"))
    }

    async fn load_image(
        &self,
        _: Request<Streaming<pb::LoadImageRequest>>,
    ) -> Result<Response<pb::LoadImageResponse>, Status> {
        Err(Status::unimplemented("load_image"))
    }
}

fn user(rights: &[&str]) -> String {
    format!("may-{}", rights.join("-")).replace('*', "all")
}

/// A node whose kubelet keeps the record, a running pod on it, and a user for each of the rights.
pub async fn prepare(server: &Server) -> Record {
    let (certificate, key) = server.identity("kubelet", &[]);
    let pair =
        rpc::tls::KeyPair { certificate_pem: certificate.into_bytes(), key_pem: key.into_bytes() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let record = Record::default();
    let client_ca_pem = server.ca_pem.clone().into_bytes();
    let pem = rpc::incoming::ServerPem { pair, client_ca_pem };
    let pem = tokio::sync::watch::channel(std::sync::Arc::new(pem)).1;
    let incoming = rpc::incoming::incoming(listener, pem).unwrap();
    let service = pb::kubelet_server::KubeletServer::new(record.clone());
    let serving = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(async move { serving.serve_with_incoming(incoming).await.unwrap() });

    let admin = server.admin();
    server.default_account("default").await;
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": NODE}})).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    admin.patch(&format!("/api/v1/nodes/{NODE}/status"), "merge", &status).await.expect(200);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": NODE,
        "containers": [{"name": "c", "image": "i"}]}});
    admin.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let status = json!({"status": {"phase": "Running", "podIP": "192.0.2.7",
        "podIPs": [{"ip": "192.0.2.7"}]}});
    admin.patch(&format!("{POD}/status"), "merge", &status).await.expect(200);
    for rights in RIGHTS.iter().filter(|rights| !rights.is_empty()) {
        grant(&admin, &user(rights), rights).await;
    }
    // A consistent read also brings the authorizer up to date.
    admin.get("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings").await.expect(200);
    record
}

async fn grant(admin: &Rest, user: &str, rights: &[&str]) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let all = STREAMS.iter().chain(OTHERS).chain(&["proxy"]);
    let mut resources: Vec<String> = all.map(|name| format!("pods/{name}")).collect();
    resources.push("serviceaccounts/token".into());
    let role = json!({"metadata": {"name": user},
        "rules": [{"apiGroups": [""], "resources": resources, "verbs": rights}]});
    admin.post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
}

fn query(subresource: &str) -> &'static str {
    match subresource {
        "exec" => "?command=true&stdout=1",
        "attach" => "?stdout=1",
        "portforward" => "?ports=80",
        "proxy" => "/x",
        _ => "",
    }
}

/// Headers that ask for another protocol.
fn upgrade(kind: &str, subresource: &str) -> Vec<(&'static str, &'static str)> {
    let served = match (kind, subresource) {
        (_, "log") => "binary.k8s.io",
        ("SPDY/3.1", "portforward") => "portforward.k8s.io",
        _ => "v4.channel.k8s.io",
    };
    match kind {
        "websocket" => vec![
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", served),
        ],
        "SPDY/3.1" => vec![
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", served),
        ],
        _ => Vec::new(),
    }
}

/// The code that a request must get.
fn wanted(subresource: &str, method: &str, kind: &str, rights: &[&str]) -> u16 {
    let may = |verb: &str| rights.contains(&"*") || rights.contains(&verb);
    let verb = match method {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        _ => "delete",
    };
    let session = subresource != "log";
    match method {
        _ if !may(verb) => 403,
        "HEAD" => 405,
        _ if session && verb == "get" && !may("create") => 403,
        "GET" if !session && kind == "websocket" => 101,
        "GET" if !session => 200,
        "POST" if kind == "websocket" => 405,
        "GET" | "POST" if session && kind.is_empty() => 400,
        "GET" | "POST" if session => 101,
        _ => 405,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_opened_by_the_right_method_upgrade_and_right_only() {
    let server = Server::start().await;
    let record = prepare(&server).await;
    let mut wrong = Vec::new();
    for rights in RIGHTS {
        let rest = server.rest_as(&user(rights), &[]);
        for subresource in STREAMS {
            for method in METHODS {
                for kind in ["", "websocket", "SPDY/3.1"] {
                    let path = format!("{POD}/{subresource}{}", query(subresource));
                    let headers = upgrade(kind, subresource);
                    let answer = rest.ask(method, &path, &headers, Vec::new()).await;
                    let wanted = wanted(subresource, method, kind, rights);
                    let dialed = record.take();
                    let allowed = matches!(wanted, 101 | 200);
                    if answer.code != wanted || dialed.is_empty() == allowed {
                        wrong.push(format!(
                            "{method} {subresource} {kind:?} {rights:?}: wanted {wanted}, got {} \
                             {}, dialed {dialed:?}",
                            answer.code, answer.text
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_cannot_be_completed_dials_nothing() {
    let server = Server::start().await;
    let record = prepare(&server).await;
    let rest = server.admin();
    let path = format!("{POD}/exec?command=true&stdout=1");
    let good = upgrade("websocket", "exec");
    let without = |name: &str| good.iter().filter(|(key, _)| *key != name).copied().collect();
    let with = |name: &'static str, value: &'static str| {
        let mut headers: Vec<_> = without(name);
        headers.push((name, value));
        headers
    };
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("without Connection", without("connection")),
        ("another Connection", with("connection", "keep-alive")),
        ("another protocol", with("upgrade", "h2c")),
        ("without a key", without("sec-websocket-key")),
        ("without a version", without("sec-websocket-version")),
        ("an old version", with("sec-websocket-version", "8")),
        ("no common protocol", with("sec-websocket-protocol", "v9.channel.k8s.io")),
        (
            "no common SPDY protocol",
            vec![
                ("connection", "upgrade"),
                ("upgrade", "SPDY/3.1"),
                ("x-stream-protocol-version", "v9.channel.k8s.io"),
            ],
        ),
    ];
    for (what, headers) in cases {
        let answer = rest.ask("GET", &path, &headers, Vec::new()).await;
        assert_eq!((answer.code, record.take()), (400, Vec::new()), "{what}: {}", answer.text);
    }
    let ports = upgrade("websocket", "portforward");
    for query in ["", "?ports=0", "?ports=x"] {
        let path = format!("{POD}/portforward{query}");
        let answer = rest.ask("GET", &path, &ports, Vec::new()).await;
        assert_eq!((answer.code, record.take()), (400, Vec::new()), "{query}: {}", answer.text);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_stream_dials_nothing() {
    let server = Server::start().await;
    let record = prepare(&server).await;
    for rights in RIGHTS {
        let rest = server.rest_as(&user(rights), &[]);
        for subresource in OTHERS {
            for method in METHODS {
                for kind in ["", "websocket", "SPDY/3.1"] {
                    let path = format!("{POD}/{subresource}");
                    let headers = upgrade(kind, subresource);
                    let answer = rest.ask(method, &path, &headers, Vec::new()).await;
                    let what = format!("{method} {subresource} {kind:?} {rights:?}");
                    assert_ne!(answer.code, 101, "{what}");
                    assert_eq!(record.take(), Vec::<&str>::new(), "{what}: {}", answer.text);
                }
            }
        }
        // The proxy maps each method to its own verb.
        for (method, verb) in PROXIED {
            for kind in ["", "websocket", "SPDY/3.1"] {
                let may = rights.contains(verb) || rights.contains(&"*");
                let headers = upgrade(kind, "proxy");
                let path = format!("{POD}/proxy/x");
                let answer = rest.ask(method, &path, &headers, Vec::new()).await;
                let dialed = record.take();
                let what =
                    format!("{method} proxy {kind:?} {rights:?}: {} {dialed:?}", answer.text);
                assert_eq!(answer.code == 403, !may, "{what}");
                assert_eq!(!dialed.is_empty(), may, "{what}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_only_the_four_streams_are_opened() {
    let server = Server::start().await;
    let record = prepare(&server).await;
    let mut wrong = Vec::new();
    for rights in RIGHTS {
        let mut grpc = server.grpc_as(&user(rights), &[]);
        let of_pods = STREAMS.iter().chain(OTHERS).chain(&["proxy", "", "nonsense"]);
        let of_pods = of_pods.map(|subresource| ("pods", "p", subresource));
        for (resource, name, subresource) in
            of_pods.chain([("serviceaccounts", "default", &"token")])
        {
            let parameter = |name: &str, value: &str| api_pb::Parameter {
                name: name.into(),
                value: value.into(),
            };
            let open = api_pb::StreamOpen {
                target: Some(api_pb::Target {
                    version: "v1".into(),
                    resource: resource.into(),
                    namespace: "default".into(),
                    name: name.into(),
                    subresource: (*subresource).into(),
                    ..api_pb::Target::default()
                }),
                parameters: vec![parameter("command", "true"), parameter("stdout", "1")],
            };
            let kind = Some(api_pb::stream_request::Kind::Open(open));
            let requests = futures::stream::iter([api_pb::StreamRequest { kind }]);
            let answer = grpc.stream(requests).await.map(|_| ());
            let verb = if *subresource == "log" { "get" } else { "create" };
            let may =
                STREAMS.contains(subresource) && (rights.contains(&verb) || rights.contains(&"*"));
            let dialed = record.take();
            if answer.is_ok() != may || dialed.is_empty() == may {
                wrong.push(format!(
                    "{resource}/{subresource} {rights:?}: {answer:?}, dialed {dialed:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}
