//! Who decides whether a request is allowed: authorizers in the order of `--authorization-config` or
//! `--authorization-mode`. The first one that allows or denies decides; when all have no opinion, nothing is allowed.
//!
//! `system:masters` may do everything before any of them is asked, as upstream.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{ApiError, fields, labels};
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::abac::Policies;
use super::configuration;
use super::webhook::AuthorizationWebhook;
use super::{Attributes, AuthorizationMetrics, node};
use crate::config::Config;
use crate::configuration::{Unusable, follow, read};
use crate::core::Core;
use crate::request::{Request, Subject, Verb};
use crate::user::{MASTERS, User};

/// One authorizer.
pub enum Authorizer {
    Node,
    Rbac,
    Webhook(Arc<AuthorizationWebhook>),
    Abac(Policies),
    AlwaysAllow,
    AlwaysDeny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
    NoOpinion,
}

/// A decision and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
    /// What went wrong while deciding.
    pub error: String,
}

impl Verdict {
    pub fn new(decision: Decision, reason: impl Into<String>) -> Self {
        Self { decision, reason: reason.into(), error: String::new() }
    }

    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allow
    }

    /// # Errors
    /// 403 if it is not allowed.
    pub fn permit(&self, user: &User, attributes: &Attributes) -> Result<(), ApiError> {
        if self.is_allowed() {
            return Ok(());
        }
        if !self.error.is_empty() {
            tracing::warn!(error = self.error, "an authorizer failed");
        }
        Err(attributes.refused(user, &self.reason))
    }
}

/// What is asked about: somebody and something, and what only some authorizers look at.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub user: &'a User,
    pub attributes: &'a Attributes,
    /// The version of the resource; `*` where it is of no matter.
    pub version: &'a str,
    /// `fieldSelector` and `labelSelector` of a SubjectAccessReview.
    pub selectors: Option<&'a Value>,
    /// A kubelet's own pods, by its selector.
    pub selects_own: bool,
}

impl<'a> Question<'a> {
    pub fn new(user: &'a User, attributes: &'a Attributes) -> Self {
        Self { user, attributes, version: "*", selectors: None, selects_own: false }
    }
}

/// An authorizer by its name in the configuration.
pub struct Link {
    pub name: String,
    pub authorizer: Authorizer,
}

/// The authorizers in their order.
pub struct Authorizers {
    chain: ArcSwap<Vec<Link>>,
    /// The file of the ABAC authorizer that a configuration may name.
    policies: Option<PathBuf>,
    metrics: AuthorizationMetrics,
}

impl Authorizers {
    /// Reads the configuration, and follows its file until `shutdown`.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn start(
        config: &Config,
        metrics: AuthorizationMetrics,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, Unusable> {
        let flags = &config.authorization;
        let Some(path) = flags.authorization_config.clone() else {
            let chain = ArcSwap::from_pointee(configuration::of_flags(flags)?);
            return Ok(Arc::new(Self { chain, policies: None, metrics }));
        };
        if flags.is_set() {
            let problem = "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined";
            return Err(Unusable(problem.to_owned()));
        }
        let text = read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let policies = flags.authorization_policy_file.clone();
        let chain = configuration::parse(&text, policies.as_deref())?;
        let own = Arc::new(Self { chain: ArcSwap::from_pointee(chain), policies, metrics });
        let (itself, shown) = (own.clone(), path.clone());
        tokio::spawn(follow(path, text, shutdown.clone(), async move |text| {
            itself.reload(&shown, text);
        }));
        Ok(own)
    }

    fn reload(&self, path: &Path, text: std::io::Result<String>) {
        let text = text.map_err(|error| Unusable(error.to_string()));
        match text.and_then(|text| configuration::parse(&text, self.policies.as_deref())) {
            Ok(chain) => {
                self.chain.store(Arc::new(chain));
                self.metrics.reloaded(true);
                tracing::info!(path = %path.display(), "the configuration of authorization is used");
            }
            Err(error) => {
                self.metrics.reloaded(false);
                tracing::error!(%error, path = %path.display(), "the former configuration of authorization is kept");
            }
        }
    }

    /// Whether some of the rights that somebody has are not known here.
    pub fn asks_others(&self) -> bool {
        self.chain.load().iter().any(|one| matches!(one.authorizer, Authorizer::Webhook(_)))
    }

    /// Decides, asking others if need be.
    pub async fn decide(&self, core: &Core, question: Question<'_>) -> Verdict {
        let chain = self.chain.load_full();
        let mut opinions = Opinions::default();
        if question.user.in_group(MASTERS) {
            return Verdict::new(Decision::Allow, "");
        }
        for Link { name, authorizer } in chain.iter() {
            let verdict = match authorizer {
                Authorizer::Webhook(webhook) => webhook.decide(question).await,
                own => own.decide_here(core, question),
            };
            if let Some(verdict) = opinions.add(verdict) {
                self.metrics.decided(authorizer.kind(), name, verdict.is_allowed());
                return verdict;
            }
        }
        opinions.none()
    }

