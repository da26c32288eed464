//! Services.

use rpc::api_v1::ListRequest;
use serde_json::Value;

use super::text::{Text, items, or, word};
use super::{Scene, heading, labels};

pub async fn describe(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let service = scene.object;
    let spec = &service["spec"];
    let endpoints = endpoints(scene).await?;
    heading(service, out);
    labels(service, out);
    out.map("Selector", &spec["selector"], "=");
    out.line("Type", or(&spec["type"], "ClusterIP"));
    out.line_if("IP Family Policy", &spec["ipFamilyPolicy"]);
    let joined = |value: &Value| items(value).map(word).collect::<Vec<_>>().join(",");
    out.line(
        "IP Families",
        or(&Value::from(joined(&spec["ipFamilies"])), "<none>"),
    );
    out.line("IP", word(&spec["clusterIP"]));
    out.line("IPs", joined(&spec["clusterIPs"]));
    for (title, field) in [
        ("External IPs", "externalIPs"),
        ("LoadBalancer Source Ranges", "loadBalancerSourceRanges"),
    ] {
        if items(&spec[field]).next().is_some() {
            out.line(title, joined(&spec[field]));
        }
    }
    out.line_if("External Name", &spec["externalName"]);
    let ingress: Vec<String> = items(&service["status"]["loadBalancer"]["ingress"])
        .map(|ingress| or(&ingress["ip"], &word(&ingress["hostname"])))
        .collect();
    if !ingress.is_empty() {
        out.line("LoadBalancer Ingress", ingress.join(", "));
    }
    for port in items(&spec["ports"]) {
        let (name, protocol) = (or(&port["name"], "<unset>"), or(&port["protocol"], "TCP"));
        out.line(
            "Port",
            format!("{name}  {}/{protocol}", word(&port["port"])),
        );
        out.line(
            "TargetPort",
            format!("{}/{protocol}", word(&port["targetPort"])),
        );
        if port["nodePort"].as_i64().unwrap_or(0) > 0 {
            out.line(
                "NodePort",
                format!("{name}  {}/{protocol}", word(&port["nodePort"])),
            );
        }
        let addresses: Vec<String> = endpoints
            .iter()
            .filter(|(own, _)| *own == word(&port["name"]))
            .map(|(_, address)| address.clone())
            .collect();
        out.line(
            "Endpoints",
            if addresses.is_empty() {
                "<none>".to_owned()
            } else {
                addresses.join(",")
            },
        );
    }
    out.line("Session Affinity", or(&spec["sessionAffinity"], "None"));
    out.line_if("External Traffic Policy", &spec["externalTrafficPolicy"]);
    out.line_if("Internal Traffic Policy", &spec["internalTrafficPolicy"]);
    Ok(())
}

/// Port name and address of every ready endpoint.
async fn endpoints(scene: &Scene<'_>) -> anyhow::Result<Vec<(String, String)>> {
    let metadata = &scene.object["metadata"];
    let slices = scene.resources.find("endpointslices.discovery.k8s.io")?;
    let request = ListRequest {
        target: Some(slices.target(metadata["namespace"].as_str().unwrap_or_default(), "", "")),
        label_selector: format!("kubernetes.io/service-name={}", word(&metadata["name"])),
        ..Default::default()
    };
    let mut found = Vec::new();
    for slice in scene.client.list_objects(request).await?.0 {
        let slice: Value = serde_json::from_slice(&slice.json)?;
        for endpoint in
            items(&slice["endpoints"]).filter(|endpoint| endpoint["conditions"]["ready"] != false)
        {
            for (address, port) in items(&endpoint["addresses"])
                .flat_map(|address| items(&slice["ports"]).map(move |port| (address, port)))
            {
                found.push((
                    word(&port["name"]),
                    format!("{}:{}", word(address), word(&port["port"])),
                ));
            }
        }
    }
    found.sort();
    Ok(found)
}
