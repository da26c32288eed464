//! Events, with the fields and the order of `audit.k8s.io/v1`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusDetails};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Level, Stage};
use crate::authz::{self, Attributes};
use crate::flowcontrol::classify::ResourceInfo;
use crate::request::{Request, Target};
use crate::scan;
use crate::user::User;

/// Longest name of a client program that is kept, in bytes (upstream's).
const AGENT_MAX: usize = 1_024;

#[derive(Clone, Debug, Default, Serialize)]
pub struct UserInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn of(user: &User) -> Self {
        Self {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// A status without its object's fields.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ResponseStatus {
    metadata: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<StatusDetails>,
    code: i32,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Empty {}

/// How a request was authenticated.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationMetadata {
    /// The verb of the mode that has let the user be somebody else.
    pub impersonation_constraint: String,
}

/// An event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    pub user: UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Box<RawValue>>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Event {
    pub fn new(request: &Request, level: Level, now: Timestamp) -> Self {
        let attributes = authz::of_request(request);
        let (verb, object_ref) = match attributes {
            Attributes::Path { verb, .. } => (verb, None),
            Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
                let info = ResourceInfo::of(&request.subject);
                let version = info.map(|info| info.version.to_owned()).unwrap_or_default();
                let reference = ObjectReference {
                    resource,
                    namespace,
                    name,
                    api_group: group,
                    api_version: version,
                    subresource,
                    ..ObjectReference::default()
                };
                (verb, Some(reference))
            }
        };
        let client = &request.client;
        let received = now - request.arrived.elapsed();
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id: client.id.clone(),
            stage: Stage::RequestReceived,
            request_uri: match client.uri.as_str() {
                "" => request.subject.url_path(),
                uri => uri.to_owned(),
            },
            verb,
            user: UserInfo::of(&request.user),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: client.addresses.clone(),
            user_agent: agent(&client.agent),
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: micros(received),
            stage_timestamp: micros(now),
            annotations: BTreeMap::new(),
        }
    }

    pub fn reach(&mut self, stage: Stage, now: Timestamp) {
        self.stage = stage;
        self.stage_timestamp = micros(now);
    }

    /// Completes the reference by what the object itself says.
    pub fn refer(&mut self, json: &[u8], target: &Target) {
        let reference = self.object_ref.get_or_insert_default();
        let of = |field: &str| {
            let value = scan::at_path(json, &format!("metadata.{field}"));
            value.map(scan::scalar).unwrap_or_default()
        };
        for (own, field) in [
            (&mut reference.name, "name"),
            (&mut reference.uid, "uid"),
            (&mut reference.resource_version, "resourceVersion"),
        ] {
            if own.is_empty() {
                *own = of(field);
            }
        }
        if reference.namespace.is_empty() && target.row.namespaced() {
            reference.namespace = of("namespace");
        }
    }

    /// The event without objects, because they are too large.
    pub fn truncated(&self) -> Self {
        let mut event = self.clone();
        (event.request_object, event.response_object) = (None, None);
        event.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
        event
    }

    pub fn has_objects(&self) -> bool {
        self.level >= Level::Request
    }

    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The event as one line (`audit.EventString`).
    pub fn line(&self) -> String {
        let list =
            |all: &[String]| all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(",");
        let named = !self.user.username.is_empty();
        let user = if named { self.user.username.as_str() } else { "<none>" };
        let groups = if named && !self.user.groups.is_empty() {
            list(&self.user.groups)
        } else {
            "<none>".to_owned()
        };
        let other = self.impersonated_user.as_ref();
        let other_groups = other.filter(|other| !other.groups.is_empty());
        let namespace = self.object_ref.as_ref().map(|object| object.namespace.as_str());
        let code = self.response_status.as_ref().map(|status| status.code.to_string());
        format!(
            "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={user:?} groups={groups:?} as={:?} asgroups={:?} user-agent={:?} namespace={:?} uri={:?} response=\"{}\"",
            self.request_received_timestamp,
            self.audit_id,
            self.stage.text(),
            self.source_ips.first().map_or("<unknown>", String::as_str),
            self.verb,
            other.map_or("<self>", |other| &other.username),
            other_groups.map_or("<lookup>".to_owned(), |other| list(&other.groups)),
            self.user_agent,
            namespace.filter(|namespace| !namespace.is_empty()).unwrap_or("<none>"),
            self.request_uri,
            code.as_deref().unwrap_or("<deferred>"),
        )
    }
}

fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn agent(text: &str) -> String {
    if text.len() <= AGENT_MAX {
        return text.to_owned();
    }
    let mut end = AGENT_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...TRUNCATED", &text[..end])
}

/// The status of an answer that says no more than its code.
pub fn code(code: u16) -> ResponseStatus {
    ResponseStatus { code: code.into(), ..ResponseStatus::default() }
}

pub fn status(status: &Status) -> ResponseStatus {
    ResponseStatus {
        metadata: Empty {},
        status: status.status.clone(),
        message: status.message.clone().filter(|message| !message.is_empty()),
        reason: status.reason.clone().filter(|reason| !reason.is_empty()),
        details: status.details.clone(),
        code: status.code.unwrap_or_default(),
    }
}

/// The status of a request whose client has gone.
pub fn closed_early() -> ResponseStatus {
    ResponseStatus {
        status: Some("Success".to_owned()),
        message: Some("Connection closed early".to_owned()),
        ..code(200)
    }
}

pub fn unauthenticated(message: String) -> ResponseStatus {
    ResponseStatus { message: Some(message), ..code(401) }
}

/// Removes who owns the fields of an object, or of the objects of a list.
pub fn without_managed_fields(object: &mut Value) {
    let remove = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    remove(object);
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(remove);
}
