//! ConfigMaps, Secrets, Namespaces, quotas, limits and ServiceAccounts.

use rpc::api_v1::ListRequest;
use serde_json::Value;

use crate::describe::text::{Description, fields, items, or, word};
use crate::describe::{DescribeContext, heading, labels};
use crate::request::selection::list_values;

pub fn config_map(object: &Value, out: &mut Description) {
    heading(object, out);
    labels(object, out);
    out.raw("");
    out.raw("Data\n====");
    for (key, value) in fields(&object["data"]) {
        out.raw(&format!("{key}:\n----\n{}\n", word(value)));
    }
    out.raw("");
    out.raw("BinaryData\n====");
    sizes(&object["binaryData"], out);
    out.raw("");
}

pub fn secret(object: &Value, out: &mut Description) {
    heading(object, out);
    labels(object, out);
    out.raw("");
    out.line_or("Type", &object["type"], "Opaque");
    out.raw("");
    out.raw("Data\n====");
    sizes(&object["data"], out);
}

/// Keys with the sizes of their values: four characters of base64 are three bytes.
fn sizes(data: &Value, out: &mut Description) {
    for (key, value) in fields(data) {
        let text = value.as_str().unwrap_or_default();
        let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
        let bytes = text.len() / 4 * 3 - padding.min(2);
        out.line(key, format!("{bytes} bytes"));
    }
}

pub fn service_account(object: &Value, out: &mut Description) {
    heading(object, out);
    labels(object, out);
    for (title, list) in
        [("Image pull secrets", "imagePullSecrets"), ("Mountable secrets", "secrets")]
    {
        let names: Vec<String> = items(&object[list]).map(|one| word(&one["name"])).collect();
        out.list(title, &names);
    }
    out.line("Tokens", "<none>");
}

pub fn quota(object: &Value, out: &mut Description) {
    heading(object, out);
    let scopes: Vec<String> = items(&object["spec"]["scopes"]).map(word).collect();
    if !scopes.is_empty() {
        out.line("Scopes", scopes.join(", "));
    }
    out.cells(&["Resource", "Used", "Hard"]);
    out.cells(&["--------", "----", "----"]);
    amounts(object, out);
}

fn amounts(quota: &Value, out: &mut Description) {
    for (resource, hard) in fields(&quota["status"]["hard"]) {
        let used = or(&quota["status"]["used"][resource], "0");
        out.cells(&[resource, &used, &word(hard)]);
    }
}

const LIMITS: [&str; 7] = [
    "Type",
    "Resource",
    "Min",
    "Max",
    "Default Request",
    "Default Limit",
    "Max Limit/Request Ratio",
];

pub fn limits(object: &Value, out: &mut Description) {
    heading(object, out);
    limit_rows(&object["spec"]["limits"], "", out);
}

fn limit_rows(limits: &Value, prefix: &str, out: &mut Description) {
    let mut row = |cells: [String; 7]| {
        let first = format!("{prefix}{}", cells[0]);
        let mut cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        cells[0] = &first;
        out.cells(&cells);
    };
    row(LIMITS.map(str::to_owned));
    row(LIMITS.map(|title| "-".repeat(title.len())));
    for limit in items(limits) {
        const FIELDS: [&str; 5] =
            ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
        let mut resources: Vec<&String> = FIELDS
            .iter()
            .flat_map(|field| fields(&limit[*field]))
            .map(|(resource, _)| resource)
            .collect();
        resources.sort();
        resources.dedup();
        for resource in resources {
            let amount = |field: &str| or(&limit[field][resource], "-");
            row([
                word(&limit["type"]),
                resource.clone(),
                amount("min"),
                amount("max"),
                amount("defaultRequest"),
                amount("default"),
                amount("maxLimitRequestRatio"),
            ]);
        }
    }
}

pub async fn namespace(context: &DescribeContext<'_>, out: &mut Description) -> anyhow::Result<()> {
    let namespace = context.object;
    heading(namespace, out);
    labels(namespace, out);
    out.line("Status", word(&namespace["status"]["phase"]));
    let name = word(&namespace["metadata"]["name"]);
    let quotas = list(context, &name, "resourcequotas").await?;
    out.raw("");
    if quotas.is_empty() {
        out.raw("No resource quota.");
    } else {
        out.raw("Resource Quotas");
        out.nested(|out| {
            for quota in &quotas {
                out.line("Name", word(&quota["metadata"]["name"]));
                out.cells(&["Resource", "Used", "Hard"]);
                out.cells(&["--------", "---", "---"]);
                amounts(quota, out);
            }
        });
    }
    let ranges = list(context, &name, "limitranges").await?;
    out.raw("");
    if ranges.is_empty() {
        out.raw("No LimitRange resource.");
    } else {
        out.raw("Resource Limits");
        for range in &ranges {
            limit_rows(&range["spec"]["limits"], " ", out);
        }
    }
    Ok(())
}

async fn list(
    context: &DescribeContext<'_>,
    namespace: &str,
    kind: &str,
) -> anyhow::Result<Vec<Value>> {
    let request = ListRequest {
        target: Some(context.resources.find(kind)?.target(namespace, "", "")),
        ..Default::default()
    };
    list_values(context.client, request).await
}
