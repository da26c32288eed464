//! `authorizer` of CEL expressions (`k8s.io/apiserver/pkg/cel/library`, `authz.go`).

use std::fmt;
use std::sync::Arc;

use crate::structural::rules::eval::{Evaluation, Outcome, fail};
use crate::structural::rules::value::Val;

/// What a check costs.
const CHECK_COST: u64 = 350_000;

pub(crate) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub(crate) const DECISION: &str = "kubernetes.authorization.Decision";

/// The functions, which exist only beside an authorizer, with what they return.
pub(crate) const FUNCTIONS: &[(&str, &str)] = &[
    ("path", PATH_CHECK),
    ("group", GROUP_CHECK),
    ("serviceAccount", AUTHORIZER),
    ("resource", RESOURCE_CHECK),
    ("subresource", RESOURCE_CHECK),
    ("namespace", RESOURCE_CHECK),
    ("name", RESOURCE_CHECK),
    ("fieldSelector", RESOURCE_CHECK),
    ("labelSelector", RESOURCE_CHECK),
    ("check", DECISION),
    ("allowed", "bool"),
    ("reason", "string"),
    ("errored", "bool"),
    ("error", "string"),
];

/// The type of a member of the authorizer.
pub(crate) fn member(of: &str, name: &str) -> Option<&'static str> {
    (of == AUTHORIZER && name == "requestResource").then_some(RESOURCE_CHECK)
}

/// Who is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

/// What is asked about: a resource, or a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Not empty: a path, and no resource.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// What of a collection, as in a request; an authorizer ignores what cannot be parsed.
    pub field_selector: String,
    pub label_selector: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why there is no better answer; empty: nothing went wrong.
    pub error: String,
}

/// Answers whether somebody may do something.
pub trait Authorizer: Sync {
    fn decide(&self, user: &User, verb: &str, asked: &Asked) -> Decision;
}

/// An authorizer, or a question to it that is being put.
#[derive(Clone)]
pub struct Access<'a> {
    authorizer: &'a dyn Authorizer,
    user: Arc<User>,
    /// That of the request.
    own: &'a Asked,
    asked: Arc<Asked>,
    pub(crate) kind: &'static str,
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.asked)
    }
}

impl<'a> Access<'a> {
    pub(crate) fn root(authorizer: &'a dyn Authorizer, user: &User, own: &'a Asked) -> Self {
        let (user, asked) = (Arc::new(user.clone()), Arc::default());
        Self { authorizer, user, own, asked, kind: AUTHORIZER }
    }

    /// A member: `authorizer.requestResource`.
    pub(crate) fn member(&self, name: &str) -> Option<Self> {
        let kind = member(self.kind, name)?;
        Some(Self { asked: Arc::new(self.own.clone()), kind, ..self.clone() })
    }

    /// Bytes of what is asked.
    pub(crate) fn length(&self) -> usize {
        let Asked {
            path,
            group,
            resource,
            subresource,
            namespace,
            name,
            field_selector,
            label_selector,
        } = &*self.asked;
        let texts =
            [path, group, resource, subresource, namespace, name, field_selector, label_selector];
        texts.map(String::len).iter().sum()
    }

    fn with(&self, kind: &'static str, change: impl FnOnce(&mut Asked)) -> Val<'a> {
        let mut asked = (*self.asked).clone();
        change(&mut asked);
        Val::Access(Self { asked: Arc::new(asked), kind, ..self.clone() })
    }

    fn account(&self, namespace: &str, name: &str) -> Val<'a> {
        let user = User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: String::new(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ],
        };
        Val::Access(Self { user: Arc::new(user), ..self.clone() })
    }
}

impl<'a> Evaluation<'a> {
    /// Functions of the authorizer; `None` if there is none of that name for such values.
    pub(crate) fn access(&mut self, name: &str, values: &[Val<'a>]) -> Option<Outcome<'a>> {
        let (of, text) = match values {
            [Val::Access(of)] => (of, ""),
            [Val::Access(of), Val::Text(text)] => (of, text.as_str()),
            [Val::Access(of), Val::Text(namespace), Val::Text(name_of)]
                if (name, of.kind) == ("serviceAccount", AUTHORIZER) =>
            {
                return Some(Ok(of.account(namespace.as_str(), name_of.as_str())));
            }
            [Val::Decision(decision)] => {
                return Some(Ok(match name {
                    "allowed" => Val::Bool(decision.allowed),
                    "reason" => Val::text(decision.reason.as_str()),
                    "errored" => Val::Bool(!decision.error.is_empty()),
                    "error" => Val::text(decision.error.as_str()),
                    _ => return None,
                }));
            }
            _ => return None,
        };
        if let Err(limit) = self.write(of.length() + text.len()) {
            return Some(Err(limit));
        }
        let text = text.to_owned();
        Some(Ok(match (name, of.kind) {
            ("path", AUTHORIZER) if text.is_empty() => {
                return Some(fail("path must not be empty"));
            }
            ("path", AUTHORIZER) => of.with(PATH_CHECK, |asked| asked.path = text),
            ("group", AUTHORIZER) => of.with(GROUP_CHECK, |asked| asked.group = text),
            ("resource", GROUP_CHECK) if text.is_empty() => {
                return Some(fail("resource must not be empty"));
            }
            ("resource", GROUP_CHECK) => of.with(RESOURCE_CHECK, |asked| asked.resource = text),
            ("subresource", RESOURCE_CHECK) => {
                of.with(RESOURCE_CHECK, |asked| asked.subresource = text)
            }
            ("namespace", RESOURCE_CHECK) => {
                of.with(RESOURCE_CHECK, |asked| asked.namespace = text)
            }
            ("name", RESOURCE_CHECK) => of.with(RESOURCE_CHECK, |asked| asked.name = text),
            ("fieldSelector", RESOURCE_CHECK) => {
                of.with(RESOURCE_CHECK, |asked| asked.field_selector = text)
            }
            ("labelSelector", RESOURCE_CHECK) => {
                of.with(RESOURCE_CHECK, |asked| asked.label_selector = text)
            }
            ("check", PATH_CHECK | RESOURCE_CHECK) => {
                if let Err(limit) = self.charge(CHECK_COST) {
                    return Some(Err(limit));
                }
                let decision = of.authorizer.decide(&of.user, &text, &of.asked);
                Val::Decision(Arc::new(decision))
            }
            _ => return None,
        }))
    }
}
