//! What an APIService must be, in upstream's words.

use serde_json::{Value, json};

use super::{NAME, SERVICES};
use crate::server::Server;

fn valid() -> Value {
    json!({"metadata": {"name": NAME}, "spec": {"group": "things.example.com", "version": "v1",
        "groupPriorityMinimum": 2000, "versionPriority": 10,
        "service": {"namespace": "default", "name": "s"}}})
}

/// What is changed, to what, and what is said about it.
type Wrong = (&'static str, Value, &'static [&'static str]);

fn wrong() -> [Wrong; 13] {
    [
        (
            "/metadata/name",
            json!("things"),
            &[
                "metadata.name: Invalid value: \"things\": must be `spec.version+\".\"+spec.group`: \"v1.things.example.com\"",
            ],
        ),
        (
            "/metadata/name",
            json!("a/b"),
            &["metadata.name: Invalid value: \"a/b\": may not contain '/'"],
        ),
        (
            "/spec/version",
            json!("V1"),
            &[
                "metadata.name: Invalid value: \"v1.things.example.com\": must be `spec.version+\".\"+spec.group`: \"V1.things.example.com\"",
                "spec.version: Invalid value: \"V1\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            "/spec/groupPriorityMinimum",
            json!(0),
            &["spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"],
        ),
        (
            "/spec/groupPriorityMinimum",
            json!(20_001),
            &[
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            ],
        ),
        (
            "/spec/versionPriority",
            json!(1_001),
            &["spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"],
        ),
        ("/spec/service/name", json!(""), &["spec.service.name: Required value"]),
        ("/spec/service/namespace", json!(""), &["spec.service.namespace: Required value"]),
        (
            "/spec/service/port",
            json!(65_536),
            &[
                "spec.service.port: Invalid value: 65536: port is not valid: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "/spec",
            json!({"group": "things.example.com", "version": "v1", "groupPriorityMinimum": 1,
                "versionPriority": 1, "caBundle": "YWJj", "insecureSkipTLSVerify": true}),
            &[
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        ),
        (
            "/spec",
            json!({"group": "things.example.com", "version": "v1", "groupPriorityMinimum": 1,
                "versionPriority": 1, "caBundle": "YWJj", "insecureSkipTLSVerify": true,
                "service": {"namespace": "default", "name": "s"}}),
            &[
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        ),
        (
            "/spec/group",
            json!(""),
            &[
                "metadata.name: Invalid value: \"v1.things.example.com\": must be `spec.version+\".\"+spec.group`: \"v1.\"",
            ],
        ),
        (
            "/spec",
            json!({"group": "", "version": "v2", "groupPriorityMinimum": 1, "versionPriority": 1}),
            &[
                "metadata.name: Invalid value: \"v1.things.example.com\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_as_upstream_says_it() {
    let server = Server::start().await;
    let rest = server.admin();
    for (pointer, value, errors) in wrong() {
        let mut object = valid();
        match object.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => object["spec"]["service"]["port"] = value.clone(),
        }
        let refused = rest.post(SERVICES, &object).await.expect(422);
        let causes = refused["details"]["causes"].as_array().unwrap().iter();
        let said: Vec<String> = causes
            .map(|cause| {
                format!(
                    "{}: {}",
                    cause["field"].as_str().unwrap(),
                    cause["message"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(said, errors, "{pointer} {value}");
    }
    let made = rest.post(SERVICES, &valid()).await.expect(201);
    assert_eq!(made["spec"]["service"]["port"], 443);
    assert!(made["status"]["conditions"].is_null(), "{made}");
    // Its status is not written with it, nor it with its status.
    let path = format!("{SERVICES}/{NAME}");
    let mut other = made.clone();
    other["metadata"]["resourceVersion"] = Value::Null;
    let refused = rest.send("PUT", &path, &other).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("must be specified for an update"));
    let status = json!({"spec": {"versionPriority": 99}, "metadata": {"labels": {"a": "b"}},
        "status": {"conditions": [{"type": "Other", "status": "Maybe"}]}});
    let refused = rest.patch(&format!("{path}/status"), "merge", &status).await.expect(422);
    let said = refused["message"].as_str().unwrap();
    let unsupported = "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \
                       \"True\", \"False\", \"Unknown\"";
    assert!(said.contains(unsupported), "{said}");
    let status = json!({"spec": {"versionPriority": 99}, "metadata": {"labels": {"a": "b"}},
        "status": {"conditions": [{"type": "Other", "status": "True"}]}});
    let written = rest.patch(&format!("{path}/status"), "merge", &status).await.expect(200);
    assert_eq!(written["spec"]["versionPriority"], 10);
    assert!(written["metadata"]["labels"].is_null());
    server.stop().await;
}
