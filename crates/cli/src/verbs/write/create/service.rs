//! Services and Ingresses.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::request::generate::metadata;

#[derive(clap::Subcommand)]
pub enum Service {
    /// Reachable inside the cluster
    Clusterip {
        name: String,
        #[command(flatten)]
        ports: Ports,
        /// A specific address, or None
        #[arg(long)]
        clusterip: Option<String>,
    },
    /// Reachable on a port of every node
    Nodeport {
        name: String,
        #[command(flatten)]
        ports: Ports,
        #[arg(long)]
        node_port: Option<u16>,
    },
    /// Reachable through a load balancer
    Loadbalancer {
        name: String,
        #[command(flatten)]
        ports: Ports,
    },
    /// An alias for an external DNS name
    Externalname {
        name: String,
        #[command(flatten)]
        ports: Ports,
        #[arg(long)]
        external_name: String,
    },
}

#[derive(clap::Args)]
pub struct Ports {
    /// PORT or PORT:TARGETPORT
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<String>,
}

impl Ports {
    fn read(&self) -> anyhow::Result<Vec<Value>> {
        self.tcp.iter().map(|text| port(text)).collect()
    }
}

fn port(text: &str) -> anyhow::Result<Value> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let number: u16 = port.parse().with_context(|| format!("invalid port {port:?}"))?;
    let target = target.parse::<u16>().map_or_else(|_| Value::from(target), Value::from);
    let name = text.replace(':', "-");
    Ok(json!({"name": name, "port": number, "protocol": "TCP", "targetPort": target}))
}

impl Service {
    pub fn object(&self) -> anyhow::Result<Value> {
        let (Self::Clusterip { name, ports, .. }
        | Self::Nodeport { name, ports, .. }
        | Self::Loadbalancer { name, ports }
        | Self::Externalname { name, ports, .. }) = self;
        let mut ports = ports.read()?;
        let labels = json!({"app": name});
        let mut spec = json!({"selector": labels});
        match self {
            Self::Clusterip { clusterip, .. } => {
                spec["type"] = "ClusterIP".into();
                if let Some(address) = clusterip {
                    spec["clusterIP"] = address.as_str().into();
                }
            }
            Self::Nodeport { node_port, .. } => {
                spec["type"] = "NodePort".into();
                if let (Some(node_port), Some(first)) = (node_port, ports.first_mut()) {
                    first["nodePort"] = (*node_port).into();
                }
            }
            Self::Loadbalancer { .. } => spec["type"] = "LoadBalancer".into(),
            Self::Externalname { external_name, .. } => {
                spec["type"] = "ExternalName".into();
                spec["externalName"] = external_name.as_str().into();
            }
        }
        let may_have_none =
            spec["clusterIP"] == "None" || matches!(self, Self::Externalname { .. });
        if ports.is_empty() && !may_have_none {
            bail!("at least one tcp port specifier must be provided");
        }
        if !ports.is_empty() {
            spec["ports"] = ports.into();
        }
        let mut metadata = metadata(name);
        metadata["labels"] = labels;
        Ok(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec,
            "status": {"loadBalancer": {}},
        }))
    }
}

#[derive(clap::Args)]
pub struct Ingress {
    name: String,
    /// HOST/PATH=SERVICE:PORT[,tls[=SECRET]]; a path that ends in * is a prefix
    #[arg(long)]
    rule: Vec<String>,
    #[arg(long, value_name = "SERVICE:PORT")]
    default_backend: Option<String>,
    /// The IngressClass
    #[arg(long)]
    class: Option<String>,
    /// KEY=VALUE
    #[arg(long)]
    annotation: Vec<String>,
}

impl Ingress {
    pub fn object(&self) -> anyhow::Result<Value> {
        if self.rule.is_empty() && self.default_backend.is_none() {
            bail!(
                "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)"
            );
        }
        let mut spec = json!({});
        if let Some(class) = &self.class {
            spec["ingressClassName"] = class.as_str().into();
        }
        if let Some(text) = &self.default_backend {
            spec["defaultBackend"] = backend(text)
                .with_context(|| format!("default backend {text} is not SERVICE:PORT"))?;
        }
        let (mut rules, mut tls): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for text in &self.rule {
            rule(text, &mut rules, &mut tls)?;
        }
        for (field, list) in [("rules", rules), ("tls", tls)] {
            if !list.is_empty() {
                spec[field] = list.into();
            }
        }
        let mut metadata = metadata(&self.name);
        let annotations: Map<String, Value> = self
            .annotation
            .iter()
            .filter_map(|text| text.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        if !annotations.is_empty() {
            metadata["annotations"] = annotations.into();
        }
        Ok(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata,
            "spec": spec, "status": {"loadBalancer": {}},
        }))
    }
}

fn rule(text: &str, rules: &mut Vec<Value>, tls: &mut Vec<Value>) -> anyhow::Result<()> {
    let wrong = || {
        format!(
            "rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
        )
    };
    let mut parts = text.split(',');
    let (address, service) =
        parts.next().and_then(|part| part.split_once('=')).with_context(wrong)?;
    let (host, path) = address.split_once('/').with_context(wrong)?;
    let (path, kind) = match path.strip_suffix('*') {
        Some(prefix) => (prefix, "Prefix"),
        None => (path, "Exact"),
    };
    let backend = backend(service).with_context(wrong)?;
    let path = json!({"path": format!("/{path}"), "pathType": kind, "backend": backend});
    match rules.iter_mut().find(|rule| rule["host"].as_str().unwrap_or_default() == host) {
        Some(rule) => rule["http"]["paths"].as_array_mut().context("paths are a list")?.push(path),
        None => {
            let mut rule = json!({"http": {"paths": [path]}});
            if !host.is_empty() {
                rule["host"] = host.into();
            }
            rules.push(rule);
        }
    }
    if let Some(part) = parts.next() {
        let mut entry = json!({});
        if !host.is_empty() {
            entry["hosts"] = json!([host]);
        }
        match part.split_once('=') {
            Some(("tls", secret)) => entry["secretName"] = secret.into(),
            None if part == "tls" => {}
            _ => bail!(wrong()),
        }
        tls.push(entry);
    }
    Ok(())
}

/// `web:80`, `web:http`
fn backend(text: &str) -> Option<Value> {
    let (name, port) = text.split_once(':')?;
    let port = match port.parse::<u16>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    Some(json!({"service": {"name": name, "port": port}}))
}
