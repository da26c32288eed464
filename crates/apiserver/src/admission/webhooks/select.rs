//! Which webhooks a request is sent to.

use std::collections::BTreeMap;

use api::cel::{self, Binding, Expression, MATCH_BUDGET, Session};
use api::labels::Selector;
use api::{ApiError, Kind, KindRef, KindRow};
use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;
use std::sync::Arc;

use super::Snapshots;
use super::asked::{Asked, Operation};
use super::authorizer::Authorizer;
use super::configuration::{Hook, Phase};
use super::forms::Forms;
use crate::core::Call;
use crate::kinds;
use crate::request::Origin;

const REGISTRATION: &str = "admissionregistration.k8s.io";
/// Resources about which no webhook is asked, so that whoever may repair a configuration can.
const OF_WEBHOOKS: [(&str, &str); 2] = [
    (REGISTRATION, "mutatingwebhookconfigurations"),
    (REGISTRATION, "validatingwebhookconfigurations"),
];
/// Likewise, and no policy is about them either.
const OF_POLICIES: [(&str, &str); 4] = [
    (REGISTRATION, "mutatingadmissionpolicies"),
    (REGISTRATION, "mutatingadmissionpolicybindings"),
    (REGISTRATION, "validatingadmissionpolicies"),
    (REGISTRATION, "validatingadmissionpolicybindings"),
];
/// Resources that are never stored and that a cluster cannot do without: neither webhooks nor
/// policies are about them.
const VIRTUAL: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

const ALL: &str = "*";
/// How often expressions are evaluated that ask one thing after the other. What they may cost lets
/// them ask fewer times.
const ROUNDS_MAX: usize = 64;

/// A webhook whose rules name the request's resource.
pub struct Named {
    pub hook: Arc<Hook>,
    /// The resource in the version that they name.
    pub equivalent: KindRef,
}

/// A webhook that may be called, and the resource as it knows it.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    pub hook: &'a Arc<Hook>,
    pub resource: &'a KindRef,
}

/// The resource and operation of a request.
pub struct Head<'a> {
    pub operation: Operation,
    pub subresource: &'a str,
    pub is_in_namespace: bool,
}

impl Snapshots {
    /// The webhooks whose rules name a request.
    pub(super) fn named(&self, phase: Phase, attributes: &super::Attributes<'_>) -> Vec<Named> {
        let (call, operation) = (attributes.call, attributes.operation);
        let subresource = attributes.subresource;
        let resource = call.options.requested.as_ref().unwrap_or(call.row());
        if call.options.origin != Origin::Client || is_exempt(resource) {
            return Vec::new();
        }
        let hooks = self.of(phase);
        let is_in_namespace = resource.namespaced() && !call.target.namespace.is_empty();
        let head = Head { operation, subresource, is_in_namespace };
        let mut equivalents = None;
        let named = hooks.about(&resource.plural).filter_map(|hook| {
            let equivalent = if hook.rules.iter().any(|rule| matches(rule, &head, resource)) {
                resource.clone()
            } else if hook.equivalent {
                let others = equivalents.get_or_insert_with(|| equivalents_of(call, resource));
                let pairs =
                    hook.rules.iter().flat_map(|rule| others.iter().map(move |o| (rule, o)));
                pairs.into_iter().find(|(rule, other)| matches(rule, &head, other))?.1.clone()
            } else {
                return None;
            };
            Some(Named { hook: hook.clone(), equivalent })
        });
        named.collect()
    }
}

/// Whether no webhook is asked about a resource.
pub fn is_exempt(resource: &KindRow) -> bool {
    OF_WEBHOOKS.contains(&(&*resource.group, &*resource.plural)) || has_no_policies(resource)
}

/// Whether no policy is about a resource.
pub fn has_no_policies(resource: &KindRow) -> bool {
    let resource = (&*resource.group, &*resource.plural);
    OF_POLICIES.contains(&resource) || VIRTUAL.contains(&resource)
}

