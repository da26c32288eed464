//! Describer of CertificateSigningRequests.

use api::certificates::{self, APPROVED, DENIED, FAILED};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::text::{Description, fields, items, moment, word};

pub fn signing_request(object: &Value, out: &mut Description) -> anyhow::Result<()> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    out.line("Name", word(&metadata["name"]));
    for (key, field) in [("Labels", "labels"), ("Annotations", "annotations")] {
        let pairs: Vec<_> =
            fields(&metadata[field]).map(|(key, it)| format!("{key}={}", word(it))).collect();
        out.line(key, if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
    }
    out.line("CreationTimestamp", moment(&metadata["creationTimestamp"]));
    out.line("Requesting User", word(&spec["username"]));
    out.line_if("Signer", &spec["signerName"]);
    if let Some(seconds) = spec["expirationSeconds"].as_i64() {
        out.line("Requested Duration", api::duration::human(seconds));
    }
    out.line("Status", status(object));
    let pem = BASE64.decode(word(&spec["request"]))?;
    let request = certificates::parse(&pem)?;
    out.raw("Subject:");
    out.cells(&["", "Common Name:", &request.common_name]);
    out.cells(&["", "Serial Number:", ""]);
    several("Organization", &request.organizations, out);
    let addresses: Vec<_> = request.ip_addresses.iter().map(ToString::to_string).collect();
    let names = [
        ("DNS Names", &request.dns_names),
        ("Email Addresses", &request.email_addresses),
        ("URIs", &request.uris),
        ("IP Addresses", &addresses),
    ];
    if names.iter().any(|(_, names)| !names.is_empty()) {
        out.raw("Subject Alternative Names:");
        names.into_iter().for_each(|(key, names)| several(key, names, out));
    }
    Ok(())
}

/// One value a line, the key only in the first.
fn several(key: &str, values: &[String], out: &mut Description) {
    for (index, value) in values.iter().enumerate() {
        let key = if index == 0 { format!("{key}:") } else { String::new() };
        out.cells(&["", &key, value]);
    }
}

/// `Approved,Issued`
fn status(object: &Value) -> String {
    let has = |type_: &str| {
        items(&object["status"]["conditions"]).any(|condition| condition["type"] == type_)
    };
    let decided = if has(DENIED) {
        "Denied"
    } else if has(APPROVED) {
        "Approved"
    } else {
        "Pending"
    };
    let failed = if has(FAILED) { ",Failed" } else { "" };
    let issued = object["status"]["certificate"].as_str().is_some_and(|it| !it.is_empty());
    format!("{decided}{failed}{}", if issued { ",Issued" } else { "" })
}
