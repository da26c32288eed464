//! The Services of the cluster, as environment variables for containers
//! (`{NAME}_SERVICE_HOST`, `{NAME}_SERVICE_PORT`, and docker's link variables).
//!
//! Only what the variables need is kept from each Service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::mirror::{self, Mirror};
use client::{Client, InformerOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use parking_lot::RwLock;
use tokio::sync::watch;

/// How long the start of a container waits for the services to be synced.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);
/// Pods of all namespaces get the variables of this service (namespace and name).
const MASTER: (&str, &str) = ("default", "kubernetes");

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: Option<String>,
    port: i32,
    protocol: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    cluster_ip: String,
    ports: Vec<Port>,
}

type Key = (String, String);
type Table = Mirror<Entry, Key>;

/// See the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    table: Arc<RwLock<Table>>,
    synced: watch::Receiver<bool>,
}

impl Services {
    /// Watches the services for as long as the process lives.
    pub fn start(client: Client) -> Self {
        let table = Arc::<RwLock<Table>>::default();
        let (sender, synced) = watch::channel(false);
        tokio::spawn(follow(client, Arc::clone(&table), sender));
        Self { table, synced }
    }

    /// The variables of a pod in `namespace`; with `links` those of all its services, else only
    /// those of the apiserver's. `None`: the services are not synced yet.
    pub async fn variables(
        &self,
        namespace: &str,
        links: bool,
    ) -> Option<BTreeMap<String, String>> {
        let mut synced = self.synced.clone();
        match tokio::time::timeout(SYNC_TIMEOUT, synced.wait_for(|synced| *synced)).await {
            Ok(Ok(_)) => Some(variables(self.table.read().objects(), namespace, links)),
            _ => None,
        }
    }

    /// The same, of the services that are known so far: a static pod does not wait for the
    /// apiserver.
    pub fn known_variables(&self, namespace: &str, links: bool) -> BTreeMap<String, String> {
        variables(self.table.read().objects(), namespace, links)
    }
}

async fn follow(client: Client, table: Arc<RwLock<Table>>, synced: watch::Sender<bool>) {
    let reduce = |service: Service| (key(&service), entry(&service));
    let mut events = mirror::keyed(&client, InformerOptions::default(), reduce);
    while let Some(event) = events.next().await {
        let mut table = table.write();
        table.take(event);
        synced.send_replace(table.is_synced());
    }
}

fn key(service: &Service) -> Key {
    (
        service.metadata.namespace.clone().unwrap_or_default(),
        service.metadata.name.clone().unwrap_or_default(),
    )
}

/// `None`: a service without an address has no variables.
fn entry(service: &Service) -> Option<Entry> {
    let spec = service.spec.as_ref()?;
    let cluster_ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
    };
    let ports: Vec<Port> = spec.ports.iter().flatten().map(port).collect();
    (!ports.is_empty()).then_some(Entry { cluster_ip, ports })
}

fn variables(
    table: &BTreeMap<Key, Entry>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let master = (MASTER.0.to_owned(), MASTER.1.to_owned());
    if let Some(entry) = table.get(&master) {
        add(&mut found, MASTER.1, entry);
    }
    if links {
        let first = (namespace.to_owned(), String::new());
        for ((_, name), entry) in table.range(first..).take_while(|((of, _), _)| of == namespace) {
            add(&mut found, name, entry);
        }
    }
    found
}

fn add(found: &mut BTreeMap<String, String>, name: &str, entry: &Entry) {
    let name = upper(name);
    let ip = &entry.cluster_ip;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    found.insert(format!("{name}_SERVICE_HOST"), ip.clone());
    found.insert(format!("{name}_SERVICE_PORT"), entry.ports[0].port.to_string());
    for (index, port) in entry.ports.iter().enumerate() {
        if let Some(port_name) = &port.name {
            found
                .insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
        let protocol = port.protocol.to_lowercase();
        let url = format!("{protocol}://{host}:{}", port.port);
        if index == 0 {
            found.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, port.protocol.to_uppercase());
        found.insert(format!("{prefix}_PROTO"), protocol);
        found.insert(format!("{prefix}_PORT"), port.port.to_string());
        found.insert(format!("{prefix}_ADDR"), ip.clone());
        found.insert(prefix, url);
    }
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_own_namespace_and_the_apiserver() {
        let entry = |ip: &str, name: Option<&str>, port| Entry {
            cluster_ip: ip.into(),
            ports: vec![Port { name: name.map(str::to_owned), port, protocol: "TCP".into() }],
        };
        let table: BTreeMap<Key, Entry> = [
            (("default".into(), "kubernetes".into()), entry("10.96.0.1", Some("https"), 443)),
            (("shop".into(), "web-front".into()), entry("10.96.0.7", None, 80)),
            (("shopping".into(), "other".into()), entry("10.96.0.8", None, 80)),
        ]
        .into();
        let found = variables(&table, "shop", true);
        assert_eq!(found["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(found["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(found["WEB_FRONT_PORT"], "tcp://10.96.0.7:80");
        assert_eq!(found["WEB_FRONT_PORT_80_TCP_ADDR"], "10.96.0.7");
        assert!(!found.contains_key("OTHER_SERVICE_HOST"));
        assert!(!variables(&table, "shop", false).contains_key("WEB_FRONT_PORT"));
    }
}
