//! An apiserver for tests of a single reconciliation: it holds the objects that a test puts there,
//! which may differ from what the controller's cache says, and records every write.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ApiError, Kind, KindRow};
use client::{Client, Config};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rpc::api_v1 as pb;
use rpc::api_v1::resources_server::{Resources, ResourcesServer};
use rpc::status::to_grpc;
use rpc::tls::Dial;
use serde_json::Value;
use tonic::codegen::tokio_stream;
use tonic::{Request, Response, Status, Streaming};

type Stream<T> = BoxStream<'static, Result<T, Status>>;
/// The plural of the kind, the namespace and the name.
type Address = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Address, Value>,
    writes: Vec<String>,
    /// The kinds, in the plural, of which no patch is accepted.
    refused: Vec<String>,
    /// How many tokens were issued; only the last one is valid.
    tokens: usize,
    revoked: bool,
}

/// The server; cheap to clone.
#[derive(Clone, Default)]
pub struct FakeServer(Arc<Mutex<State>>);

impl FakeServer {
    /// Serves on a port of the loopback interface until the test ends.
    pub async fn start() -> (Self, Client) {
        let server = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = ResourcesServer::new(server.clone());
        let serve = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(serve.serve_with_incoming(incoming));
        let dial = Dial { url, ca_pem: None, key_pair: None, server_name: None };
        let config = Config { dial, token: None, token_file: None, namespace: "default".into() };
        (server, Client::new(&config).unwrap())
    }

