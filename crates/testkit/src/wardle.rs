//! An extension server that behaves as upstream's sample-apiserver does: it stores flunders
//! (namespaced) and fischers, of `wardle.example.com/v1alpha1`, and decides itself who may do what
//! with them, by asking the cluster. A fischer can ban flunders by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::extension::{Reply, Seen};

pub const GROUP: &str = "wardle.example.com";
pub const VERSION: &str = "v1alpha1";
/// The name of its APIService.
pub const SERVICE: &str = "v1alpha1.wardle.example.com";
/// Where its objects are.
pub const PATH: &str = "/apis/wardle.example.com/v1alpha1";

const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const PROTECTED: &str = "extension-apiserver-authentication";

/// Asks the cluster for a review: the path, and the body. Returns the answer.
pub type Reviews = Box<dyn Fn(&str, &Value) -> Value + Send + Sync>;

/// Whom to believe, from the ConfigMap `extension-apiserver-authentication`.
#[derive(Clone, Debug)]
pub struct Trust {
    allowed_names: Vec<String>,
    username_headers: Vec<String>,
    group_headers: Vec<String>,
}

impl Trust {
    /// # Panics
    /// If it is not that ConfigMap.
    pub fn new(map: &Value) -> Self {
        assert_eq!(map["metadata"]["name"], PROTECTED, "{map}");
        let list = |key: &str| {
            let text = map["data"][key].as_str().unwrap_or_default();
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{key}: {error} in {map}"))
        };
        Self {
            allowed_names: list("requestheader-allowed-names"),
            username_headers: list("requestheader-username-headers"),
            group_headers: list("requestheader-group-headers"),
        }
    }
}

/// Who asks.
struct User {
    name: String,
    groups: Vec<String>,
}

/// What a path names.
struct Named<'a> {
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// Resource, namespace and name.
type Key = (String, String, String);

#[derive(Debug)]
struct State {
    objects: BTreeMap<Key, Value>,
    revision: u64,
}

/// The server's state and what it asks others.
pub struct Wardle {
    state: Mutex<State>,
    changes: broadcast::Sender<(Key, Value)>,
    trust: Option<Trust>,
    reviews: Option<Reviews>,
}

impl Default for Wardle {
    /// Without anybody to ask: whoever a front proxy names may do everything.
    fn default() -> Self {
        Self {
            state: Mutex::new(State { objects: BTreeMap::new(), revision: 1 }),
            changes: broadcast::channel(1_024).0,
            trust: None,
            reviews: None,
        }
    }
}

impl Wardle {
    pub fn new(trust: Trust, reviews: Reviews) -> Arc<Self> {
        Arc::new(Self { trust: Some(trust), reviews: Some(reviews), ..Self::default() })
    }

    /// Answers a request.
    pub fn answer(&self, seen: &Seen) -> Reply {
        let Some(user) = self.user(seen) else {
            return failure(401, "Unauthorized", "Unauthorized");
        };
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        match path {
            "/apis" => return Reply::Json(200, json!({"kind": "APIGroupList", "groups": []})),
            PATH => return Reply::Json(200, resources()),
            "/openapi/v2" => return Reply::Json(200, openapi()),
            _ => {}
        }
        let Some(named) = path.strip_prefix(PATH).and_then(named) else {
            return failure(404, "NotFound", "the server could not find the requested resource");
        };
        let verb = verb(seen, &named, query);
        if !self.allows(&user, verb, &named) {
            let message = format!(
                "{}.{GROUP} is forbidden: User {:?} cannot {verb} resource {:?} in API group {GROUP:?}",
                named.resource, user.name, named.resource
            );
            return failure(403, "Forbidden", &message);
        }
        self.act(verb, &named, query, seen)
    }