/// The other versions in which the same objects can be written.
pub fn equivalents_of(call: Call<'_>, resource: &KindRef) -> Vec<KindRef> {
    if resource.custom.is_some() {
        let kinds = call.core.cache.registry.kinds();
        let groups = kinds.groups().iter().filter(|group| group.name == resource.group);
        let versions = groups.flat_map(|group| &group.versions);
        return versions
            .filter(|version| **version != resource.version)
            .filter_map(|version| kinds.by_resource(&resource.group, version, &resource.plural))
            .collect();
    }
    kinds::forms::others(resource).into_iter().map(KindRef::from).collect()
}

/// Whether a rule names a request to this version of its resource.
pub fn matches(rule: &RuleWithOperations, head: &Head<'_>, resource: &KindRow) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| {
        list.iter().flatten().any(|item| item == ALL || item == wanted)
    };
    let is_named = |text: &String| {
        let (name, subresource) = text.split_once('/').unwrap_or((text, ""));
        (name == ALL || name == resource.plural)
            && (subresource == ALL || subresource == head.subresource)
    };
    let scope = match rule.scope.as_deref().unwrap_or(ALL) {
        ALL => true,
        "Namespaced" => head.is_in_namespace,
        "Cluster" => !head.is_in_namespace,
        _ => false,
    };
    scope
        && has(&rule.operations, head.operation.text())
        && has(&rule.api_groups, &resource.group)
        && has(&rule.api_versions, &resource.version)
        && rule.resources.iter().flatten().any(is_named)
}

/// Whether selectors select a request: by the labels of its object, before or after, and by those of
/// its namespace.
///
/// # Errors
/// 404 when the namespace is missing.
pub async fn is_selected(
    asked: &Asked<'_>,
    objects: &Selector,
    namespaces: &Selector,
    new: &Value,
    old: &Value,
) -> Result<bool, ApiError> {
    let has_labels = |object: &Value| is_object(object) && objects.matches(labels(object).as_ref());
    if !objects.is_everything() && !has_labels(new) && !has_labels(old) {
        return Ok(false);
    }
    selects_namespace(asked, namespaces, new).await
}

/// Whether the selectors and conditions of a webhook let it be called.
///
/// # Errors
/// When that cannot be decided, and its policy is to fail.
pub async fn selects(
    asked: &Asked<'_>,
    invocation: Invocation<'_>,
    new: &Value,
    old: &Value,
    forms: &mut Forms,
) -> Result<bool, ApiError> {
    let hook = invocation.hook;
    let objects = hook.objects.as_ref().map_err(|error| ApiError::internal(&error.0))?;
    let namespaces = hook.namespaces.as_ref().map_err(|error| ApiError::internal(&error.0))?;
    if !is_selected(asked, objects, namespaces, new, old).await? {
        return Ok(false);
    }
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let (new, old) = forms.of(asked, invocation.resource, new, old).await?;
    let facts = Facts::new(asked, invocation.resource, hook.uses);
    let holds = || {
        let variables = facts.variables(new, old, &Value::Null);
        Session::new(&variables, &[], MATCH_BUDGET).all(hook.conditions.iter())
    };
    match facts.settle(holds).await {
        Ok(holds) => Ok(holds),
        Err(_) if hook.ignores_failures => Ok(false),
        Err(why) => Err(ApiError::forbidden(&asked.resource, &asked.name, why)),
    }
}

/// Options of a connection have no labels, not even none.
fn is_object(object: &Value) -> bool {
    object.get("metadata").is_some()
}

fn labels(object: &Value) -> Option<BTreeMap<String, String>> {
    let labels = object.pointer("/metadata/labels")?.as_object()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(labels.iter().map(|(key, value)| (key.clone(), text(value))).collect())
}

/// What is in no namespace is always selected, unless it is one: its own labels count.
async fn selects_namespace(
    asked: &Asked<'_>,
    selector: &Selector,
    new: &Value,
) -> Result<bool, ApiError> {
    let is_namespace = asked.resource == *Namespace::ROW;
    if selector.is_everything() || (asked.namespace.is_empty() && !is_namespace) {
        return Ok(true);
    }
    let is_written = matches!(asked.operation, Operation::Create | Operation::Update);
    if is_namespace && asked.subresource.is_empty() && is_written {
        return Ok(selector.matches(labels(new).as_ref()));
    }
    let found = asked.call.core.find(Namespace::ROW, &asked.namespace).await?;
    let found = found.ok_or_else(|| ApiError::not_found(Namespace::ROW, &asked.namespace))?;
    Ok(selector.matches(found.labels.as_ref()))
}

