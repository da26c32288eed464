//! API aggregation: APIServices, and the servers that they name.

#[path = "aggregation/availability.rs"]
mod availability;
#[path = "aggregation/discovery.rs"]
mod discovery;
#[path = "aggregation/faults.rs"]
mod faults;
#[path = "aggregation/proxy.rs"]
mod proxy;
#[path = "aggregation/registration.rs"]
mod registration;
#[path = "aggregation/request_headers.rs"]
mod request_headers;
#[path = "aggregation/validation.rs"]
mod validation;
#[path = "aggregation/wardle.rs"]
mod wardle;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::extension::{Extension, Reply, Seen, Things};

use crate::server::{Rest, Server};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const THINGS: Things = Things { group: "things.example.com", version: "v1", aggregated: true };
const NAME: &str = "v1.things.example.com";
const PATH: &str = "/apis/things.example.com/v1";
const UNAVAILABLE: &str = "service unavailable\n";
/// How soon a change is known.
const SOON: Duration = Duration::from_secs(10);

/// A server, and an extension server that is registered.
struct Set {
    server: Server,
    rest: Rest,
    extension: Extension,
}

impl Set {
    async fn start() -> Self {
        Self::start_with(|seen| THINGS.answer(seen)).await
    }

    async fn start_with(behave: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let server = Server::start().await;
        let extension = extension(&server, behave).await;
        let rest = server.admin();
        rest.post("/api/v1/namespaces/default/services", &service()).await.expect(201);
        rest.post(SERVICES, &registered(&extension)).await.expect(201);
        until_condition(&rest, NAME, "True", "Passed").await;
        Self { server, rest, extension }
    }

    /// Changes the APIService's spec.
    async fn change(&self, spec: &Value) {
        let path = format!("{SERVICES}/{NAME}");
        self.rest.patch(&path, "merge", &json!({"spec": spec})).await.expect(200);
    }
}

async fn extension(
    server: &Server,
    behave: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> Extension {
    let names = ["extension.default.svc"];
    Extension::start("127.0.0.1", &names, &server.proxy_ca_pem, behave).await.unwrap()
}

/// A Service that leads to this machine.
fn service() -> Value {
    json!({"metadata": {"name": "extension"},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}})
}

fn registered(extension: &Extension) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": NAME}, "spec": {"group": "things.example.com", "version": "v1",
            "groupPriorityMinimum": 2000, "versionPriority": 10,
            "caBundle": extension.ca_bundle(),
            "service": {"namespace": "default", "name": "extension", "port": extension.port}}})
}

/// The condition `Available`: status, reason and message.
fn condition(service: &Value) -> [&str; 3] {
    let mut all = service["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.find(|condition| condition["type"] == "Available").unwrap_or(&Value::Null);
    ["status", "reason", "message"].map(|member| found[member].as_str().unwrap_or_default())
}

/// The APIService, once its condition is so.
async fn until_condition(rest: &Rest, name: &str, status: &str, reason: &str) -> Value {
    let path = format!("{SERVICES}/{name}");
    let so = |service: &Value| condition(service)[..2] == [status, reason];
    let service = until(rest, &path, so).await;
    // What leads requests to servers follows the conditions.
    let (version, group) = name.split_once('.').unwrap();
    let documents = format!("/apis/{group}/{version}");
    let follows = async {
        while (rest.get(&documents).await.text == UNAVAILABLE) == (status == "True") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, follows).await.expect("requests are led as the condition says");
    service
}

/// What is there, once it is so.
async fn until(rest: &Rest, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let answer = rest.get(path).await;
            if is_so(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(SOON, waiting).await {
        Ok(body) => body,
        Err(_) => panic!("{path} stays {}", rest.get(path).await.text),
    }
}