    /// Decides at once. `None`: a webhook has to be asked that has not answered the same question
    /// before.
    pub fn decide_now(&self, core: &Core, question: Question<'_>) -> Option<Verdict> {
        let chain = self.chain.load();
        let mut opinions = Opinions::default();
        if question.user.in_group(MASTERS) {
            return Some(Verdict::new(Decision::Allow, ""));
        }
        for Link { name, authorizer } in chain.iter() {
            let verdict = match authorizer {
                Authorizer::Webhook(webhook) => webhook.known(question)?,
                own => own.decide_here(core, question),
            };
            if let Some(verdict) = opinions.add(verdict) {
                self.metrics.decided(authorizer.kind(), name, verdict.is_allowed());
                return Some(verdict);
            }
        }
        Some(opinions.none())
    }

    /// # Errors
    /// 403 if it is not allowed.
    pub async fn authorize(&self, core: &Core, question: Question<'_>) -> Result<(), ApiError> {
        self.decide(core, question).await.permit(question.user, question.attributes)
    }

    /// Whether somebody may do something.
    pub async fn allows(&self, core: &Core, user: &User, attributes: &Attributes) -> bool {
        self.decide(core, Question::new(user, attributes)).await.is_allowed()
    }
}

impl Authorizer {
    fn kind(&self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Rbac => "RBAC",
            Self::Webhook(_) => "Webhook",
            Self::Abac(_) => "ABAC",
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
        }
    }

    /// The decision of one that asks nobody.
    fn decide_here(&self, core: &Core, question: Question<'_>) -> Verdict {
        let Question { user, attributes, .. } = question;
        match self {
            Self::Node if question.selects_own => Verdict::new(Decision::Allow, ""),
            Self::Node => node::decide(&core.cache, user, attributes),
            Self::Rbac => match core.rbac.reason(&core.cache, user, attributes) {
                Some(reason) => Verdict::new(Decision::Allow, reason),
                None => Verdict::new(Decision::NoOpinion, ""),
            },
            Self::Abac(policies) if policies.allow(user, attributes) => {
                Verdict::new(Decision::Allow, "")
            }
            Self::Abac(_) => Verdict::new(Decision::NoOpinion, "No policy matched."),
            Self::AlwaysAllow => Verdict::new(Decision::Allow, ""),
            Self::AlwaysDeny => Verdict::new(Decision::NoOpinion, "Everything is forbidden."),
            Self::Webhook(_) => Verdict::new(Decision::NoOpinion, ""),
        }
    }
}

/// What those have said who leave the decision to the next one.
#[derive(Default)]
struct Opinions {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Opinions {
    /// The verdict, if it decides.
    fn add(&mut self, verdict: Verdict) -> Option<Verdict> {
        if verdict.decision != Decision::NoOpinion {
            return Some(verdict);
        }
        self.reasons.extend(Some(verdict.reason).filter(|reason| !reason.is_empty()));
        self.errors.extend(Some(verdict.error).filter(|error| !error.is_empty()));
        None
    }

    fn none(self) -> Verdict {
        Verdict {
            decision: Decision::NoOpinion,
            reason: self.reasons.join("\n"),
            error: self.errors.join(", "),
        }
    }
}

/// What a request selects, as a SubjectAccessReview says it; `None`: everything, or it is no selection.
pub fn selectors(request: &Request) -> Option<Value> {
    let Subject::Resource { verb: Verb::List | Verb::Watch | Verb::DeleteCollection, .. } =
        &request.subject
    else {
        return None;
    };
    selected(&request.options.fields, &request.options.labels)
}

/// Selectors, as a SubjectAccessReview says them; `None`: everything.
pub fn selected(fields: &fields::Selector, labels: &labels::Selector) -> Option<Value> {
    let fields = fields.0.iter().map(|one| {
        let operator = if one.equal { "In" } else { "NotIn" };
        json!({"key": one.field, "operator": operator, "values": [one.value]})
    });
    let labels = labels.requirements().iter().filter_map(|one| {
        use labels::Requirement::{Exists, In, NotExists, NotIn};
        Some(match one {
            Exists(key) => json!({"key": key, "operator": "Exists"}),
            NotExists(key) => json!({"key": key, "operator": "DoesNotExist"}),
            In(key, values) => json!({"key": key, "operator": "In", "values": values}),
            NotIn(key, values) => json!({"key": key, "operator": "NotIn", "values": values}),
            // A SubjectAccessReview cannot say it; it asks about more then.
            _ => return None,
        })
    });
    let (fields, labels): (Vec<Value>, Vec<Value>) = (fields.collect(), labels.collect());
    let mut selected = serde_json::Map::new();
    for (name, requirements) in [("fieldSelector", fields), ("labelSelector", labels)] {
        if !requirements.is_empty() {
            selected.insert(name.to_owned(), json!({"requirements": requirements}));
        }
    }
    (!selected.is_empty()).then_some(Value::Object(selected))
}