    /// The user whom a front proxy names, or whose token the cluster knows.
    fn user(&self, seen: &Seen) -> Option<User> {
        let Some(trust) = &self.trust else {
            let name = seen.header("x-remote-user").to_owned();
            return seen.peer.is_some().then_some(User { name, groups: Vec::new() });
        };
        if let Some(peer) = &seen.peer
            && trust.allowed_names.contains(peer)
        {
            let all = |names: &[String]| -> Vec<String> {
                names.iter().flat_map(|name| seen.all(name)).map(str::to_owned).collect()
            };
            let name = all(&trust.username_headers).into_iter().next()?;
            return Some(User { name, groups: all(&trust.group_headers) });
        }
        let token = seen.header("authorization").strip_prefix("Bearer ")?;
        let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"token": token}});
        let reviews = self.reviews.as_ref()?;
        let status =
            reviews("/apis/authentication.k8s.io/v1/tokenreviews", &review)["status"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let groups = status["user"]["groups"].as_array().into_iter().flatten().map(text).collect();
        (status["authenticated"] == true)
            .then(|| User { name: text(&status["user"]["username"]), groups })
    }

    fn allows(&self, user: &User, verb: &str, named: &Named<'_>) -> bool {
        let Some(reviews) = &self.reviews else { return true };
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {"user": user.name, "groups": user.groups, "resourceAttributes": {
                "verb": verb, "group": GROUP, "version": VERSION, "resource": named.resource,
                "namespace": named.namespace, "name": named.name}}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        reviews(path, &review)["status"]["allowed"] == true
    }

    fn act(&self, verb: &str, named: &Named<'_>, query: &str, seen: &Seen) -> Reply {
        let mut state = self.state.lock();
        let key = key(named, named.name);
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        match verb {
            "list" => Reply::Json(200, state.list(named, query)),
            "watch" => self.watch(&state, named, query),
            "create" => self.create(&mut state, named, body),
            "deletecollection" => {
                let list = state.list(named, query);
                for item in list["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default();
                    self.delete(&mut state, &self::key(named, name));
                }
                Reply::Json(200, list)
            }
            _ if !state.objects.contains_key(&key) => {
                let message = format!("{}.{GROUP} {:?} not found", named.resource, named.name);
                let mut status = status(404, "NotFound", &message);
                status["details"] =
                    json!({"name": named.name, "group": GROUP, "kind": named.resource});
                Reply::Json(404, status)
            }
            "get" => Reply::Json(200, state.objects[&key].clone()),
            "update" => self.replace(&mut state, key, body),
            "patch" => {
                let mut object = state.objects[&key].clone();
                merge(&mut object, &body);
                self.replace(&mut state, key, object)
            }
            "delete" => {
                let current = &state.objects[&key];
                let wanted = &body["preconditions"]["uid"];
                if wanted.is_string() && *wanted != current["metadata"]["uid"] {
                    return failure(409, "Conflict", "Precondition failed: UID in precondition");
                }
                self.delete(&mut state, &key);
                Reply::Json(200, status(200, "", ""))
            }
            _ => failure(405, "MethodNotAllowed", "the server does not allow this method"),
        }
    }

    fn watch(&self, state: &State, named: &Named<'_>, query: &str) -> Reply {
        let before = stream::iter(state.since(named, query));
        let changes = stream::unfold(self.changes.subscribe(), |mut changes| async {
            let change = changes.recv().await.ok()?;
            Some((change, changes))
        });
        let (resource, namespace) = (named.resource.to_owned(), named.namespace.to_owned());
        let changes = changes.filter_map(move |(key, event)| {
            let wanted = is_in(&key, &resource, &namespace).then_some(event);
            std::future::ready(wanted)
        });
        Reply::Stream(before.chain(changes).boxed())
    }

    fn create(&self, state: &mut State, named: &Named<'_>, mut object: Value) -> Reply {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = key(named, &name);
        if name.is_empty() {
            return failure(422, "Invalid", "metadata.name: Required value");
        }
        if state.objects.contains_key(&key) {
            let message = format!("{}.{GROUP} {name:?} already exists", named.resource);
            return failure(409, "AlreadyExists", &message);
        }
        // Its own admission: the plugin BanFlunder.
        let bans = |fischer: &Value| {
            fischer["disallowedFlunders"].as_array().is_some_and(|all| all.contains(&json!(name)))
        };
        let of = |resource: &str| resource == "fischers";
        let banned =
            state.objects.iter().any(|((resource, ..), object)| of(resource) && bans(object));
        if named.resource == "flunders" && banned {
            let message = format!(
                "flunders.{GROUP} {name:?} is forbidden: this name may not be used, please change the resource name"
            );
            return failure(403, "Forbidden", &message);
        }
        let metadata = &mut object["metadata"];
        if !named.namespace.is_empty() {
            metadata["namespace"] = named.namespace.into();
        }
        metadata["uid"] = format!("{}-{}", named.resource, state.revision + 1).into();
        metadata["creationTimestamp"] = "2024-01-01T00:00:00Z".into();
        object["kind"] = kind(named.resource).into();
        object["apiVersion"] = format!("{GROUP}/{VERSION}").into();
        let stored = state.store(key.clone(), object);
        self.tell("ADDED", key, &stored);
        Reply::Json(201, stored)
    }

    fn replace(&self, state: &mut State, key: Key, mut object: Value) -> Reply {
        let current = &state.objects[&key]["metadata"];
        let given = &object["metadata"]["resourceVersion"];
        if given.is_string() && *given != current["resourceVersion"] {
            return failure(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version and try again",
            );
        }
        object["metadata"]["uid"] = current["uid"].clone();
        let stored = state.store(key.clone(), object);
        self.tell("MODIFIED", key, &stored);
        Reply::Json(200, stored)
    }

    fn delete(&self, state: &mut State, key: &Key) {
        if let Some(mut object) = state.objects.remove(key) {
            state.revision += 1;
            object["metadata"]["resourceVersion"] = state.revision.to_string().into();
            self.tell("DELETED", key.clone(), &object);
        }
    }

    fn tell(&self, kind: &str, key: Key, object: &Value) {
        // Nobody may be watching.
        self.changes.send((key, json!({"type": kind, "object": object}))).ok();
    }
}

