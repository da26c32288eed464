//! Admission of streams and proxied requests: webhooks see, and may change, their options as an
//! object of a kind of its own.

use api::ApiError;
use serde_json::{Map, Value, json};

use crate::core::Call;
use crate::request::{Options, Target};

/// The form of an option.
#[derive(Clone, Copy)]
enum Form {
    Flag,
    Text,
    Texts,
    Numbers,
}

const STREAMS: &[(&str, Form)] = &[
    ("stdin", Form::Flag),
    ("stdout", Form::Flag),
    ("stderr", Form::Flag),
    ("tty", Form::Flag),
    ("container", Form::Text),
];
const EXEC: &[(&str, Form)] = &[
    ("stdin", Form::Flag),
    ("stdout", Form::Flag),
    ("stderr", Form::Flag),
    ("tty", Form::Flag),
    ("container", Form::Text),
    ("command", Form::Texts),
];

/// The kind of the target's options, with its fields.
fn kind_of(target: &Target) -> Option<(&'static str, &'static [(&'static str, Form)])> {
    Some(match (target.subresource.as_str(), &*target.row.kind) {
        ("exec", _) => ("PodExecOptions", EXEC),
        ("attach", _) => ("PodAttachOptions", STREAMS),
        ("portforward", _) => ("PodPortForwardOptions", &[("ports", Form::Numbers)]),
        ("proxy", "Pod") => ("PodProxyOptions", &[]),
        ("proxy", "Service") => ("ServiceProxyOptions", &[]),
        ("proxy", "Node") => ("NodeProxyOptions", &[]),
        _ => return None,
    })
}

/// Admits a connection; its target and options afterwards, if a webhook has changed them.
///
/// # Errors
/// Those of the plugins.
pub async fn admit(call: Call<'_>) -> Result<Option<(Target, Options)>, ApiError> {
    let Some((kind, fields)) = kind_of(call.target) else {
        return Ok(None);
    };
    let mut object = json!({"kind": kind, "apiVersion": "v1"});
    for (name, form) in fields {
        if let Some(value) = read(call.options, name, *form) {
            object[*name] = value;
        }
    }
    let path = call.target.subpath.trim_start_matches('/');
    if !path.is_empty() {
        object["path"] = path.into();
    }
    let changed = call.core.admission.connect(call, kind, object.clone()).await?;
    if changed == object {
        return Ok(None);
    }
    let (mut target, mut options) = (call.target.clone(), call.options.clone());
    let members = changed.as_object().cloned().unwrap_or_default();
    for (name, form) in fields {
        options.parameters.retain(|(known, _)| known != name);
        let texts = written(&members, name, *form)?;
        options.parameters.extend(texts.into_iter().map(|text| ((*name).to_owned(), text)));
    }
    if changed.get("path") != object.get("path") {
        let path = members.get("path").and_then(Value::as_str).unwrap_or_default();
        target.subpath = format!("/{}", path.trim_start_matches('/'));
    }
    Ok(Some((target, options)))
}

fn read(options: &Options, name: &str, form: Form) -> Option<Value> {
    match form {
        Form::Flag => options.flag(name).then_some(Value::Bool(true)),
        Form::Text => options.parameter(name).filter(|text| !text.is_empty()).map(Value::from),
        Form::Texts => {
            let texts: Vec<&str> = options.values(name).collect();
            (!texts.is_empty()).then(|| texts.into())
        }
        Form::Numbers => {
            let numbers = options.values(name).flat_map(|text| text.split(','));
            let numbers: Vec<u16> = numbers.filter_map(|text| text.trim().parse().ok()).collect();
            (!numbers.is_empty()).then(|| numbers.into())
        }
    }
}

/// The parameters of a field.
fn written(object: &Map<String, Value>, name: &str, form: Form) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::internal(format!("a webhook has left no valid {name}"));
    let Some(value) = object.get(name).filter(|value| !value.is_null()) else {
        return Ok(Vec::new());
    };
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match form {
        Form::Flag => Ok(vec![value.as_bool().ok_or_else(wrong)?.to_string()]),
        Form::Text => Ok(vec![text(value)?]),
        Form::Texts => value.as_array().ok_or_else(wrong)?.iter().map(text).collect(),
        Form::Numbers => {
            let all = value.as_array().ok_or_else(wrong)?.iter();
            all.map(|port| port.as_u64().map(|port| port.to_string()).ok_or_else(wrong)).collect()
        }
    }
}
