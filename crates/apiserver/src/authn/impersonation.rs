//! Requests that are to be carried out as somebody else
//! (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).
//!
//! Whom somebody may be is asked in several ways, of which the first that is allowed counts. The
//! constrained ones ([KEP-5284](https://kep.k8s.io/5284)) also ask whether this very request may be made as
//! somebody else, and know the groups of nodes and of ServiceAccounts. The legacy way, by the verb
//! `impersonate`, is the last one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::{ApiError, names};

use crate::authz::{self, Attributes, Question};
use crate::configuration::aggregate;
use crate::core::Core;
use crate::kinds::at::At;
use crate::request::Request;
use crate::user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};

const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_PREFIX: &str = "system:node:";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// The node of the pod that a ServiceAccount's token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The names of a ServiceAccount's extra fields, without their values.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From so many groups or extra values on, the right to all of them is asked about first.
const MANY: usize = 4;

/// A way to be somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The node that a ServiceAccount's own pod is on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Everybody else.
    UserInfo,
    Legacy,
}

impl Mode {
    /// In the order in which they are tried.
    const ALL: [Self; 5] = [
        Self::AssociatedNode,
        Self::ArbitraryNode,
        Self::ServiceAccount,
        Self::UserInfo,
        Self::Legacy,
    ];

    /// Its name in verbs; `None`: it has none.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::AssociatedNode => Some("associated-node"),
            Self::ArbitraryNode => Some("arbitrary-node"),
            Self::ServiceAccount => Some("serviceaccount"),
            Self::UserInfo => Some("user-info"),
            Self::Legacy => None,
        }
    }

    fn applies(self, own: &User, wanted: &User) -> bool {
        let only_name =
            wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (as_node, as_account) = (node(&wanted.name), account(&wanted.name));
        match self {
            Self::AssociatedNode => {
                let of_own = own.extra.get(NODE_NAME).map(Vec::as_slice);
                let is_own = as_node.is_some_and(|node| of_own == Some(&[node.to_owned()]));
                only_name && is_own && account(&own.name).is_some()
            }
            Self::ArbitraryNode => only_name && as_node.is_some(),
            Self::ServiceAccount => only_name && as_account.is_some(),
            Self::UserInfo => as_node.is_none() && as_account.is_none(),
            Self::Legacy => true,
        }
    }
}

/// The name of a node's user.
fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| names::dns_subdomain(name).is_empty())
}

/// Namespace and name of a ServiceAccount's user.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    let valid = names::dns_label(namespace).is_empty() && names::dns_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

/// Somebody else, and the verb that constrains what may be done as them; empty: none does.
#[derive(Debug)]
pub struct Impersonated {
    pub user: User,
    pub constraint: String,
}

