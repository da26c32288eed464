//! Services, Endpoints, EndpointSlices and Ingresses.

pub mod missing;

use rpc::api_v1::{ListRequest, Representation};
use serde_json::Value;

use crate::describe::text::{Description, fields, items, joined, or, word};
use crate::describe::{DescribeContext, heading, labels};
use crate::request::selection::list_values;

pub async fn describe(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let service = context.object;
    let spec = &service["spec"];
    let slices = slices(context, &word(&service["metadata"]["name"])).await?;
    let endpoints = ready(&slices);
    heading(service, out);
    labels(service, out);
    let selector: Vec<String> =
        fields(&spec["selector"]).map(|(key, value)| pair(key, value)).collect();
    let selector = if selector.is_empty() { "<none>".to_owned() } else { selector.join(",") };
    out.line("Selector", selector);
    out.line_or("Type", &spec["type"], "ClusterIP");
    out.line_if("IP Family Policy", &spec["ipFamilyPolicy"]);
    out.line("IP Families", joined(&spec["ipFamilies"], ",", "<none>"));
    out.line("IP", word(&spec["clusterIP"]));
    out.line("IPs", joined(&spec["clusterIPs"], ",", "<none>"));
    if items(&spec["externalIPs"]).next().is_some() {
        out.line("External IPs", joined(&spec["externalIPs"], ",", ""));
    }
    out.line_if("Desired LoadBalancer IP", &spec["loadBalancerIP"]);
    out.line_if("External Name", &spec["externalName"]);
    let ingress: Vec<String> = items(&service["status"]["loadBalancer"]["ingress"])
        .map(|ingress| {
            let mode = word(&ingress["ipMode"]);
            let address = or(&ingress["ip"], &word(&ingress["hostname"]));
            if mode.is_empty() { address } else { format!("{address} ({mode})") }
        })
        .collect();
    if !ingress.is_empty() {
        out.line("LoadBalancer Ingress", ingress.join(", "));
    }
    for port in items(&spec["ports"]) {
        let (name, protocol) = (or(&port["name"], "<unset>"), or(&port["protocol"], "TCP"));
        let pair = |key: &str, number: &Value, out: &mut Description| {
            out.cells(&[&format!("{key}:"), &name, &format!("{}/{protocol}", word(number))]);
        };
        pair("Port", &port["port"], out);
        out.line("TargetPort", format!("{}/{protocol}", word(&port["targetPort"])));
        if port["nodePort"].as_i64().unwrap_or(0) > 0 {
            pair("NodePort", &port["nodePort"], out);
        }
        let port_name = word(&port["name"]);
        let addresses: Vec<&str> = endpoints
            .iter()
            .filter(|(own, _)| *own == port_name)
            .map(|(_, address)| address.as_str())
            .collect();
        out.line("Endpoints", shortened(&addresses));
    }
    out.line_or("Session Affinity", &spec["sessionAffinity"], "None");
    out.line_if("External Traffic Policy", &spec["externalTrafficPolicy"]);
    out.line_if("Internal Traffic Policy", &spec["internalTrafficPolicy"]);
    if spec["healthCheckNodePort"].as_i64().unwrap_or(0) > 0 {
        out.line("HealthCheck NodePort", word(&spec["healthCheckNodePort"]));
    }
    if items(&spec["loadBalancerSourceRanges"]).next().is_some() {
        let ranges = joined(&spec["loadBalancerSourceRanges"], ",", "");
        out.line("LoadBalancer Source Ranges", ranges);
    }
    let missing = missing_endpoints(context, &slices).await?;
    if !missing.is_empty() {
        out.section("Missing Endpoints", |out| out.table(&missing::table(&missing)));
    }
    Ok(())
}

