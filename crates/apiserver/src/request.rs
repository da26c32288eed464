//! Requests, in the one form that both front ends build.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, KindRef, KindRow, fields, labels};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::aggregation::Delegated;
use crate::audit::Trail;
use crate::incoming::Slot;
use crate::inflight::Seat;
use crate::request_info::RequestInfo;
use crate::user::{Credentials, User};

/// Warnings of one request that are kept; no more than that are sent.
const NOTES_MAX: usize = 50;

/// The verb of a request to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A streaming subresource; `authorized_as` is RBAC's verb for it: `get` or `create`.
    Connect {
        authorized_as: &'static str,
    },
}

impl Verb {
    /// RBAC's name for the verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Connect { authorized_as } => authorized_as,
        }
    }

    pub fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A resource, or one object or subresource of it.
#[derive(Clone, Debug)]
pub struct Target {
    pub row: KindRef,
    /// Empty for cluster-scoped kinds, and for a list over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// What follows `proxy` in the path, as the client encoded it: empty, or starting with a slash.
    pub subpath: String,
}

impl Target {
    /// `namespace/name`, or `name` for cluster-scoped kinds: the key within its resource.
    pub fn key(&self) -> String {
        object_key(&self.row, &self.namespace, &self.name)
    }

    /// Its path in the API.
    pub fn path(&self) -> String {
        let group = if self.row.group.is_empty() { "api" } else { "apis/" };
        let mut path = format!("/{group}{}/{}", self.row.group, self.row.version);
        let namespace = if self.namespace.is_empty() { "" } else { "namespaces" };
        let parts = [namespace, &self.namespace, &self.row.plural, &self.name, &self.subresource];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path + &self.subpath
    }
}

/// The key of an object within its resource.
pub fn object_key(row: &KindRow, namespace: &str, name: &str) -> String {
    if row.namespaced() { format!("{namespace}/{name}") } else { name.to_owned() }
}

/// The encoding of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFormat {
    #[default]
    Json,
    Yaml,
    /// As Go clients send it: see `api::protobuf`.
    Protobuf,
}

/// The kinds of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Who has built a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// This server, for its own purposes: nobody else is asked about it.
    #[default]
    Server,
    Client,
}

/// Warnings for the client, collected while its request is carried out.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn add(&self, warning: String) {
        let mut all = self.0.lock();
        if all.len() < NOTES_MAX && !all.contains(&warning) {
            all.push(warning);
        }
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// How a resource version restricts what may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Kubernetes' options of all verbs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub labels: labels::Selector,
    pub fields: fields::Selector,
    /// As the client wrote it: empty for unset.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
    /// 0: everything.
    pub limit: u64,
    pub continue_token: String,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout: Option<Duration>,
    /// How long the request may take (`timeout`); zero and unset: as long as any.
    pub time_limit: Option<Duration>,
    pub dry_run: bool,
    pub field_manager: String,
    /// Product name in the client's User-Agent: the field manager when none is named.
    pub product: String,
    /// The subresource, such as `scale`, that a change of the object's own fields came through.
    pub written_through: &'static str,
    pub field_validation: FieldValidation,
    pub force: bool,
    pub patch_type: Option<PatchType>,
    /// Who has built the request.
    pub origin: Origin,
    /// When the answer is due.
    pub due: Option<Instant>,
    /// The kind that the client named, if the target is another form of it.
    pub requested: Option<KindRef>,
    /// Warnings that also an error is answered with.
    pub notes: Notes,
    /// What is recorded of the request.
    pub trail: Trail,
    /// The query as given: streaming and proxy subresources parse their own options.
    pub parameters: Vec<(String, String)>,
}

impl Options {
    /// The first parameter of a name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first parameter of a name, empty when there is none.
    pub fn text(&self, name: &str) -> String {
        self.parameter(name).unwrap_or_default().to_owned()
    }

