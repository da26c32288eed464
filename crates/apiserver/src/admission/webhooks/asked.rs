//! What a webhook is asked about: the request without its objects.

use api::object::Object;
use api::{Kind, KindRef};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Map, Value, json};

use crate::core::Call;
use crate::request::{Target, Verb};
use crate::user::User;

/// What happens to an object, in admission's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn text(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }

    /// `has_old`: there is an object already.
    pub fn of_write(has_old: bool) -> Self {
        if has_old { Self::Update } else { Self::Create }
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    pub fn of(row: &api::KindRow) -> Self {
        Self {
            group: row.group.to_string(),
            version: row.version.to_string(),
            kind: row.kind.to_string(),
        }
    }

    fn json(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

/// A request as webhooks see it.
pub struct Asked<'a> {
    pub call: Call<'a>,
    pub operation: Operation,
    /// The resource of the request, in the version that the client named.
    pub resource: KindRef,
    pub subresource: &'a str,
    /// The object's kind, if it is not the resource's: of a subresource.
    pub own_kind: Option<Gvk>,
    /// Empty for what has no name yet.
    pub name: String,
    /// A Namespace is in itself.
    pub namespace: String,
    /// `CreateOptions` and the like; null for a connection.
    pub options: Value,
}

impl<'a> Asked<'a> {
    /// About an object that is written: the whole, or through its scale.
    pub fn of_write(call: Call<'a>, object: &dyn Object, has_old: bool) -> Self {
        let through = call.options.written_through;
        let subresource =
            if through.is_empty() { call.target.subresource.as_str() } else { through };
        let operation = Operation::of_write(has_old);
        let given = object.metadata();
        let name = match call.target.name.as_str() {
            "" if is_generated(&given.name, &given.generate_name) => "",
            "" => given.name.as_deref().unwrap_or_default(),
            name => name,
        };
        let kind = (through == "scale").then(|| Gvk {
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
        });
        let options = write_options(call, operation);
        Self::new(call, operation, subresource, kind, name.to_owned(), options)
    }

    /// About an object that is created at a subresource, or never stored.
    pub fn of_creation(call: Call<'a>, kind: &api::KindRow, name: String) -> Self {
        let options = write_options(call, Operation::Create);
        let subresource = call.target.subresource.as_str();
        Self::new(call, Operation::Create, subresource, Some(Gvk::of(kind)), name, options)
    }

    /// About a deletion.
    pub fn of_deletion(call: Call<'a>, options: Value) -> Self {
        // As upstream, what is deleted together has no name.
        let name = match call.verb {
            Verb::DeleteCollection => String::new(),
            _ => call.target.name.clone(),
        };
        Self::new(call, Operation::Delete, "", None, name, options)
    }

    /// About a stream or a proxied request, whose object are the options of its kind.
    pub fn of_connection(call: Call<'a>, kind: &str) -> Self {
        let kind = Gvk { group: String::new(), version: "v1".to_owned(), kind: kind.to_owned() };
        let (name, subresource) = (call.target.name.clone(), call.target.subresource.as_str());
        Self::new(call, Operation::Connect, subresource, Some(kind), name, Value::Null)
    }

    fn new(
        call: Call<'a>,
        operation: Operation,
        subresource: &'a str,
        own_kind: Option<Gvk>,
        name: String,
        options: Value,
    ) -> Self {
        let resource = call.options.requested.as_ref().unwrap_or(call.row()).clone();
        let namespace = namespace(call.target, &name);
        Self { call, operation, resource, subresource, own_kind, name, namespace, options }
    }

    /// The row of the object as it is held here.
    pub fn held(&self) -> &KindRef {
        self.call.row()
    }

    fn kind_of(&self, resource: &KindRef) -> Gvk {
        self.own_kind.clone().unwrap_or_else(|| Gvk::of(resource))
    }

    /// `AdmissionRequest` for a webhook that knows the resource as `resource`, without uid and
    /// objects.
    pub fn request(&self, resource: &KindRef) -> Map<String, Value> {
        let gvr = |row: &KindRef| json!({"group": row.group, "version": row.version, "resource": row.plural});
        let mut request = Map::new();
        let mut set = |name: &str, value: Value| {
            if value.as_str() != Some("") {
                request.insert(name.to_owned(), value);
            }
        };
        set("kind", self.kind_of(resource).json());
        set("resource", gvr(resource));
        set("subResource", self.subresource.into());
        set("requestKind", self.kind_of(&self.resource).json());
        set("requestResource", gvr(&self.resource));
        set("requestSubResource", self.subresource.into());
        set("name", self.name.as_str().into());
        set("namespace", self.namespace.as_str().into());
        set("operation", self.operation.text().into());
        set("userInfo", user_info(self.call.user));
        set("dryRun", self.call.options.dry_run.into());
        set("options", self.options.clone());
        request
    }
}

/// Whether a name is one that the server has made up.
fn is_generated(name: &Option<String>, base: &Option<String>) -> bool {
    let base = base.as_deref().unwrap_or_default();
    name.as_deref().unwrap_or_default().is_empty() && !base.is_empty()
}

fn namespace(target: &Target, name: &str) -> String {
    if target.row == *Namespace::ROW { name.to_owned() } else { target.namespace.clone() }
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    info.into()
}

fn write_options(call: Call<'_>, operation: Operation) -> Value {
    let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if call.options.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if !call.options.field_manager.is_empty() {
        options["fieldManager"] = call.options.field_manager.as_str().into();
    }
    if let Some(validation) = call.options.parameter("fieldValidation") {
        options["fieldValidation"] = validation.into();
    }
    options
}