    /// Adds or replaces an object.
    pub fn put<K: Kind>(&self, object: &K) {
        let metadata = object.metadata();
        let address = (
            K::ROW.plural.to_string(),
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        let json = serde_json::from_slice(&object.encode()).unwrap();
        self.0.lock().objects.insert(address, json);
    }

    /// Every write so far, as `verb resource[/subresource] [namespace/]name`.
    pub fn writes(&self) -> Vec<String> {
        self.0.lock().writes.clone()
    }

    /// Refuses patches of a kind from now on.
    pub fn refuse(&self, plural: &str) {
        self.0.lock().refused.push(plural.to_owned());
    }

    /// Makes all tokens issued so far invalid.
    pub fn revoke_tokens(&self) {
        self.0.lock().revoked = true;
    }

    /// The number in the last token that was issued.
    pub fn tokens(&self) -> usize {
        self.0.lock().tokens
    }

    fn authenticate<T>(&self, call: &Request<T>) -> Result<(), Status> {
        let state = self.0.lock();
        let valid = format!("Bearer token-{}", state.tokens);
        match call.metadata().get("authorization") {
            Some(token) if state.revoked || token.as_bytes() != valid.as_bytes() => {
                Err(to_grpc(&ApiError::unauthorized()))
            }
            _ => Ok(()),
        }
    }

    /// Answers a TokenRequest for an account that exists.
    fn issue_token(&self, target: &pb::Target, mut request: Value) -> Result<Value, Status> {
        self.get(target)?;
        let mut state = self.0.lock();
        state.tokens += 1;
        state.revoked = false;
        request["status"] = serde_json::json!({
            "token": format!("token-{}", state.tokens), "expirationTimestamp": "2026-01-01T00:00:00Z",
        });
        Ok(request)
    }

    /// Waits for an event with this reason.
    pub async fn event(&self, reason: &str) -> Value {
        loop {
            let found = self.0.lock().objects.iter().find_map(|(address, object)| {
                (address.0 == "events" && object["reason"] == reason).then(|| object.clone())
            });
            match found {
                Some(event) => return event,
                None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    }

    fn write(&self, verb: &str, target: &pb::Target) -> Result<Value, Status> {
        let slash = |text: &str| if text.is_empty() { "" } else { "/" };
        let text = format!(
            "{verb} {}{}{} {}{}{}",
            target.resource,
            slash(&target.subresource),
            target.subresource,
            target.namespace,
            slash(&target.namespace),
            target.name,
        );
        self.0.lock().writes.push(text);
        self.get(target)
    }

    fn get(&self, target: &pb::Target) -> Result<Value, Status> {
        let object = self.0.lock().objects.get(&address(target)).cloned();
        object.ok_or_else(|| to_grpc(&ApiError::not_found(row(target), &target.name)))
    }
}

fn address(target: &pb::Target) -> Address {
    (target.resource.clone(), target.namespace.clone(), target.name.clone())
}

fn row(target: &pb::Target) -> &'static KindRow {
    let mut rows = api::kind::KINDS.iter().copied();
    rows.find(|row| row.plural == target.resource && row.group == target.group).unwrap()
}

fn object(value: &Value) -> pb::Object {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    pb::Object {
        namespace: text("namespace"),
        name: text("name"),
        uid: text("uid"),
        revision: text("resourceVersion").parse().unwrap_or_default(),
        json: value.to_string().into_bytes().into(),
    }
}

fn target(target: Option<pb::Target>) -> Result<pb::Target, Status> {
    target.ok_or_else(|| Status::invalid_argument("no target"))
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test needs it"))
}

#[tonic::async_trait]
impl Resources for FakeServer {
    type ListStream = Stream<pb::ListPage>;
    type WatchStream = Stream<pb::WatchEvents>;
    type BindStream = Stream<pb::BindResponse>;
    type StreamStream = Stream<pb::Frame>;

    async fn get(&self, call: Request<pb::GetRequest>) -> Result<Response<pb::Object>, Status> {
        self.authenticate(&call)?;
        let target = target(call.into_inner().target)?;
        Ok(Response::new(object(&self.get(&target)?)))
    }

    async fn list(
        &self,
        call: Request<pb::ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let target = target(call.into_inner().target)?;
        let state = self.0.lock();
        let listed = state.objects.iter().filter(|((resource, namespace, _), _)| {
            let everywhere = target.namespace.is_empty();
            *resource == target.resource && (everywhere || *namespace == target.namespace)
        });
        let items = listed.map(|(_, value)| object(value)).collect();
        let page = pb::ListPage { items, revision: 1, ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(page)]))))
    }

    async fn create(
        &self,
        call: Request<pb::CreateRequest>,
    ) -> Result<Response<pb::Object>, Status> {
        let message = call.into_inner();
        let target = target(message.target)?;
        let value: Value = serde_json::from_slice(&message.json)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if target.subresource == "token" {
            return Ok(Response::new(object(&self.issue_token(&target, value)?)));
        }
        let (mut state, mut address) = (self.0.lock(), address(&target));
        address.2 = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        state.writes.push(format!("create {} {}/{}", address.0, address.1, address.2));
        let answer = object(&value);
        state.objects.insert(address, value);
        Ok(Response::new(answer))
    }

    async fn update(
        &self,
        call: Request<pb::UpdateRequest>,
    ) -> Result<Response<pb::Object>, Status> {
        let message = call.into_inner();
        let target = target(message.target)?;
        self.write("update", &target)?;
        let value: Value = serde_json::from_slice(&message.json)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = object(&value);
        self.0.lock().objects.insert(address(&target), value);
        Ok(Response::new(answer))
    }

    /// Records the patch; the object stays as it is.
    async fn patch(&self, call: Request<pb::PatchRequest>) -> Result<Response<pb::Object>, Status> {
        let target = target(call.into_inner().target)?;
        let patched = self.write("patch", &target)?;
        if self.0.lock().refused.contains(&target.resource) {
            return Err(to_grpc(&ApiError::new(422, "Invalid", "refused")));
        }
        Ok(Response::new(object(&patched)))
    }

    async fn delete(
        &self,
        call: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::Object>, Status> {
        let message = call.into_inner();
        let target = target(message.target)?;
        let present = self.write("delete", &target)?;
        let options: Value = serde_json::from_slice(&message.options_json).unwrap_or_default();
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != present["metadata"]["uid"] {
            let conflict = ApiError::conflict(row(&target), &target.name, "another uid");
            return Err(to_grpc(&conflict));
        }
        self.0.lock().objects.remove(&address(&target));
        Ok(Response::new(object(&present)))
    }

    async fn delete_collection(
        &self,
        call: Request<pb::DeleteCollectionRequest>,
    ) -> Result<Response<pb::ListPage>, Status> {
        let target = target(call.into_inner().target)?;
        self.write("deletecollection", &target).ok();
        Ok(Response::new(pb::ListPage::default()))
    }

    async fn watch(
        &self,
        _: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        absent()
    }

    async fn bind(
        &self,
        _: Request<Streaming<pb::BindRequest>>,
    ) -> Result<Response<Self::BindStream>, Status> {
        absent()
    }

    async fn stream(
        &self,
        _: Request<Streaming<pb::StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        absent()
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<rpc::scheduler_v1::ExplainResponse>, Status> {
        absent()
    }

    async fn get_path(
        &self,
        _: Request<pb::GetPathRequest>,
    ) -> Result<Response<pb::GetPathResponse>, Status> {
        absent()
    }
}