impl State {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.insert(key, object.clone());
        object
    }

    fn list(&self, named: &Named<'_>, query: &str) -> Value {
        let wanted = parameter(query, "labelSelector").replace("%3D", "=");
        let items = self.objects.iter().filter(|(key, object)| {
            let labelled = wanted
                .split_once('=')
                .is_none_or(|(key, value)| object["metadata"]["labels"][key] == value);
            is_in(key, named.resource, named.namespace) && labelled
        });
        // Servers in Go leave out the type of items.
        let untyped = items.map(|(_, object)| {
            let mut object = object.clone();
            let members = object.as_object_mut().expect("objects are stored");
            members.remove("kind");
            members.remove("apiVersion");
            object
        });
        json!({"kind": format!("{}List", kind(named.resource)),
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "metadata": {"resourceVersion": self.revision.to_string()},
            "items": untyped.collect::<Vec<_>>()})
    }

    /// The events before a watch: those of what has changed since its version.
    fn since(&self, named: &Named<'_>, query: &str) -> Vec<Value> {
        let since: u64 = parameter(query, "resourceVersion").parse().unwrap_or_default();
        let version = |object: &Value| {
            object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok())
        };
        let wanted = |key: &Key| is_in(key, named.resource, named.namespace);
        let own = self.objects.iter().filter(|(key, _)| wanted(key));
        let newer = own.filter(|(_, object)| version(object).unwrap_or(0) > since);
        newer.map(|(_, object)| json!({"type": "ADDED", "object": object})).collect()
    }
}

fn key(named: &Named<'_>, name: &str) -> Key {
    (named.resource.to_owned(), named.namespace.to_owned(), name.to_owned())
}

/// Whether an object is in a collection: of all namespaces if that is empty.
fn is_in((of, place, _): &Key, resource: &str, namespace: &str) -> bool {
    of == resource && (namespace.is_empty() || place == namespace)
}

fn kind(resource: &str) -> &'static str {
    if resource == "fischers" { "Fischer" } else { "Flunder" }
}

fn named(path: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (namespace, rest) = match parts[..] {
        ["namespaces", namespace, ref rest @ ..] => (namespace, rest),
        ref rest => ("", rest),
    };
    match *rest {
        [resource @ ("flunders" | "fischers")] => Some(Named { resource, namespace, name: "" }),
        [resource @ ("flunders" | "fischers"), name] => Some(Named { resource, namespace, name }),
        _ => None,
    }
}

fn verb(seen: &Seen, named: &Named<'_>, query: &str) -> &'static str {
    match (seen.method.as_str(), named.name) {
        ("GET", "") if matches!(parameter(query, "watch"), "1" | "true") => "watch",
        ("GET", "") => "list",
        ("GET", _) => "get",
        ("POST", "") => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", "") => "deletecollection",
        ("DELETE", _) => "delete",
        _ => "",
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> &'a str {
    let mut all = query.split('&').filter_map(|pair| pair.split_once('='));
    all.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

/// A merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in members {
        match value {
            Value::Null => {
                target.as_object_mut().expect("it is one").remove(name);
            }
            value => merge(&mut target[name.as_str()], value),
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    let outcome = if code < 400 { "Success" } else { "Failure" };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": outcome,
        "reason": reason, "message": message, "code": code})
}

fn failure(code: u16, reason: &str, message: &str) -> Reply {
    Reply::Json(code, status(code, reason, message))
}

fn resources() -> Value {
    let one = |name: &str, singular: &str, namespaced: bool| {
        json!({"name": name, "singularName": singular, "namespaced": namespaced,
            "kind": kind(name), "verbs": VERBS})
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [one("fischers", "fischer", false), one("flunders", "flunder", true)]})
}

fn openapi() -> Value {
    json!({"swagger": "2.0", "info": {"title": "wardle", "version": "1"},
        "paths": {format!("{PATH}/fischers"): {"get": {"responses": {"200": {
            "description": "OK", "schema": {"$ref": "#/definitions/com.example.wardle.Fischer"}}}}}},
        "definitions": {"com.example.wardle.Fischer": {"type": "object"}}})
}
