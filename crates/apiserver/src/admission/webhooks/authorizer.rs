//! `authorizer` of expressions: the server's own authorizers.
//!
//! Expressions are evaluated at once, but who may do what can be for a webhook to say. What it has to
//! be asked is noted, and denied meanwhile; that evaluation counts for nothing, and another one
//! follows when the answers are here.

use std::collections::{BTreeMap, HashMap};

use api::cel;
use api::{fields, labels};
use parking_lot::Mutex;

use crate::authz::{Attributes, Question, Verdict, selected};
use crate::core::Core;
use crate::user::User;

/// Who, the verb, and what.
type Asked = (cel::User, String, cel::Asked);

/// The server's authorizers, asked for one request.
pub struct Authorizer<'a> {
    core: &'a Core,
    user: &'a User,
    /// What has been asked that takes time; `None`: it has not been answered.
    answers: Mutex<HashMap<Asked, Option<cel::Decision>>>,
}

impl<'a> Authorizer<'a> {
    pub fn new(core: &'a Core, user: &'a User) -> Self {
        Self { core, user, answers: Mutex::default() }
    }

    /// Waits for the answers to what has been asked. False: there was nothing to wait for.
    pub async fn answer(&self) -> bool {
        let open = |(asked, answer): (&Asked, &Option<_>)| answer.is_none().then(|| asked.clone());
        let open: Vec<Asked> = self.answers.lock().iter().filter_map(open).collect();
        for asked in &open {
            let put = Put::new(self.user, asked);
            let verdict = self.core.authorizers.decide(self.core, put.question()).await;
            self.answers.lock().insert(asked.clone(), Some(decision(verdict)));
        }
        !open.is_empty()
    }
}

impl cel::Authorizer for Authorizer<'_> {
    fn decide(&self, user: &cel::User, verb: &str, asked: &cel::Asked) -> cel::Decision {
        let asked = (user.clone(), verb.to_owned(), asked.clone());
        if let Some(Some(known)) = self.answers.lock().get(&asked) {
            return known.clone();
        }
        let put = Put::new(self.user, &asked);
        if let Some(verdict) = self.core.authorizers.decide_now(self.core, put.question()) {
            return decision(verdict);
        }
        self.answers.lock().insert(asked, None);
        let error = "the authorizer has not answered".to_owned();
        cel::Decision { error, ..cel::Decision::default() }
    }
}

fn decision(verdict: Verdict) -> cel::Decision {
    cel::Decision { allowed: verdict.is_allowed(), reason: verdict.reason, error: verdict.error }
}

/// A question in the server's terms.
struct Put {
    user: User,
    attributes: Attributes,
    selectors: Option<serde_json::Value>,
}

impl Put {
    /// `requester`: whose request it is.
    fn new(requester: &User, (user, verb, asked): &Asked) -> Self {
        let attributes = if asked.path.is_empty() {
            Attributes::Resource {
                verb: verb.clone(),
                group: asked.group.clone(),
                resource: asked.resource.clone(),
                subresource: asked.subresource.clone(),
                namespace: asked.namespace.clone(),
                name: asked.name.clone(),
            }
        } else {
            Attributes::Path { verb: verb.clone(), path: asked.path.clone() }
        };
        let is_own = user.name == requester.name;
        let user = User {
            name: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: if is_own { requester.extra.clone() } else { BTreeMap::new() },
        };
        let fields = fields::Selector::parse(&asked.field_selector).unwrap_or_default();
        let labels = labels::Selector::parse(&asked.label_selector).unwrap_or_default();
        Self { user, attributes, selectors: selected(&fields, &labels) }
    }

    fn question(&self) -> Question<'_> {
        let selectors = self.selectors.as_ref();
        Question { selectors, ..Question::new(&self.user, &self.attributes) }
    }
}
