//! Whether the server behind an APIService is available (upstream's
//! `pkg/controllers/status/remote`): first its Service and the endpoints of that, then a request
//! for its discovery.

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::header::{HOST, USER_AGENT};
use http::{Method, Request};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::backend::{Address, Backend, Failure, Trust};
use super::condition::{self, Finding};
use super::{aggregator, identity};
use crate::connect::{is_ready, read_slices};
use crate::core::Core;
use crate::rest::empty;

/// Requests at once, of which one has to succeed: a Service may have several endpoints.
const ATTEMPTS: usize = 5;
const ATTEMPT: Duration = Duration::from_secs(5);

/// What the cluster says about a Service.
pub struct Observed {
    pub service: Option<Service>,
    pub slices: Vec<EndpointSlice>,
}

/// Reads it from the cache.
pub fn observe(core: &Core, address: &Address) -> Observed {
    let key = crate::request::object_key(Service::ROW, &address.namespace, &address.name);
    let service = core.cache.resource(Service::ROW).get(&key);
    Observed {
        service: service.and_then(|version| Service::decode(&version.json).ok()),
        slices: read_slices(&core.cache, &address.namespace, &address.name),
    }
}

/// What is wrong with the Service; `None`: nothing that can be seen. Only a Service with an address
/// in the cluster is known to need ports and endpoints.
pub fn judge(address: &Address, observed: &Observed) -> Option<Finding> {
    let Address { namespace, name, port, .. } = address;
    let Some(service) = &observed.service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(condition::failed("ServiceNotFound", message));
    };
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref().is_some_and(|kind| kind != "ClusterIP") {
        return None;
    }
    let number = i32::from(*port);
    let Some(found) = spec.ports.iter().flatten().find(|known| known.port == number) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(condition::failed("ServicePortError", message));
    };
    if observed.slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(condition::failed("EndpointsNotFound", message));
    }
    let port_name = found.name.as_deref().unwrap_or_default();
    if observed.slices.iter().any(|slice| serves(slice, port_name)) {
        return None;
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name \
         {port_name:?}"
    );
    Some(condition::failed("MissingEndpoints", message))
}

fn serves(slice: &EndpointSlice, port_name: &str) -> bool {
    let mut endpoints = slice.endpoints.iter().flatten();
    let mut ports = slice.ports.iter().flatten();
    endpoints.any(is_ready)
        && ports.any(|port| port.name.as_deref() == Some(port_name) && port.port.is_some())
}

/// Asks the server for the discovery of its group version, several times at once.
pub async fn ask(core: &Core, backend: &Arc<Backend>, path: &str) -> Finding {
    let one = || async move {
        let url = format!("https://{}{path}", backend.address.authority());
        let asked = tokio::time::timeout(ATTEMPT, status(core, backend, path)).await;
        let why = match asked {
            Ok(Ok(200..=299)) => return Ok(()),
            Ok(Ok(code)) => format!("bad status from {url}: {code}"),
            Ok(Err(error)) => {
                format!("Get {url:?}: {}", runtime::errors::root_cause(&*error))
            }
            Err(_) => format!("Get {url:?}: context deadline exceeded"),
        };
        Err(format!("failing or missing response from {url}: {why}"))
    };
    let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| one()).collect();
    let mut last = String::new();
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(()) => return condition::passed(),
            Err(why) => last = why,
        }
    }
    condition::failed("FailedDiscoveryCheck", last)
}

/// Only the head of the answer is read.
async fn status(core: &Core, backend: &Arc<Backend>, path: &str) -> Result<u16, Failure> {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, backend.address.authority())
        .header(USER_AGENT, "skiff-apiserver")
        .body(empty())?;
    identity::set(request.headers_mut(), &aggregator())?;
    Ok(backend.send(core, request, Trust::Any).await?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIServiceSpec;
    use serde_json::{Value, json};

    use super::*;

    fn judged(service: Value, slices: Value) -> Option<(&'static str, String)> {
        let spec: APIServiceSpec = serde_json::from_value(json!({"groupPriorityMinimum": 1,
            "versionPriority": 1, "service": {"namespace": "ns", "name": "api", "port": 443}}))
        .unwrap();
        let observed = Observed {
            service: serde_json::from_value(service).unwrap(),
            slices: serde_json::from_value(slices).unwrap(),
        };
        let finding = judge(&Address::of(&spec).unwrap(), &observed)?;
        assert!(!finding.available);
        Some((finding.reason, finding.message))
    }

    #[test]
    fn the_reasons_are_those_of_upstream() {
        let service = |kind: &str, port: i32, name: &str| json!({"metadata": {}, "spec": {"type": kind, "ports": [{"port": port, "name": name}]}});
        let slice = |ready: Value, name: &str| {
            json!([{"metadata": {}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
                "ports": [{"name": name, "port": 8443}]}])
        };
        let good = || service("ClusterIP", 443, "https");
        let none = "have no addresses with port name \"https\"";
        let table = [
            (json!(null), json!([]), "ServiceNotFound", "service/api in \"ns\" is not present"),
            (
                service("ClusterIP", 444, "https"),
                slice(json!(true), "https"),
                "ServicePortError",
                "service/api in \"ns\" is not listening on port 443",
            ),
            (
                good(),
                json!([]),
                "EndpointsNotFound",
                "cannot find endpointslices for service/api in \"ns\"",
            ),
            (good(), slice(json!(false), "https"), "MissingEndpoints", none),
            (good(), slice(json!(true), "http"), "MissingEndpoints", none),
            (good(), slice(json!(true), "https"), "", ""),
            (good(), slice(json!(null), "https"), "", ""),
            (service("ExternalName", 1, "x"), json!([]), "", ""),
            (service("LoadBalancer", 1, "x"), json!([]), "", ""),
        ];
        for (service, slices, reason, message) in table {
            let found = judged(service.clone(), slices).unwrap_or_default();
            assert_eq!(found.0, reason, "{service}");
            assert!(found.1.ends_with(message), "{found:?}");
        }
    }
}
