//! ConfigMaps, Secrets and Namespaces.

use rpc::api_v1::ListRequest;
use serde_json::Value;

use super::text::{Text, items, or, word};
use super::{Scene, heading, labels};

pub fn config_map(object: &Value, out: &mut Text) {
    heading(object, out);
    labels(object, out);
    out.raw("");
    out.raw("Data\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        out.raw(&format!("{key}:\n----\n{}\n", word(value)));
    }
    out.raw("BinaryData\n====");
    sizes(&object["binaryData"], out);
    out.raw("");
}

pub fn secret(object: &Value, out: &mut Text) {
    heading(object, out);
    labels(object, out);
    out.raw("");
    out.line("Type", or(&object["type"], "Opaque"));
    out.raw("");
    out.raw("Data\n====");
    sizes(&object["data"], out);
    out.raw("");
}

/// Keys with the size of what they hold: base64 stands for three bytes in four characters.
fn sizes(data: &Value, out: &mut Text) {
    for (key, value) in data.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let bytes = text.len() / 4 * 3
            - text
                .bytes()
                .rev()
                .take_while(|byte| *byte == b'=')
                .count()
                .min(2);
        out.line(key, format!("{bytes} bytes"));
    }
}

pub async fn namespace(scene: &Scene<'_>, out: &mut Text) -> anyhow::Result<()> {
    let namespace = scene.object;
    heading(namespace, out);
    labels(namespace, out);
    out.line("Status", word(&namespace["status"]["phase"]));
    let name = word(&namespace["metadata"]["name"]);
    for (word_for, title) in [
        ("resourcequotas", "Resource Quotas"),
        ("limitranges", "Resource Limits"),
    ] {
        let resource = scene.resources.find(word_for)?;
        let request = ListRequest {
            target: Some(resource.target(&name, "", "")),
            ..Default::default()
        };
        let objects = scene.client.list_objects(request).await?.0;
        if objects.is_empty() {
            out.raw("");
            out.raw(&format!("No {} resource.", resource.kind));
            continue;
        }
        out.raw("");
        out.section(title, |out| {
            for object in &objects {
                let object: Value = serde_json::from_slice(&object.json).unwrap_or_default();
                out.line("Name", word(&object["metadata"]["name"]));
                for (resource, hard) in object["status"]["hard"].as_object().into_iter().flatten() {
                    let used = or(&object["status"]["used"][resource], "0");
                    out.line(resource, format!("{used} of {}", word(hard)));
                }
                for limit in items(&object["spec"]["limits"]) {
                    out.line(&word(&limit["type"]), limit.to_string());
                }
            }
        });
    }
    Ok(())
}
