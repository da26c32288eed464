//! Conversion between versions: none, or by a webhook.

use base64::Engine;
use serde_json::Value;

use super::{Options, flag, invalid, object, text};
use crate::custom::definition::REVIEW_VERSIONS;
use crate::names;
use crate::status::FieldError;

/// The errors found so far.
type Errors = Vec<FieldError>;
use crate::structural::{format, go};

const FORM: &str = "; desired format: https://host[/path]";

fn review_versions(definition: &Value) -> &[Value] {
    let list = definition.pointer("/spec/conversion/webhook/conversionReviewVersions");
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_recognized(version: &Value) -> bool {
    REVIEW_VERSIONS.contains(&text(Some(version)))
}

/// Whether a definition has a version that Kubernetes understands, or none at all.
pub fn had_recognized_version(definition: &Value) -> bool {
    let versions = review_versions(definition);
    versions.is_empty() || versions.iter().any(is_recognized)
}

/// Whether there is a bundle of authorities that cannot be read.
pub fn has_invalid_ca_bundle(definition: &Value) -> bool {
    let bundle = text(definition.pointer("/spec/conversion/webhook/clientConfig/caBundle"));
    !bundle.is_empty() && ca_bundle_problem(bundle).is_some()
}

pub fn validate(spec: &Value, options: &Options, errors: &mut Errors) {
    let Some(conversion) = object(spec, "conversion") else {
        return;
    };
    let strategy = text(conversion.get("strategy"));
    const STRATEGY: &str = "spec.conversion.strategy";
    if strategy != "None" && flag(spec.get("preserveUnknownFields")) {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid(STRATEGY, strategy, detail));
    }
    match strategy {
        "" => errors.push(FieldError::required(STRATEGY, "")),
        "None" | "Webhook" => {}
        other => errors.push(FieldError::not_supported(STRATEGY, other, &["None", "Webhook"])),
    }
    let webhook = conversion.get("webhook").unwrap_or(&Value::Null);
    let client = webhook.get("clientConfig").filter(|client| !client.is_null());
    const CLIENT: &str = "spec.conversion.webhookClientConfig";
    const REVIEWS: &str = "spec.conversion.conversionReviewVersions";
    let none = Vec::new();
    let reviews =
        webhook.get("conversionReviewVersions").and_then(Value::as_array).unwrap_or(&none);
    if strategy == "Webhook" {
        match client {
            None => errors
                .push(FieldError::required(CLIENT, "required when strategy is set to Webhook")),
            Some(client) => client_config(client, CLIENT, options, errors),
        }
        review_list(reviews, REVIEWS, options, errors);
        return;
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if client.is_some() {
        errors.push(FieldError::forbidden(CLIENT, detail));
    }
    if !reviews.is_empty() {
        errors.push(FieldError::forbidden(REVIEWS, detail));
    }
}

fn review_list(list: &[Value], path: &str, options: &Options, errors: &mut Errors) {
    if list.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    for (index, version) in list.iter().enumerate() {
        let field = format!("{path}[{index}]");
        if list[..index].contains(version) {
            errors.push(invalid(field, version, "duplicate version"));
            continue;
        }
        let problems = names::dns_1035_label(text(Some(version)));
        errors.extend(problems.into_iter().map(|why| invalid(field.clone(), version, why)));
    }
    if options.recognized_review_version && !list.iter().any(is_recognized) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(invalid(path, &Value::Array(list.to_vec()), detail));
    }
}

fn client_config(client: &Value, path: &str, options: &Options, errors: &mut Errors) {
    let url = client.get("url").and_then(Value::as_str);
    let service = client.get("service").filter(|service| !service.is_null());
    match (url, service) {
        (Some(url), None) => webhook_url(url, &format!("{path}.url"), errors),
        (None, Some(service)) => webhook_service(service, &format!("{path}.service"), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
    let bundle = text(client.get("caBundle"));
    if !bundle.is_empty()
        && !options.allow_invalid_ca_bundle
        && let Some(problem) = ca_bundle_problem(bundle)
    {
        errors.push(FieldError::invalid(format!("{path}.caBundle"), bundle, problem));
    }
}

/// Certificates have to be PEM; what is in them is for the TLS client to judge.
fn ca_bundle_problem(bundle: &str) -> Option<&'static str> {
    let problem = "unable to load root certificates: unable to parse bytes as PEM block";
    let engine = base64::engine::general_purpose::STANDARD;
    let pem = engine.decode(bundle).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let body = rest.split_once("-----END CERTIFICATE-----").map(|(body, _)| body);
    let body: Option<String> = body.map(|body| body.split_whitespace().collect());
    let valid = body.is_some_and(|body| !body.is_empty() && engine.decode(body).is_ok());
    (!valid).then_some(problem)
}

/// What is wrong with the URL of a webhook: `url.Parse`, and what webhooks may have of it.
pub fn webhook_url(url: &str, path: &str, errors: &mut Errors) {
    let (without_fragment, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (address, query) = without_fragment.split_once('?').unwrap_or((without_fragment, ""));
    let (scheme, rest) = format::scheme(address).unwrap_or(("", address));
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default());
    let invalid_authority = authority.is_some_and(|authority| !format::is_authority(authority));
    if invalid_authority || url.chars().any(|character| character.is_ascii_control()) {
        let why =
            if invalid_authority { "invalid host" } else { "invalid control character in URL" };
        let detail =
            format!("url must be a valid URL: parse {}: net/url: {why}{FORM}", go::quoted(url));
        return errors.push(FieldError::required(path, detail));
    }
    if scheme.to_lowercase() != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(path, scheme.to_lowercase(), detail));
    }
    let authority = authority.unwrap_or_default();
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.push(FieldError::invalid(path, "", format!("host must be specified{FORM}")));
    }
    for (part, detail) in [
        (user, "user information is not permitted in the URL"),
        (Some(fragment).filter(|part| !part.is_empty()), "fragments are not permitted in the URL"),
        (
            Some(query).filter(|part| !part.is_empty()),
            "query parameters are not permitted in the URL",
        ),
    ] {
        if let Some(part) = part {
            errors.push(FieldError::invalid(path, part, detail));
        }
    }
}

/// What is wrong with the Service of a webhook, in JSON.
pub fn webhook_service(service: &Value, path: &str, errors: &mut Errors) {
    for name in ["name", "namespace"] {
        if text(service.get(name)).is_empty() {
            errors.push(FieldError::required(format!("{path}.{name}"), ""));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or_default();
    if !(1..=65_535).contains(&port) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(format!("{path}.port"), port, detail));
    }
    let url = text(service.get("path"));
    let mut refuse =
        |detail: String| errors.push(FieldError::invalid(format!("{path}.path"), url, detail));
    match url {
        "" | "/" => return,
        "//" => return refuse("segment[0] may not be empty".to_owned()),
        _ => {}
    }
    let Some(steps) = url.strip_prefix('/') else {
        return refuse("must start with a '/'".to_owned());
    };
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            refuse(format!("segment[{index}] may not be empty"));
            continue;
        }
        for problem in names::dns_subdomain(step) {
            refuse(format!("segment[{index}]: {problem}"));
        }
    }
}
