//! One bad request, sent to both front ends.

use rpc::api_v1 as pb;
use serde_json::Value;

use crate::server::Server;

/// A request, and the expected answer.
#[derive(Clone, Debug)]
pub struct Case {
    pub verb: &'static str,
    /// `v1/configmaps`, `apps/v1/deployments/scale`; a namespaced one is in `default`.
    pub resource: &'static str,
    pub name: &'static str,
    pub query: &'static str,
    pub body: Vec<u8>,
    pub code: u16,
    pub reason: &'static str,
    /// The whole message, or its beginning if it ends with `…`.
    pub message: String,
    /// Field and reason of each cause.
    pub causes: Vec<(&'static str, &'static str)>,
}

impl Case {
    pub fn new(
        (verb, resource, name): (&'static str, &'static str, &'static str),
        body: impl Into<Vec<u8>>,
        (code, reason): (u16, &'static str),
        message: impl Into<String>,
    ) -> Self {
        Self {
            verb,
            resource,
            name,
            query: "",
            body: body.into(),
            code,
            reason,
            message: message.into(),
            causes: Vec::new(),
        }
    }

    pub fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    pub fn causes(mut self, causes: &[(&'static str, &'static str)]) -> Self {
        self.causes = causes.to_vec();
        self
    }

    fn row_and_subresource(&self) -> (&'static api::KindRow, &'static str) {
        let row_of = |resource: &str| {
            let (group_version, plural) = resource.rsplit_once('/')?;
            let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
            api::kind::by_resource(group, version, plural)
        };
        match row_of(self.resource) {
            Some(row) => (row, ""),
            None => {
                let (resource, subresource) = self.resource.rsplit_once('/').unwrap();
                (row_of(resource).unwrap(), subresource)
            }
        }
    }

    /// Sends the request to both front ends; adds unexpected answers to `wrong`.
    pub async fn ask_both(&self, server: &Server, wrong: &mut Vec<String>) {
        let rest = self.ask_rest(server).await;
        self.check("REST", &rest, wrong);
        // Text that is not UTF-8, and options that a message cannot hold, are for REST only.
        let only_rest = [
            "limit=",
            "dryRun=",
            "timeoutSeconds=",
            "timeout=",
            "gracePeriod",
            "force=",
            "propagationPolicy=",
            "sendInitialEvents=",
            "orphanDependents=",
        ];
        if only_rest.iter().any(|name| self.query.contains(name)) {
            return;
        }
        let grpc = self.ask_grpc(server).await;
        if grpc != rest {
            wrong.push(format!("{self}\n  REST {rest}\n  gRPC {grpc}"));
        }
    }

    async fn ask_rest(&self, server: &Server) -> Value {
        let (row, subresource) = self.row_and_subresource();
        let root = if row.group.is_empty() { "api" } else { "apis" };
        let mut path = format!("/{root}/{}", row.api_version());
        if row.namespaced() {
            path.push_str("/namespaces/default");
        }
        path.push_str(&format!("/{}", row.plural));
        for part in [self.name, subresource] {
            if !part.is_empty() {
                path.push_str(&format!("/{part}"));
            }
        }
        if !self.query.is_empty() {
            path.push_str(&format!("?{}", self.query));
        }
        let (method, kind) = match self.verb {
            "create" => ("POST", "application/json"),
            "update" => ("PUT", "application/json"),
            "json" => ("PATCH", "application/json-patch+json"),
            "merge" => ("PATCH", "application/merge-patch+json"),
            "strategic" => ("PATCH", "application/strategic-merge-patch+json"),
            "apply" => ("PATCH", "application/apply-patch+yaml"),
            "delete" => ("DELETE", "application/json"),
            "deletecollection" => ("DELETE", "application/json"),
            _ => ("GET", "application/json"),
        };
        let headers = [("content-type", kind)];
        let answer = server.admin().ask(method, &path, &headers, self.body.clone()).await;
        if answer.body["code"] != answer.code {
            return Value::String(format!("{} {}", answer.code, answer.text));
        }
        answer.body
    }

    async fn ask_grpc(&self, server: &Server) -> Value {
        let (row, subresource) = self.row_and_subresource();
        let namespace = if row.namespaced() { "default" } else { "" };
        let target = Some(pb::Target {
            group: row.group.to_string(),
            version: row.version.to_string(),
            resource: row.plural.to_string(),
            namespace: namespace.into(),
            name: self.name.into(),
            subresource: subresource.into(),
        });
        let query: Vec<_> = apiserver::rest::parse_query(self.query);
        let of = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let options = Some(pb::WriteOptions {
            field_manager: of("fieldManager"),
            field_validation: of("fieldValidation"),
            ..pb::WriteOptions::default()
        });
        let json = self.body.clone().into();
        let mut grpc = server.grpc();
        let patch = |kind: pb::PatchType| pb::PatchRequest {
            target: target.clone(),
            r#type: kind.into(),
            patch: self.body.clone().into(),
            options: options.clone(),
        };
        let status = match self.verb {
            "create" => grpc.create(pb::CreateRequest { target, json, options }).await.map(|_| ()),
            "update" => grpc.update(pb::UpdateRequest { target, json, options }).await.map(|_| ()),
            "json" => grpc.patch(patch(pb::PatchType::JsonPatch)).await.map(|_| ()),
            "merge" => grpc.patch(patch(pb::PatchType::MergePatch)).await.map(|_| ()),
            "strategic" => grpc.patch(patch(pb::PatchType::StrategicMergePatch)).await.map(|_| ()),
            "apply" => grpc.patch(patch(pb::PatchType::ApplyPatch)).await.map(|_| ()),
            "delete" => grpc
                .delete(pb::DeleteRequest { target, options_json: json, dry_run: false })
                .await
                .map(|_| ()),
            "get" => grpc
                .get(pb::GetRequest {
                    target,
                    resource_version: of("resourceVersion"),
                    ..pb::GetRequest::default()
                })
                .await
                .map(|_| ()),
            "list" => grpc
                .list(pb::ListRequest {
                    target,
                    label_selector: of("labelSelector"),
                    field_selector: of("fieldSelector"),
                    resource_version: of("resourceVersion"),
                    resource_version_match: of("resourceVersionMatch"),
                    continue_token: of("continue"),
                    ..pb::ListRequest::default()
                })
                .await
                .map(|_| ()),
            other => panic!("no such verb: {other}"),
        };
        let Err(status) = status else {
            return Value::String("accepted".to_owned());
        };
        match rpc::status::from_grpc(&status) {
            Some(error) => serde_json::from_slice(&error.encode()).unwrap(),
            None => Value::String(format!("{status:?}")),
        }
    }

    fn check(&self, front_end: &str, status: &Value, wrong: &mut Vec<String>) {
        let message = status["message"].as_str().unwrap_or_default();
        let fits = match self.message.strip_suffix('…') {
            Some(beginning) => message.starts_with(beginning),
            None => message == self.message,
        };
        let causes: Vec<(&str, &str)> = status["details"]["causes"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .map(|cause| {
                let text = |key: &str| cause[key].as_str().unwrap_or_default();
                (text("field"), text("reason"))
            })
            .collect();
        let same = status["code"] == self.code
            && status["reason"].as_str().unwrap_or_default() == self.reason
            && fits
            && (self.causes.is_empty() || causes == self.causes)
            && status["status"] == "Failure"
            && status["kind"] == "Status";
        if !same {
            wrong.push(format!(
                "{self}\n  wanted {} {} {} {:?}\n  {front_end} {status}",
                self.code, self.reason, self.message, self.causes
            ));
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(120)]);
        write!(f, "{} {} {} {} {body}", self.verb, self.resource, self.name, self.query)
    }
}