/// Why selected pods are not among the endpoints, as of now.
async fn missing_endpoints(
    context: &DescribeContext<'_>,
    slices: &[Value],
) -> anyhow::Result<Vec<missing::Missing>> {
    let service = context.object;
    let selector: Vec<String> =
        fields(&service["spec"]["selector"]).map(|(key, value)| pair(key, value)).collect();
    let list = async |label_selector: String, representation: Representation| {
        let pods = context.resources.find("pods")?;
        let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default();
        let request = ListRequest {
            target: Some(pods.target(namespace, "", "")),
            label_selector,
            representation: representation.into(),
            ..Default::default()
        };
        list_values(context.client, request).await
    };
    let (mut pods, mut others) = (Vec::new(), Vec::new());
    if missing::has_endpoints(service) && !selector.is_empty() {
        pods = list(selector.join(","), Representation::Full).await?;
        if pods.is_empty() {
            others = list(String::new(), Representation::PartialMetadata).await?;
        }
    }
    Ok(missing::missing(&missing::Observed { service, pods: &pods, others: &others, slices }))
}

fn pair(key: &str, value: &Value) -> String {
    format!("{key}={}", word(value))
}

/// At most three addresses, and how many more there are.
fn shortened(addresses: &[&str]) -> String {
    match addresses {
        [] => String::new(),
        [one, two, three, rest @ ..] if !rest.is_empty() => {
            format!("{one},{two},{three} + {} more...", rest.len())
        }
        few => few.join(","),
    }
}

/// The EndpointSlices of a Service.
async fn slices(context: &DescribeContext<'_>, service: &str) -> anyhow::Result<Vec<Value>> {
    let slices = context.resources.find("endpointslices.discovery.k8s.io")?;
    let namespace = context.object["metadata"]["namespace"].as_str().unwrap_or_default();
    let request = ListRequest {
        target: Some(slices.target(namespace, "", "")),
        label_selector: format!("kubernetes.io/service-name={service}"),
        ..Default::default()
    };
    list_values(context.client, request).await
}

/// Port name and address of every ready endpoint.
fn ready(slices: &[Value]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for slice in slices {
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
        for endpoint in items(&slice["endpoints"]).filter(ready) {
            for address in items(&endpoint["addresses"]) {
                for port in items(&slice["ports"]) {
                    let text = format!("{}:{}", word(address), word(&port["port"]));
                    found.push((word(&port["name"]), text));
                }
            }
        }
    }
    found
}

pub fn endpoints_object(object: &Value, out: &mut Description) {
    heading(object, out);
    labels(object, out);
    out.raw("Subsets:");
    for subset in items(&object["subsets"]) {
        out.nested(|out| {
            for (title, list) in
                [("Addresses", "addresses"), ("NotReadyAddresses", "notReadyAddresses")]
            {
                let addresses: Vec<String> =
                    items(&subset[list]).map(|one| word(&one["ip"])).collect();
                let none = addresses.is_empty();
                out.line(title, if none { "<none>".to_owned() } else { addresses.join(",") });
            }
            ports(&subset["ports"], out);
        });
        out.raw("");
    }
}

fn ports(ports: &Value, out: &mut Description) {
    if items(ports).next().is_none() {
        return out.raw("Ports: <unset>");
    }
    out.section("Ports", |out| {
        out.cells(&["Name", "Port", "Protocol"]);
        out.cells(&["----", "----", "--------"]);
        for port in items(ports) {
            let (name, protocol) = (or(&port["name"], "<unset>"), word(&port["protocol"]));
            out.cells(&[&name, &or(&port["port"], "<unset>"), &protocol]);
        }
    });
}

pub fn slice(object: &Value, out: &mut Description) {
    heading(object, out);
    labels(object, out);
    out.line("AddressType", word(&object["addressType"]));
    ports(&object["ports"], out);
    if items(&object["endpoints"]).next().is_none() {
        return out.raw("Endpoints: <none>");
    }
    out.raw("Endpoints:");
    for endpoint in items(&object["endpoints"]) {
        out.nested(|out| {
            out.line("- Addresses", joined(&endpoint["addresses"], ", ", ""));
            out.nested(|out| {
                out.raw("Conditions:");
                out.nested(|out| out.line_or("Ready", &endpoint["conditions"]["ready"], "<unset>"));
                out.line_or("Hostname", &endpoint["hostname"], "<unset>");
                let target = &endpoint["targetRef"];
                if target.is_object() {
                    out.line(
                        "TargetRef",
                        format!("{}/{}", word(&target["kind"]), word(&target["name"])),
                    );
                }
                out.line_or("NodeName", &endpoint["nodeName"], "<unset>");
                out.line_or("Zone", &endpoint["zone"], "<unset>");
            });
        });
    }
}

