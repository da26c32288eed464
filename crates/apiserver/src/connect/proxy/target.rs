//! Resolves a proxied name to a backend.

use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rpc::kubelet_v1::PortForwardOpen;
use tokio::net::TcpStream;

use super::Proxy;
use super::address::Address;
use super::backend::{Backend, Io, Route, Server, proxyable, unreachable};
use super::endpoints::{self, Destination, Endpoint, read_slices};
use crate::connect::Connection;
use crate::core::{Call, Core};
use crate::kubelet;

/// Resolves the target's name.
///
/// # Errors
/// 400 for a malformed name, 404 for an object that does not exist, 503 without ready endpoints.
pub async fn find(call: Call<'_>) -> Result<Connection, ApiError> {
    call.core.cache.fresh().await?;
    let address = Address::parse(&call.target.name)?;
    let backend = match &*call.row().kind {
        "Pod" => pod(call, &address).await?,
        "Service" => service(call, &address).await?,
        _ => node(call, &address).await?,
    };
    Ok(Connection::Proxy(Box::new(Proxy { backend, path: call.target.subpath.clone() })))
}

/// An object of a namespace.
async fn object<K: Kind>(core: &Core, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
    let key = crate::request::object_key(K::ROW, namespace, name);
    let found = core.find(K::ROW, &key).await?;
    found.map(|version| K::decode(&version.json).map_err(ApiError::internal)).transpose()
}

/// An object of the target's namespace, if its kind has one.
async fn existing<K: Kind>(call: Call<'_>, name: &str) -> Result<K, ApiError> {
    let found = object(call.core, &call.target.namespace, name).await?;
    found.ok_or_else(|| ApiError::not_found(K::ROW, name))
}

async fn pod(call: Call<'_>, address: &Address<'_>) -> Result<Backend, ApiError> {
    let pod: Pod = existing(call, address.name).await?;
    let port = match (address.port, address.port_number()) {
        (_, Some(number)) => number,
        ("", None) => first_port(&pod).unwrap_or(address.default_port()),
        (name, None) => named_port(&pod, name).ok_or_else(|| {
            ApiError::bad_request(format!("pod {} has no port named {name:?}", address.name))
        })?,
    };
    let route = route_to(call.core, &pod).await?;
    Ok(Backend::Server(Server { route, port, https: address.https }))
}

fn ports(pod: &Pod) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten())
}

fn first_port(pod: &Pod) -> Option<u16> {
    u16::try_from(ports(pod).next()?.container_port).ok()
}

fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let port = ports(pod).find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.container_port).ok()
}

/// The backend of a pod: through its node's kubelet, to the pod's own address.
async fn route_to(core: &Core, pod: &Pod) -> Result<Route, ApiError> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let (Some(node), Some(address)) = (node, address.filter(|address| !address.is_empty())) else {
        return Err(ApiError::service_unavailable(format!("pod {name} has no address yet")));
    };
    let address = proxyable(&address)?.to_string();
    let node = core.find(Node::ROW, node).await?;
    let node = node.ok_or_else(|| {
        ApiError::service_unavailable(format!("the node of pod {name} does not exist"))
    })?;
    let node = Node::decode(&node.json).map_err(ApiError::internal)?;
    Ok(Route::Pod {
        kubelet: Box::new(core.kubelets.client(&node)?),
        open: PortForwardOpen {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: name,
            uid: api::pod::uid_on_node(pod).unwrap_or_default().to_owned(),
            address,
        },
    })
}

async fn service(call: Call<'_>, address: &Address<'_>) -> Result<Backend, ApiError> {
    let service: Service = existing(call, address.name).await?;
    let port_name = service_port(&service, address)?;
    of_service(call.core, &service, &port_name, address.https).await.map(Backend::Server)
}

/// Any ready endpoint of a Service's port.
///
/// # Errors
/// 503 when there is none.
async fn of_service(
    core: &Core,
    service: &Service,
    port_name: &str,
    https: bool,
) -> Result<Server, ApiError> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut ready = ready(core, service, port_name)?;
    let any = ready.swap_remove(rand::random_range(0..ready.len()));
    server(core, namespace, &any, https).await
}

/// The ready endpoints of a Service's port.
///
/// # Errors
/// 503 when there are none.
fn ready(core: &Core, service: &Service, port_name: &str) -> Result<Vec<Endpoint>, ApiError> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let ready = endpoints::ready(service, &read_slices(&core.cache, namespace, name), port_name);
    if ready.is_empty() {
        let why = format!("no endpoints available for service {name:?}");
        return Err(ApiError::service_unavailable(why));
    }
    Ok(ready)
}

