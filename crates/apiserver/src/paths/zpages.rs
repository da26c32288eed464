//! `/statusz` and `/flagz`: what this process is, for people who look for a fault
//! (<https://kubernetes.io/docs/reference/instrumentation/zpages/>).

use api::ApiError;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{EMULATED, VERSION};
use crate::response::Response;

/// The component's name, as in Kubernetes.
const COMPONENT: &str = "kube-apiserver";
const GROUP: &str = "config.k8s.io";
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting \
                       compatibility guarantees and is for debugging purposes only.";

/// In which form a page is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    /// As an object of this version.
    Object(&'static str),
}

/// Of what the client accepts, the first form that there is; text if it does not say.
///
/// # Errors
/// 406 when there is none. JSON has to name group, version and kind.
fn form(accept: &str, kind: &str) -> Result<Form, ApiError> {
    let found = accept.split(',').find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        match parts.next()? {
            "" | "*/*" | "text/*" | "text/plain" => Some(Form::Text),
            "application/json" => {
                let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
                let is = |name, value| parameters.contains(&(name, value));
                let version = VERSIONS.into_iter().find(|&version| is("v", version))?;
                (is("g", GROUP) && is("as", kind)).then_some(Form::Object(version))
            }
            _ => None,
        }
    });
    found.ok_or_else(|| {
        ApiError::not_acceptable("only the following media types are accepted: text/plain")
    })
}

fn page(form: &Form, kind: &str, text: String, fields: Value) -> Response {
    match form {
        Form::Text => Response::Raw {
            code: 200,
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: Bytes::from(text),
        },
        Form::Object(version) => {
            let mut object = json!({"kind": kind, "apiVersion": format!("{GROUP}/{version}"),
                "metadata": {"name": COMPONENT}});
            for (name, value) in fields.as_object().into_iter().flatten() {
                object[name] = value.clone();
            }
            Response::Json {
                code: 200,
                json: Bytes::from(object.to_string()),
                warnings: Vec::new(),
            }
        }
    }
}

/// The answer to `/statusz`.
///
/// # Errors
/// 406 for another form.
pub fn status(
    accept: &str,
    started: Timestamp,
    now: Timestamp,
    paths: &[&str],
) -> Result<Response, ApiError> {
    let form = form(accept, "Statusz")?;
    let up = now.duration_since(started).as_secs().max(0);
    let text = format!(
        "{COMPONENT} statusz\n{WARNING}\n\nStarted: {}\nUp: {} hr {:02} min {:02} sec\n\
         Go version: none (Rust)\nBinary version: {}\nEmulation version: {EMULATED}\nPaths: {}\n",
        started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        up / 3600,
        up / 60 % 60,
        up % 60,
        &VERSION[1..],
        paths.join(" "),
    );
    let fields = json!({
        "startTime": started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "uptimeSeconds": up,
        "goVersion": "none (Rust)", "binaryVersion": &VERSION[1..], "emulationVersion": EMULATED,
        "paths": paths,
    });
    Ok(page(&form, "Statusz", text, fields))
}

/// The answer to `/flagz`. No flag of the apiserver is a secret: they name files.
///
/// # Errors
/// 406 for another form.
pub fn flags(accept: &str, flags: &[(String, String)]) -> Result<Response, ApiError> {
    let form = form(accept, "Flagz")?;
    let lines: String = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let text = format!("{COMPONENT} flagz\n{WARNING}\n\n{lines}");
    let all: Map<String, Value> =
        flags.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    Ok(page(&form, "Flagz", text, json!({"flags": all})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_the_client_accepts() {
        let text = ["", "*/*", "text/plain", "application/yaml, text/plain;q=0.5", "text/*"];
        for accept in text {
            assert_eq!(form(accept, "Statusz").unwrap(), Form::Text, "{accept}");
        }
        for version in VERSIONS {
            let accept = format!("application/json; v={version};g=config.k8s.io;as=Statusz");
            assert_eq!(form(&accept, "Statusz").unwrap(), Form::Object(version));
            assert_eq!(form(&accept, "Flagz").unwrap_err().code(), 406);
        }
        for accept in ["application/json", "application/json;v=v9;g=config.k8s.io;as=Statusz"] {
            assert_eq!(form(accept, "Statusz").unwrap_err().code(), 406, "{accept}");
        }
    }

    #[test]
    fn a_status_says_since_when_it_is_up() {
        let [started, now] =
            ["2024-10-06T21:03:43Z", "2024-10-07T22:04:45Z"].map(|time| time.parse());
        let answer = status("", started.unwrap(), now.unwrap(), &["/livez"]).unwrap();
        let Response::Raw { body, .. } = answer else { panic!("it is text") };
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("\nStarted: Sun Oct  6 21:03:43 UTC 2024\nUp: 25 hr 01 min 02 sec\n")
        );
        assert!(text.ends_with("\nPaths: /livez\n"), "{text}");
    }
}
