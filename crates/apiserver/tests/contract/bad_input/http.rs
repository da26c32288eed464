//! Errors that are specific to HTTP: media types, methods, paths.

use crate::server::Rest;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Method, path, header, body; code, reason and message.
type Case<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a str, u16, &'a str, &'a str);

/// Adds unexpected answers to `wrong`.
pub async fn ask_all(rest: &Rest, wrong: &mut Vec<String>) {
    let unknown = "the server could not find the requested resource";
    let not_allowed = "the server does not allow this method on the requested resource";
    let media = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let patches = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
    let accepted = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let name = r#"{"metadata":{"name":"x"}}"#;
    let json = ("content-type", "application/json");
    let plain = &format!("{MAPS}/plain");
    let cases: &[Case<'_>] = &[
        (
            "POST",
            MAPS,
            ("content-type", "application/cbor"),
            name,
            415,
            "UnsupportedMediaType",
            media,
        ),
        ("POST", MAPS, ("content-type", "text/plain"), name, 415, "UnsupportedMediaType", media),
        (
            "PATCH",
            plain,
            ("content-type", "application/json"),
            "{}",
            415,
            "UnsupportedMediaType",
            patches,
        ),
        (
            "PATCH",
            plain,
            ("content-type", "application/xml"),
            "{}",
            415,
            "UnsupportedMediaType",
            patches,
        ),
        ("GET", MAPS, ("accept", "image/png"), "", 406, "NotAcceptable", accepted),
        ("GET", plain, ("accept", "application/xml"), "", 406, "NotAcceptable", accepted),
        ("GET", "/api/v1/nothings", json, "", 404, "NotFound", unknown),
        ("GET", "/apis/none.io/v1/things", json, "", 404, "NotFound", unknown),
        ("GET", "/api/v2/pods", json, "", 404, "NotFound", unknown),
        ("GET", "/nothing", json, "", 404, "NotFound", unknown),
        ("GET", &format!("{plain}/nothing"), json, "", 404, "NotFound", unknown),
        ("GET", "/api/v1/namespaces//configmaps", json, "", 404, "NotFound", unknown),
        ("POST", plain, json, name, 405, "MethodNotAllowed", not_allowed),
        ("PUT", MAPS, json, name, 405, "MethodNotAllowed", not_allowed),
        ("BREW", MAPS, json, name, 405, "MethodNotAllowed", not_allowed),
        (
            "POST",
            MAPS,
            ("content-type", "application/yaml"),
            "a: [",
            400,
            "BadRequest",
            "the object provided is unrecognized (must be of type ConfigMap): …",
        ),
        (
            "POST",
            MAPS,
            ("content-type", "application/yaml"),
            "a: &x [*x, *x]",
            400,
            "BadRequest",
            "the object provided is unrecognized (must be of type ConfigMap): …",
        ),
        (
            "POST",
            MAPS,
            ("content-type", "application/yaml"),
            "metadata: {name: [}",
            400,
            "BadRequest",
            "the object provided is unrecognized (must be of type ConfigMap): …",
        ),
        (
            "POST",
            MAPS,
            ("content-type", "application/vnd.kubernetes.protobuf"),
            "k8s\0\u{7f}\u{7f}",
            400,
            "BadRequest",
            "the object provided is unrecognized (must be of type ConfigMap): …",
        ),
        (
            "POST",
            "/api/v1/namespaces/none/configmaps",
            json,
            name,
            404,
            "NotFound",
            "namespaces \"none\" not found",
        ),
        ("POST", "/api/v1/configmaps", json, name, 405, "MethodNotAllowed", not_allowed),
    ];
    for (method, path, header, body, code, reason, message) in cases {
        let answer = rest.ask(method, path, &[*header], body.as_bytes().to_vec()).await;
        let said = answer.body["message"].as_str().unwrap_or_default();
        let fits = match message.strip_suffix('…') {
            Some(beginning) => said.starts_with(beginning),
            None => said == *message,
        };
        if answer.code != *code || answer.body["reason"] != *reason || !fits {
            wrong.push(format!(
                "{method} {path} {header:?} {body}\n  wanted {code} {reason} {message}\n  REST {} {}",
                answer.code, answer.text
            ));
        }
    }
    // Unknown parameters are ignored, as in Kubernetes.
    let answer = rest.get(&format!("{MAPS}?nonsense=1&pretty=true&limit=-5")).await;
    if answer.code != 200 {
        wrong.push(format!("an unknown parameter: {}", answer.text));
    }
    let selector = "a%3Db%2C".repeat(7_000);
    let answer = rest.get(&format!("{MAPS}?labelSelector={selector}")).await;
    if answer.code != 414 {
        wrong.push(format!("a long query: {} {}", answer.code, answer.text));
    }
}