/// How an endpoint is reached.
async fn server(
    core: &Core,
    namespace: &str,
    endpoint: &Endpoint,
    https: bool,
) -> Result<Server, ApiError> {
    let pod: Option<Pod> = match &endpoint.pod {
        Some(name) => object(core, namespace, name).await?,
        None => None,
    };
    let route = match &pod {
        Some(pod) => route_to(core, pod).await?,
        None => Route::direct(&endpoint.address)?,
    };
    Ok(Server { route, port: endpoint.port, https })
}

/// Where a Service can be reached, by the number of its port: at one place at least.
///
/// # Errors
/// 404 when there is no such Service, 503 when it has no such port, or no ready endpoint.
pub async fn destinations(
    core: &Core,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<Destination>, ApiError> {
    let service: Option<Service> = object(core, namespace, name).await?;
    let service = service.ok_or_else(|| ApiError::not_found(Service::ROW, name))?;
    let spec = service.spec.as_ref();
    if spec.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName")) {
        let host = spec.and_then(|spec| spec.external_name.clone()).unwrap_or_default();
        return Ok(vec![Destination::Host(host, port)]);
    }
    let number = port.to_string();
    let port_name = service_port(&service, &Address { https: false, name, port: &number })?;
    let ready = ready(core, &service, &port_name)?;
    Ok(ready.into_iter().map(Destination::Endpoint).collect())
}

/// Connects to where a Service of a namespace is.
///
/// # Errors
/// 503 when it does not answer.
pub async fn dial(core: &Core, namespace: &str, to: &Destination) -> Result<Box<dyn Io>, ApiError> {
    match to {
        Destination::Host(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            Ok(Box::new(stream.map_err(|error| unreachable(&error))?))
        }
        Destination::Endpoint(endpoint) => {
            server(core, namespace, endpoint, false).await?.connect().await
        }
    }
}

/// The name of the Service's port, which may be empty.
fn service_port(service: &Service, address: &Address<'_>) -> Result<String, ApiError> {
    let ports: Vec<_> = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).collect();
    let found = match address.port {
        // The only port need not be named.
        "" if ports.len() == 1 => ports.first(),
        word => ports.iter().find(|port| {
            port.port.to_string() == word
                || port.name.as_deref().unwrap_or_default() == word
                || (port.name.is_none() && target_is(port.target_port.as_ref(), word))
        }),
    };
    found.map(|port| port.name.clone().unwrap_or_default()).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "no service port {:?} found for service {:?}",
            address.port, address.name
        ))
    })
}

fn target_is(target: Option<&IntOrString>, word: &str) -> bool {
    matches!(target, Some(IntOrString::String(name)) if name == word)
}

async fn node(call: Call<'_>, address: &Address<'_>) -> Result<Backend, ApiError> {
    let node: Node = existing(call, address.name).await?;
    let (ip, own_port) = kubelet::address(&node).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "no preferred addresses found for node {:?}",
            address.name
        ))
    })?;
    let port = match (address.port, address.port_number()) {
        ("", _) => own_port,
        (_, Some(number)) => number,
        (other, None) => {
            return Err(ApiError::bad_request(format!("{other:?} is no port number")));
        }
    };
    if port == own_port {
        return Ok(Backend::Kubelet(call.core.kubelets.channel(&node)?));
    }
    Ok(Backend::Server(Server { route: Route::direct(&ip)?, port, https: address.https }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: serde_json::Value) -> Service {
        Service::decode(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn ports_of_services() {
        let two = service(serde_json::json!({"spec": {"ports": [
            {"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]}}));
        let one =
            service(serde_json::json!({"spec": {"ports": [{"port": 80, "targetPort": "web"}]}}));
        let table = [
            (&two, "a:http", Some("http")),
            (&two, "a:9090", Some("metrics")),
            (&two, "a", None),
            (&two, "a:91", None),
            (&one, "a", Some("")),
            (&one, "a:80", Some("")),
            (&one, "a:web", Some("")),
            (&one, "a:other", None),
        ];
        for (service, text, expected) in table {
            let found = service_port(service, &Address::parse(text).unwrap());
            assert_eq!(found.ok().as_deref(), expected, "{text}");
        }
    }
}
