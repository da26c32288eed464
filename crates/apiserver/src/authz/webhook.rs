//! An authorizer outside: it is sent a SubjectAccessReview, and its answer counts for a while
//! (`k8s.io/apiserver/plugin/pkg/authorizer/webhook`).

use std::time::Duration;

use api::cel::{Binding, Expression, MATCH_BUDGET, Session};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::Attributes;
use super::chain::{Decision, Question, Verdict};
use crate::authn::Client;

/// Calls at once; more wait as long as one may take.
const CALLS: usize = 64;
/// Answers that are remembered, of questions up to this size in bytes.
const REMEMBERED: u64 = 10_000;
const REMEMBERED_BYTES: usize = 10_000;

/// A webhook and how it is used.
pub struct AuthorizationWebhook {
    pub name: String,
    pub client: Client,
    pub version: String,
    pub timeout: Duration,
    /// What is decided when it fails.
    pub failure: Decision,
    pub conditions: Vec<Result<Expression, String>>,
    pub allowed: Answers,
    pub others: Answers,
    pub calls: Semaphore,
}

/// Answers by the digest of the question.
pub type Answers = moka::sync::Cache<[u8; 32], Verdict>;

impl AuthorizationWebhook {
    /// Room for answers that count so long.
    pub fn answers(life: Duration) -> Answers {
        moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build()
    }

    pub fn calls() -> Semaphore {
        Semaphore::new(CALLS)
    }

    /// Asks the webhook, if it is to be asked about this.
    pub async fn decide(&self, question: Question<'_>) -> Verdict {
        let spec = spec(question);
        match self.is_asked(&spec) {
            Ok(true) => {}
            Ok(false) => return Verdict::new(Decision::NoOpinion, ""),
            Err(error) => return self.failed(error),
        }
        let text = spec.to_string();
        let key = digest(&text);
        if let Some(known) = self.remembered(&key) {
            return known;
        }
        let waited = tokio::time::timeout(self.timeout, self.calls.acquire()).await;
        let Ok(Ok(_call)) = waited else {
            return self.failed("too many requests wait for the webhook".to_owned());
        };
        if let Some(known) = self.remembered(&key) {
            return known;
        }
        let answer = self.review(spec).await.and_then(|status| verdict(&status));
        match answer {
            Ok(verdict) => {
                let answers = if verdict.is_allowed() { &self.allowed } else { &self.others };
                if text.len() <= REMEMBERED_BYTES {
                    answers.insert(key, verdict.clone());
                }
                verdict
            }
            Err(error) => self.failed(error),
        }
    }

    /// What the webhook has said about this already; `None`: it has to be asked.
    pub fn known(&self, question: Question<'_>) -> Option<Verdict> {
        let spec = spec(question);
        match self.is_asked(&spec) {
            Ok(true) => self.remembered(&digest(&spec.to_string())),
            Ok(false) => Some(Verdict::new(Decision::NoOpinion, "")),
            Err(error) => Some(self.failed(error)),
        }
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Verdict> {
        self.allowed.get(key).or_else(|| self.others.get(key))
    }

    fn failed(&self, error: String) -> Verdict {
        tracing::warn!(webhook = self.name, error, "an authorizer failed");
        Verdict { decision: self.failure, reason: String::new(), error }
    }

    /// Whether the conditions hold for a question.
    fn is_asked(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let variables = [("request", Binding::Json(spec))];
        Session::new(&variables, &[], MATCH_BUDGET).all(self.conditions.iter())
    }

    /// The status that the webhook gives a review.
    async fn review(&self, spec: Value) -> Result<Value, String> {
        let version = format!("authorization.k8s.io/{}", self.version);
        let mut spec = spec;
        if self.version == "v1beta1"
            && let Some(groups) = spec.as_object_mut().and_then(|spec| spec.remove("groups"))
        {
            spec["group"] = groups;
        }
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": version,
            "metadata": {"creationTimestamp": null}, "spec": spec,
            "status": {"allowed": false}});
        let answer = self.client.ask(review.to_string().into(), self.timeout).await?;
        let no_review =
            || "the webhook's answer is no SubjectAccessReview of that version".to_owned();
        let mut answer: Value = serde_json::from_slice(&answer).map_err(|_| no_review())?;
        if answer["kind"] != "SubjectAccessReview" || answer["apiVersion"] != *version {
            return Err(no_review());
        }
        Ok(answer["status"].take())
    }
}

/// What a status decides.
fn verdict(status: &Value) -> Result<Verdict, String> {
    let flag = |name: &str| match &status[name] {
        Value::Bool(flag) => Ok(*flag),
        Value::Null => Ok(false),
        _ => Err(format!("the webhook's {name:?} is no truth value")),
    };
    let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
    let decision = match (flag("allowed")?, flag("denied")?) {
        (true, true) => {
            return Err(
                "webhook subject access review returned both allow and deny response".to_owned()
            );
        }
        (false, true) => Decision::Deny,
        (true, false) => Decision::Allow,
        (false, false) => Decision::NoOpinion,
    };
    Ok(Verdict { decision, reason: text("reason"), error: text("evaluationError") })
}

/// The spec of a SubjectAccessReview.
fn spec(question: Question<'_>) -> Value {
    let user = question.user;
    let mut spec = json!({"user": user.name});
    match question.attributes {
        Attributes::Path { verb, path } => {
            spec["nonResourceAttributes"] = json!({"path": path, "verb": verb});
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
            let mut asked = serde_json::Map::new();
            for (key, value) in [
                ("namespace", namespace.as_str()),
                ("verb", verb),
                ("group", group),
                ("version", question.version),
                ("resource", resource),
                ("subresource", subresource),
                ("name", name),
            ] {
                if !value.is_empty() {
                    asked.insert(key.to_owned(), value.into());
                }
            }
            if let Some(Value::Object(selectors)) = question.selectors {
                asked.extend(selectors.clone());
            }
            spec["resourceAttributes"] = Value::Object(asked);
        }
    }
    if !user.groups.is_empty() {
        spec["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if !user.uid.is_empty() {
        spec["uid"] = json!(user.uid);
    }
    spec
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