/// Which variables expressions read. What nobody reads is not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub old: bool,
    pub namespace: bool,
    pub request: bool,
    pub authorizer: bool,
}

impl Uses {
    pub fn of<'e>(expressions: impl Iterator<Item = &'e Expression>) -> Self {
        expressions.fold(Self::default(), |uses, expression| Self {
            old: uses.old || expression.reads("oldObject"),
            namespace: uses.namespace || expression.reads("namespaceObject"),
            request: uses.request || expression.reads("request"),
            authorizer: uses.authorizer || expression.reads("authorizer"),
        })
    }
}

/// What expressions know of a request besides its objects, as far as they read it.
pub struct Facts<'a> {
    request: Option<Value>,
    access: Option<(Authorizer<'a>, cel::User, cel::Asked)>,
}

impl<'a> Facts<'a> {
    /// `resource`: in the version that rules name.
    pub fn new(asked: &Asked<'a>, resource: &KindRef, uses: Uses) -> Self {
        let user = asked.call.user;
        let access = || {
            let own = cel::Asked {
                group: asked.resource.group.to_string(),
                resource: asked.resource.plural.to_string(),
                subresource: asked.subresource.to_owned(),
                namespace: asked.namespace.clone(),
                name: asked.name.clone(),
                ..cel::Asked::default()
            };
            let asker = cel::User {
                name: user.name.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
            };
            (Authorizer::new(asked.call.core, user), asker, own)
        };
        Self {
            request: uses.request.then(|| Value::Object(asked.request(resource))),
            access: uses.authorizer.then(access),
        }
    }

    /// Whether what these expressions read has been made.
    pub fn cover(&self, uses: Uses) -> bool {
        (self.request.is_some() || !uses.request) && (self.access.is_some() || !uses.authorizer)
    }

    /// Evaluates expressions, and again as long as they have asked what has to be waited for.
    pub async fn settle<T>(&self, evaluate: impl Fn() -> T) -> T {
        for _ in 0..ROUNDS_MAX {
            let result = evaluate();
            match &self.access {
                Some((authorizer, ..)) if authorizer.answer().await => {}
                _ => return result,
            }
        }
        evaluate()
    }

    /// The variables of expressions.
    pub fn variables<'b>(
        &'b self,
        new: &'b Value,
        old: &'b Value,
        namespace: &'b Value,
    ) -> Vec<(&'b str, Binding<'b>)> {
        let mut variables = vec![
            ("object", Binding::Json(new)),
            ("oldObject", Binding::Json(old)),
            ("namespaceObject", Binding::Json(namespace)),
        ];
        variables.extend(self.request.iter().map(|request| ("request", Binding::Json(request))));
        let access = self.access.iter();
        variables.extend(access.map(|(authorizer, user, own)| {
            ("authorizer", Binding::Authorizer(authorizer, user, own))
        }));
        variables
    }
}

#[cfg(test)]
mod tests {
    use api::cel::Environment;

    use super::*;

    #[test]
    fn only_what_expressions_read_is_made() {
        let none = Uses::default();
        let cases = [
            ("object.metadata.name == 'request'", none),
            ("object == oldObject", Uses { old: true, ..none }),
            ("has(namespaceObject.metadata)", Uses { namespace: true, ..none }),
            ("[1].all(x, request.name != '')", Uses { request: true, ..none }),
            (
                "true || authorizer.path('/').check('get').allowed()",
                Uses { authorizer: true, ..none },
            ),
        ];
        for (source, expected) in cases {
            let expression = Environment::new(false).condition(source).unwrap();
            let uses = Uses::of([&expression].into_iter());
            assert_eq!(uses, expected, "{source}");
            // Facts that nothing was made for do for what reads neither request nor authorizer.
            let facts = Facts { request: None, access: None };
            assert_eq!(facts.cover(uses), !uses.request && !uses.authorizer, "{source}");
            let null = Value::Null;
            assert_eq!(facts.variables(&null, &null, &null).len(), 3);
        }
    }
}