/// The user whom a request is to be carried out as.
///
/// # Errors
/// 403 if that is not allowed in any way: what the first way lacks.
pub async fn impersonated(
    core: &Core,
    request: &Request,
    wanted: &User,
) -> Result<Impersonated, ApiError> {
    let own = &*request.user;
    let mut first = None;
    for mode in Mode::ALL.into_iter().filter(|mode| mode.applies(own, wanted)) {
        match Attempt::new(core, own, mode).check(request, wanted).await {
            Ok(user) => {
                let constraint = mode.name().map(|name| format!("impersonate:{name}"));
                return Ok(Impersonated { user, constraint: constraint.unwrap_or_default() });
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    // The legacy mode always applies.
    Err(first.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

/// The question whether a mode allows it.
struct Attempt<'a> {
    core: &'a Core,
    own: Cow<'a, User>,
    mode: Mode,
    verb: String,
}

impl<'a> Attempt<'a> {
    fn new(core: &'a Core, own: &'a User, mode: Mode) -> Self {
        let own = match mode {
            // The same question for all pods of an account, whichever node they are on.
            Mode::AssociatedNode => {
                let keys = own.extra.keys().cloned().collect();
                let extra = BTreeMap::from([(NODE_KEYS.to_owned(), keys)]);
                Cow::Owned(User { extra, ..own.clone() })
            }
            _ => Cow::Borrowed(own),
        };
        let verb = mode.name().map(|name| format!("impersonate:{name}"));
        Self { core, own, mode, verb: verb.unwrap_or_else(|| "impersonate".to_owned()) }
    }

    async fn check(&self, request: &Request, wanted: &User) -> Result<User, ApiError> {
        if let Some(mode) = self.mode.name() {
            authz::authorize_impersonating(self.core, request, &self.own, mode).await?;
        }
        let mut user = wanted.clone();
        user.groups.extend(self.name(wanted).await?);
        if !wanted.uid.is_empty() {
            self.ask(&self.of(AUTHENTICATION, "uids", &wanted.uid)).await?;
        }
        self.groups(&wanted.groups).await?;
        self.extra(&wanted.extra).await?;
        let in_group = |group: &str| user.groups.iter().any(|own| own == group);
        let group = match user.name.as_str() {
            ANONYMOUS => UNAUTHENTICATED,
            _ => AUTHENTICATED,
        };
        if !in_group(group) && !in_group(UNAUTHENTICATED) {
            user.groups.push(group.to_owned());
        }
        Ok(user)
    }

    fn is_constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    /// The right to have a name; the groups that come with it.
    async fn name(&self, wanted: &User) -> Result<Vec<String>, ApiError> {
        let group = if self.is_constrained() { AUTHENTICATION } else { "" };
        let (node, account) = (node(&wanted.name), account(&wanted.name));
        if let Some(name) = node.filter(|_| self.is_constrained()) {
            let name = if self.mode == Mode::AssociatedNode { "*" } else { name };
            self.ask(&self.of(group, "nodes", name)).await?;
            return Ok(vec!["system:nodes".to_owned()]);
        }
        let Some((namespace, name)) = account else {
            self.ask(&self.of(group, "users", &wanted.name)).await?;
            return Ok(Vec::new());
        };
        let mut attributes = self.of(group, "serviceaccounts", name);
        if let Attributes::Resource { namespace: of, .. } = &mut attributes {
            namespace.clone_into(of);
        }
        self.ask(&attributes).await?;
        let groups =
            ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        // Those in the request are all, if there are any.
        Ok(groups.into_iter().filter(|_| wanted.groups.is_empty()).collect())
    }

    async fn groups(&self, groups: &[String]) -> Result<(), ApiError> {
        let of = |name: &str| {
            let group = if self.is_constrained() { AUTHENTICATION } else { "" };
            self.of(group, "groups", name)
        };
        if self.is_constrained() {
            if groups.iter().any(String::is_empty) {
                let problem = "impersonating the empty string group is not allowed";
                return Err(of("").refused(&self.own, problem));
            }
            if groups.iter().any(|group| group == MASTERS) {
                let problem = "impersonating the system:masters group is not allowed";
                return Err(of(MASTERS).refused(&self.own, problem));
            }
            if groups.len() >= MANY && self.ask(&of("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.ask(&of(group)).await?;
        }
        Ok(())
    }

    async fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), ApiError> {
        let of = |key: &str, value: &str| {
            let mut attributes = self.of(AUTHENTICATION, "userextras", value);
            if let Attributes::Resource { subresource, .. } = &mut attributes {
                key.clone_into(subresource);
            }
            attributes
        };
        if self.is_constrained() && !extra.is_empty() {
            if let Some(problem) = extra.iter().find_map(|(key, values)| unusable(key, values)) {
                return Err(of("", "").refused(&self.own, &problem));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if count.max(extra.len()) >= MANY && self.ask(&of("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.ask(&of(key, value)).await?;
            }
        }
        Ok(())
    }

    fn of(&self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes::Resource {
            verb: self.verb.clone(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: name.to_owned(),
        }
    }

    async fn ask(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let question = Question { version: "v1", ..Question::new(&self.own, attributes) };
        self.core.authorizers.authorize(self.core, question).await
    }
}

/// Why an extra field cannot be that of somebody else in a constrained mode.
fn unusable(key: &str, values: &[String]) -> Option<String> {
    let of = |what: &str| Some(format!("impersonating {what} in extra is not allowed"));
    if key.is_empty() {
        return of("the empty string key");
    }
    let wrong = At::object(|at| at.child("extra.key").domain_prefixed_path(key));
    if let Some(problems) = aggregate(&wrong) {
        return Some(format!("impersonating an invalid key in extra is not allowed: {problems}"));
    }
    if key != key.to_lowercase() {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    if values.is_empty() {
        return of("empty values");
    }
    if values.iter().any(String::is_empty) { of("the empty string value") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_for_those_whom_they_name() {
        use Mode::{ArbitraryNode, AssociatedNode, Legacy, ServiceAccount, UserInfo};
        let agent = User {
            name: "system:serviceaccount:default:agent".to_owned(),
            extra: BTreeMap::from([(NODE_NAME.to_owned(), vec!["n1".to_owned()])]),
            ..User::default()
        };
        let person = User { name: "bob".to_owned(), ..agent.clone() };
        let named = |name: &str| User { name: name.to_owned(), ..User::default() };
        let grouped = |name: &str| User { groups: vec!["g".to_owned()], ..named(name) };
        let table: &[(&User, User, &[Mode])] = &[
            (&agent, named("system:node:n1"), &[AssociatedNode, ArbitraryNode, Legacy]),
            (&agent, named("system:node:n2"), &[ArbitraryNode, Legacy]),
            (&person, named("system:node:n1"), &[ArbitraryNode, Legacy]),
            (&agent, grouped("system:node:n1"), &[Legacy]),
            (&agent, named("system:node:N_1"), &[UserInfo, Legacy]),
            (&agent, named("system:serviceaccount:a:b"), &[ServiceAccount, Legacy]),
            (&agent, grouped("system:serviceaccount:a:b"), &[Legacy]),
            (&agent, named("system:serviceaccount:a:b:c"), &[UserInfo, Legacy]),
            (&agent, named("system:serviceaccount:A:b"), &[UserInfo, Legacy]),
            (&agent, grouped("ann"), &[UserInfo, Legacy]),
        ];
        for (own, wanted, expected) in table {
            let found: Vec<_> =
                Mode::ALL.into_iter().filter(|mode| mode.applies(own, wanted)).collect();
            assert_eq!(found, *expected, "{} as {}", own.name, wanted.name);
        }
    }

    #[test]
    fn extra_fields_are_checked_in_constrained_modes() {
        let one = ["v".to_owned()];
        let table: &[(&str, &[String], Option<&str>)] = &[
            ("example.com/a", &one, None),
            ("", &one, Some("impersonating the empty string key in extra is not allowed")),
            (
                "a",
                &one,
                Some(
                    "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: \"a\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ),
            ),
            (
                "example.com/A",
                &one,
                Some(
                    "impersonating a non-lowercase key in extra is not allowed: \"example.com/A\"",
                ),
            ),
            ("example.com/a", &[], Some("impersonating empty values in extra is not allowed")),
            (
                "example.com/a",
                &[String::new()],
                Some("impersonating the empty string value in extra is not allowed"),
            ),
        ];
        for (key, values, problem) in table {
            assert_eq!(unusable(key, values).as_deref(), *problem, "{key} {values:?}");
        }
    }
}
