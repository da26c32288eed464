//! The Service `kubernetes` in `default`, and its endpoints: the apiservers.
//!
//! On etcd several apiservers may run: each maintains a lease with its address, and all write the
//! same endpoints from these leases. On the embedded store there is only this one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use api::object::Object;
use api::{ApiError, Kind};
use bytes::Bytes;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use store::{ListOptions, Revision};

use super::{create_missing, system_user};
use crate::core::{Call, Core};
use crate::error::store_error;
use crate::request::{Options, Target, Verb, object_key};
use crate::verbs::update::update_with;

/// Leases of apiservers, by address.
const LEASES: &str = "/registry/masterleases/";
/// How long a lease outlives its apiserver.
const LEASE_DURATION: Duration = Duration::from_secs(15);
pub const NAME: &str = "kubernetes";

/// The address of this apiserver.
#[derive(Clone, Copy, Debug)]
pub struct Advertised {
    pub address: IpAddr,
    pub port: u16,
}

/// Creates the Service and its endpoints where they are missing, and updates the endpoints. Where
/// there may be other apiservers, also renews the lease of this one.
///
/// # Errors
/// When the store fails.
pub async fn ensure(core: &Core, own: Advertised, alone: bool) -> Result<(), ApiError> {
    create_missing(core, Box::new(service(core, own.port))).await?;
    if alone {
        return write(core, &[own.address], own.port).await;
    }
    refresh(core, own).await
}

async fn refresh(core: &Core, own: Advertised) -> Result<(), ApiError> {
    let failed = |error: store::Error| store_error(&error);
    let key = Bytes::from(format!("{LEASES}{}", own.address));
    let lease = Some(core.store.grant_lease(LEASE_DURATION).await.map_err(failed)?);
    let present = core.store.get(key.clone()).await.map_err(failed)?.entry;
    let expected = present.map_or(Revision::NONE, |entry| entry.mod_revision);
    let value = Bytes::from(own.port.to_string());
    // A conflict: another apiserver with this address, or a lease that has just expired.
    core.store.update_with_lease(key, value, expected, lease).await.map(drop).map_err(failed)?;
    let prefix = Bytes::from_static(LEASES.as_bytes());
    let listing =
        core.store.list(ListOptions { prefix, ..ListOptions::default() }).await.map_err(failed)?;
    let mut addresses: Vec<IpAddr> = listing
        .entries
        .iter()
        .filter_map(|entry| {
            std::str::from_utf8(&entry.key).ok()?.strip_prefix(LEASES)?.parse().ok()
        })
        .collect();
    addresses.sort();
    write(core, &addresses, own.port).await
}

fn service(core: &Core, port: u16) -> Service {
    let address = core.allocator.first_address().to_string();
    let mut service = Service {
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some(address.clone()),
            cluster_ips: Some(vec![address]),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: 443,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(port.into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    service.metadata.name = Some(NAME.to_owned());
    service.metadata.namespace = Some("default".to_owned());
    service.metadata.labels = Some(BTreeMap::from([
        ("component".to_owned(), "apiserver".to_owned()),
        ("provider".to_owned(), NAME.to_owned()),
    ]));
    service
}

async fn write(core: &Core, addresses: &[IpAddr], port: u16) -> Result<(), ApiError> {
    let text: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let mut endpoints = Endpoints {
        subsets: Some(vec![EndpointSubset {
            addresses: Some(
                text.iter()
                    .map(|ip| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() })
                    .collect(),
            ),
            ports: Some(vec![EndpointPort {
                name: Some("https".to_owned()),
                port: port.into(),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
            ..EndpointSubset::default()
        }]),
        ..Endpoints::default()
    };
    endpoints.metadata.labels = Some(BTreeMap::from([(
        "endpointslice.kubernetes.io/skip-mirror".to_owned(),
        "true".to_owned(),
    )]));
    let six = addresses.first().is_some_and(IpAddr::is_ipv6);
    let mut slice = discovery::EndpointSlice {
        address_type: if six { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(
            text.iter()
                .map(|ip| discovery::Endpoint {
                    addresses: vec![ip.clone()],
                    conditions: Some(discovery::EndpointConditions {
                        ready: Some(true),
                        ..discovery::EndpointConditions::default()
                    }),
                    ..discovery::Endpoint::default()
                })
                .collect(),
        ),
        ports: Some(vec![discovery::EndpointPort {
            name: Some("https".to_owned()),
            port: Some(port.into()),
            protocol: Some("TCP".to_owned()),
            ..discovery::EndpointPort::default()
        }]),
        ..discovery::EndpointSlice::default()
    };
    slice.metadata.labels =
        Some(BTreeMap::from([("kubernetes.io/service-name".to_owned(), NAME.to_owned())]));
    for object in [&mut endpoints as &mut dyn Object, &mut slice] {
        object.metadata_mut().name = Some(NAME.to_owned());
        object.metadata_mut().namespace = Some("default".to_owned());
        put(core, object.clone_object()).await?;
    }
    Ok(())
}

/// Creates the object or updates the existing one to match.
async fn put(core: &Core, object: Box<dyn Object>) -> Result<(), ApiError> {
    create_missing(core, object.clone_object()).await?;
    let row = object.row();
    let target = Target {
        row,
        namespace: "default".to_owned(),
        name: NAME.to_owned(),
        subresource: String::new(),
        subpath: String::new(),
    };
    debug_assert_eq!(target.key(), object_key(Service::ROW, "default", NAME));
    let (user, options) = (system_user(), Options::default());
    let call = Call { core, user: &user, verb: Verb::Update, target: &target, options: &options };
    update_with(call, |_, _| Ok(object.clone_object())).await?;
    Ok(())
}