pub async fn ingress(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let object = context.object;
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    out.line("Name", word(&metadata["name"]));
    out.map("Labels", &metadata["labels"], "=");
    out.line("Namespace", word(&metadata["namespace"]));
    let addresses: Vec<String> = items(&object["status"]["loadBalancer"]["ingress"])
        .map(|one| or(&one["ip"], &word(&one["hostname"])))
        .collect();
    out.line("Address", addresses.join(","));
    out.line_or("Ingress Class", &spec["ingressClassName"], "<none>");
    let default = match &spec["defaultBackend"] {
        Value::Null => "<default>".to_owned(),
        backend => self::backend(context, backend).await?,
    };
    out.line("Default backend", default);
    if items(&spec["tls"]).next().is_some() {
        out.section("TLS", |out| {
            for tls in items(&spec["tls"]) {
                let hosts = joined(&tls["hosts"], ",", "");
                match word(&tls["secretName"]) {
                    secret if secret.is_empty() => out.raw(&format!("SNI routes {hosts}")),
                    secret => out.raw(&format!("{secret} terminates {hosts}")),
                }
            }
        });
    }
    let mut rows: Vec<[String; 3]> = Vec::new();
    rows.push(["Host", "Path", "Backends"].map(str::to_owned));
    rows.push(["----", "----", "--------"].map(str::to_owned));
    for rule in items(&spec["rules"]) {
        rows.push([or(&rule["host"], "*"), String::new(), String::new()]);
        for path in items(&rule["http"]["paths"]) {
            let backend = backend(context, &path["backend"]).await?;
            rows.push([String::new(), word(&path["path"]), backend]);
        }
    }
    out.section("Rules", |out| {
        for [host, path, backend] in &rows {
            match (host.as_str(), backend.as_str()) {
                ("", backend) => out.cells(&["", &format!("{path} "), backend]),
                (host, "") => out.cells(&[host, ""]),
                (host, backend) => out.cells(&[host, path, backend]),
            }
        }
        if rows.len() == 2 {
            out.cells(&["*", "*", "<default>"]);
        }
    });
    out.annotations(&metadata["annotations"]);
    Ok(())
}

async fn backend(context: &DescribeContext<'_>, backend: &Value) -> anyhow::Result<String> {
    let service = &backend["service"];
    if !service.is_object() {
        let resource = &backend["resource"];
        return Ok(format!(
            "APIGroup: {}, Kind: {}, Name: {}",
            or(&resource["apiGroup"], "v1"),
            word(&resource["kind"]),
            word(&resource["name"])
        ));
    }
    let name = word(&service["name"]);
    let port = or(&service["port"]["name"], &word(&service["port"]["number"]));
    let services = context.resources.find("services")?;
    let namespace = context.object["metadata"]["namespace"].as_str().unwrap_or_default();
    let found = match context.client.get_object(services.target(namespace, &name, "")).await {
        Ok(found) => serde_json::from_slice::<Value>(&found.json)?,
        Err(error) if error.is_not_found() => {
            return Ok(format!("{name}:{port} (<error: services {name:?} not found>)"));
        }
        Err(error) => return Err(error.into()),
    };
    let port_name = items(&found["spec"]["ports"])
        .find(|one| word(&one["name"]) == port || word(&one["port"]) == port)
        .map(|one| word(&one["name"]))
        .unwrap_or_default();
    let endpoints = ready(&slices(context, &name).await?);
    let addresses: Vec<&str> = endpoints
        .iter()
        .filter(|(own, _)| *own == port_name)
        .map(|(_, address)| address.as_str())
        .collect();
    Ok(format!("{name}:{port} ({})", shortened(&addresses)))
}
