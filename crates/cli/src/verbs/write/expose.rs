//! `skiff expose`: a Service for a workload, a pod or another Service.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Map, Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::generate::{CreateFlags, create_generated, metadata};
use crate::request::selection::Selection;

#[derive(clap::Args)]
pub struct Expose {
    #[command(flatten)]
    selection: Selection,
    /// The Service's port; default: the ports of the containers
    #[arg(long, value_delimiter = ',')]
    port: Vec<u16>,
    /// The containers' port: number or name
    #[arg(long)]
    target_port: Option<String>,
    #[arg(long)]
    protocol: Option<String>,
    /// The Service's name; default: the object's
    #[arg(long)]
    name: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName
    #[arg(long = "type")]
    kind: Option<String>,
    /// KEY=VALUE,...: the Service's labels
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    #[arg(long)]
    cluster_ip: Option<String>,
    #[arg(long, value_delimiter = ',')]
    external_ip: Vec<String>,
    #[arg(long)]
    session_affinity: Option<String>,
    #[command(flatten)]
    create: CreateFlags,
}

impl Expose {
    pub async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let resources = Resources::discover(&client).await?;
        let mut report = self.create.write.report()?;
        for named in self.selection.objects(&client, &resources).await? {
            let json = client.get_object(named.target("")).await?.json;
            let object: Value = serde_json::from_slice(&json)?;
            let service = self.service(&named.resource.kind, &object)?;
            create_generated(
                (&self.create, &mut report),
                connection,
                &client,
                &resources,
                service,
                "exposed",
            )
            .await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn service(&self, kind: &str, object: &Value) -> anyhow::Result<Value> {
        let labels = &object["metadata"]["labels"];
        let (selector, pod_spec) = match kind {
            "Pod" => (labels.clone(), &object["spec"]),
            "Service" => (object["spec"]["selector"].clone(), &Value::Null),
            "ReplicationController" => {
                (object["spec"]["selector"].clone(), &object["spec"]["template"]["spec"])
            }
            "Deployment" | "ReplicaSet" => (
                object["spec"]["selector"]["matchLabels"].clone(),
                &object["spec"]["template"]["spec"],
            ),
            other => bail!("cannot expose a {other}"),
        };
        if selector.as_object().is_none_or(Map::is_empty) {
            bail!(
                "couldn't retrieve selectors via --selector flag or introspection: the {kind} has no labels and cannot be exposed"
            );
        }
        let ports = self.ports(object, pod_spec)?;
        let name = self.name.as_deref();
        let mut metadata =
            metadata(name.or(object["metadata"]["name"].as_str()).unwrap_or_default());
        if !self.labels.is_empty() {
            let pairs = self.labels.iter().filter_map(|pair| pair.split_once('='));
            metadata["labels"] = pairs
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect::<Map<String, Value>>()
                .into();
        } else if labels.is_object() {
            metadata["labels"] = labels.clone();
        }
        let mut spec = json!({"ports": ports, "selector": selector});
        for (field, value) in [
            ("type", &self.kind),
            ("clusterIP", &self.cluster_ip),
            ("sessionAffinity", &self.session_affinity),
        ] {
            if let Some(value) = value {
                spec[field] = value.as_str().into();
            }
        }
        if !self.external_ip.is_empty() {
            spec["externalIPs"] = json!(self.external_ip);
        }
        Ok(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec,
            "status": {"loadBalancer": {}},
        }))
    }

    /// The ports of the flag, else every port of the object.
    fn ports(&self, object: &Value, pod_spec: &Value) -> anyhow::Result<Vec<Value>> {
        let protocol = self.protocol.as_deref().unwrap_or("TCP");
        let target = |port: u16| match &self.target_port {
            Some(text) => {
                text.parse::<u16>().map_or_else(|_| Value::from(text.as_str()), Value::from)
            }
            None => port.into(),
        };
        let containers = pod_spec["containers"].as_array().into_iter().flatten();
        let of_pods = containers
            .flat_map(|container| container["ports"].as_array().into_iter().flatten())
            .map(|port| (&port["containerPort"], &port["protocol"]));
        let of_service = object["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| (&port["port"], &port["protocol"]));
        let found: Vec<(u16, String)> = of_pods
            .chain(of_service)
            .filter_map(|(port, own)| {
                let port = u16::try_from(port.as_u64()?).ok()?;
                Some((port, own.as_str().unwrap_or(protocol).to_owned()))
            })
            .collect();
        let found = if self.port.is_empty() {
            found
        } else {
            let own = self.port.iter();
            own.map(|port| (*port, protocol.to_owned())).collect()
        };
        if found.is_empty() {
            bail!("couldn't find port via --port flag or introspection");
        }
        let several = found.len() > 1;
        let port = |(index, (port, protocol)): (usize, (u16, String))| {
            let mut entry = json!({"port": port, "protocol": protocol, "targetPort": target(port)});
            if several {
                entry["name"] = format!("port-{}", index + 1).into();
            }
            entry
        };
        Ok(found.into_iter().enumerate().map(port).collect())
    }
}
