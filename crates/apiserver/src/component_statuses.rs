//! ComponentStatuses: whether the scheduler, the controller manager and the store are healthy, asked
//! when somebody wants to know (`k8s.io/kubernetes/pkg/registry/core/componentstatus`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::cache::Version;
use crate::config::Config;
use crate::core::Call;
use crate::request::Verb;
use crate::response::{ListAnswer, ObjectAnswer, Response};
use crate::verbs::read;

/// How long a component may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of its answer, what is shown.
const ANSWER_BYTES_MAX: usize = 10 << 10;

/// Where the components are.
#[derive(Debug)]
pub struct Components {
    scheduler: SocketAddr,
    controller_manager: SocketAddr,
    /// Members of the store.
    stores: usize,
}

/// A component, and how it is asked.
#[derive(Clone, Copy)]
enum Probe {
    Http(SocketAddr),
    Store,
}

impl Components {
    pub fn new(config: &Config) -> Self {
        Self {
            scheduler: config.scheduler_health_address,
            controller_manager: config.controller_manager_health_address,
            stores: config.etcd_servers.len().max(1),
        }
    }

    fn all(&self) -> Vec<(String, Probe)> {
        let own = [
            ("controller-manager", Probe::Http(self.controller_manager)),
            ("scheduler", Probe::Http(self.scheduler)),
        ];
        let own = own.into_iter().map(|(name, probe)| (name.to_owned(), probe));
        let stores = (0..self.stores).map(|index| (format!("etcd-{index}"), Probe::Store));
        own.chain(stores).collect()
    }
}

/// Handles an authorized request to ComponentStatuses.
///
/// # Errors
/// 500 for a component that there is not, as upstream; 405 for all that is not a read.
pub async fn answer(call: Call<'_>) -> Result<Response, ApiError> {
    let named = !call.target.name.is_empty();
    if !matches!((call.verb, named), (Verb::Get, true) | (Verb::List, false)) {
        return Err(ApiError::method_not_allowed(call.row(), call.verb.as_str()));
    }
    let row = call.row().clone();
    let all = call.core.components.all();
    let wanted = all.iter().filter(|(name, _)| !named || *name == call.target.name);
    let asked = wanted.map(|(name, probe)| version(call, name, *probe));
    let mut items = Vec::new();
    for version in futures::future::join_all(asked).await {
        items.push(version?);
    }
    if named {
        let name = &call.target.name;
        let missing = || ApiError::new(500, "", format!("Component not found: {name}"));
        let version = items.into_iter().next().ok_or_else(missing)?;
        return Ok(Response::Object(ObjectAnswer {
            code: 200,
            row,
            version,
            warnings: Vec::new(),
        }));
    }
    let filter = read::filter(call)?;
    items.retain(|version| filter.matches(version));
    let (continue_token, remaining) = Default::default();
    Ok(Response::List(ListAnswer { row, items, revision: 0, continue_token, remaining }))
}

async fn version(call: Call<'_>, name: &str, probe: Probe) -> Result<Arc<Version>, ApiError> {
    let found = match probe {
        Probe::Http(address) => healthz(address).await,
        Probe::Store if call.core.probe.answers(&call.core.store).await => Ok("ok".to_owned()),
        Probe::Store => Err("the store does not answer".to_owned()),
    };
    let (status, message) = match found {
        Ok(message) => ("True", message),
        Err(message) => ("False", message),
    };
    let value = json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": status, "message": message}]});
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    Version::unstored(call.row(), &json).map(Arc::new).map_err(ApiError::internal)
}

/// What a component says of itself.
///
/// # Errors
/// Why it is not healthy.
async fn healthz(address: SocketAddr) -> Result<String, String> {
    let failed = |why: String| format!("Get \"http://{address}/healthz\": {why}");
    let asked = tokio::time::timeout(TIMEOUT, ask(address)).await;
    let (status, text) = match asked {
        Ok(answer) => answer.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed("context deadline exceeded".to_owned())),
    };
    if (200..400).contains(&status.as_u16()) {
        return Ok(text);
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

async fn ask(
    address: SocketAddr,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the exchange.
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(connection);
    let request = Request::get("/healthz")
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
}