    /// All parameters of a name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parameters.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean parameter as Kubernetes parses it: absent, `false` and `0` are false.
    pub fn flag(&self, name: &str) -> bool {
        self.parameter(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Who has sent a request, as far as its connection and its headers say.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// The request's id in the logs of both sides.
    pub id: String,
    /// Path and query as the client wrote them; empty over gRPC.
    pub uri: String,
    /// The client program.
    pub agent: String,
    /// Those that proxies say it comes from, then that of the connection.
    pub addresses: Vec<String>,
}

/// What a request is about.
#[derive(Clone, Debug)]
pub enum Subject {
    Resource {
        verb: Verb,
        target: Target,
    },
    /// `/healthz`, `/api`, `/openapi/v3/...`, with the lower-case HTTP method.
    Path {
        path: String,
        method: &'static str,
        accept: String,
    },
    /// Anything of a group version that another server answers.
    Delegated(Delegated),
    /// A resource that nobody serves, as far as the path names it. It is refused after authorization,
    /// so that the answer tells nobody more than their rights allow.
    Unserved(RequestInfo),
}

impl Subject {
    /// Method and path of a request that is about no resource.
    pub fn path(&self) -> Option<(&str, &str)> {
        match self {
            Self::Path { path, method, .. } => Some((method, path)),
            Self::Delegated(Delegated { info, .. }) | Self::Unserved(info)
                if info.resource.is_none() =>
            {
                Some((info.method, &info.path))
            }
            _ => None,
        }
    }

    /// Its path over REST.
    pub fn url_path(&self) -> String {
        match self {
            Self::Resource { target, .. } => target.path(),
            Self::Path { path, .. } => path.clone(),
            Self::Delegated(Delegated { info, .. }) | Self::Unserved(info) => info.path.clone(),
        }
    }

    /// Whether the answer takes as long as the client wants: such requests have neither the limits
    /// nor the metrics of others.
    pub fn is_long_running(&self) -> bool {
        match self {
            Self::Resource { verb, .. } => matches!(verb, Verb::Watch | Verb::Connect { .. }),
            Self::Path { path, .. } => crate::paths::is_profiling(path),
            Self::Delegated(Delegated { info, .. }) => info.is_long_running(),
            Self::Unserved(_) => false,
        }
    }
}

/// What the head of a request says, as a front end reads it.
#[derive(Debug)]
pub struct Head {
    pub subject: Subject,
    pub options: Options,
    /// What is wrong with it.
    pub refused: Option<ApiError>,
}

impl Head {
    pub fn new(subject: Subject, options: Options) -> Self {
        Self { subject, options, refused: None }
    }

    /// Notes what is wrong, unless something is already.
    pub fn refuse(&mut self, error: Result<(), ApiError>) {
        self.refused = self.refused.take().or(error.err());
    }
}

/// One request from one client.
#[derive(Clone, Debug)]
pub struct Request {
    pub credentials: Credentials,
    /// Anonymous until the authentication step has run.
    pub user: Arc<User>,
    pub subject: Subject,
    pub options: Options,
    /// Empty until it has been received.
    pub body: Bytes,
    pub body_format: BodyFormat,
    /// The body until then, if the front end has not received it.
    pub unread: Slot,
    /// What is wrong with its head: the answer to whoever is allowed to ask.
    pub refused: Option<ApiError>,
    pub seat: Seat,
    pub client: Arc<ClientInfo>,
    /// When its head was there.
    pub arrived: Instant,
}

impl Request {
    /// A request without a body.
    pub fn new(subject: Subject, credentials: Credentials) -> Self {
        Self {
            credentials,
            user: Arc::new(User::anonymous()),
            subject,
            options: Options::default(),
            body: Bytes::new(),
            body_format: BodyFormat::Json,
            unread: Slot::default(),
            refused: None,
            seat: Seat::default(),
            client: Arc::default(),
            arrived: clock::instant(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_take_their_time() {
        let lasts = |path: &str| {
            Subject::Path { path: path.to_owned(), method: "get", accept: String::new() }
                .is_long_running()
        };
        assert!(lasts("/debug/pprof/profile"));
        assert!(!lasts("/debug/pprofs") && !lasts("/healthz"));
    }
}
