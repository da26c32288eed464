//! An authorizer outside: it is sent a SubjectAccessReview, and its answer counts for a while
//! (`k8s.io/apiserver/plugin/pkg/authorizer/webhook`).

use std::sync::Arc;
use std::time::Duration;

use api::cel::{Binding, Expression, MATCH_BUDGET, Session};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit as Permit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Attributes;
use super::chain::{Decision, Question, Verdict};
use crate::authn::Client;

/// Calls at once, and of these for one user; more wait as long as one may take.
const CALLS: usize = 64;
const CALLS_SHARE: usize = 16;
/// Users whose calls are counted, and for how long after the last.
const USERS: u64 = 10_000;
const USER_IDLE: Duration = Duration::from_secs(60);
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
    pub calls: Calls,
}

/// The calls of a webhook that are in progress.
pub struct Calls {
    all: Semaphore,
    of_user: moka::sync::Cache<String, Arc<Semaphore>>,
    /// When the webhook has last answered.
    answered: Mutex<Option<Instant>>,
}

impl Default for Calls {
    fn default() -> Self {
        let users = moka::sync::Cache::builder().max_capacity(USERS).time_to_idle(USER_IDLE);
        Self { all: Semaphore::new(CALLS), of_user: users.build(), answered: Mutex::default() }
    }
}

impl Calls {
    /// A call for a user, who has no more than a share of them; `None`: not in time.
    async fn begin(&self, user: &str, timeout: Duration) -> Option<(Permit, SemaphorePermit<'_>)> {
        let own = self.of_user.get_with_by_ref(user, || Arc::new(Semaphore::new(CALLS_SHARE)));
        let waiting =
            async { Some((own.acquire_owned().await.ok()?, self.all.acquire().await.ok()?)) };
        tokio::time::timeout(timeout, waiting).await.ok()?
    }

    fn answered(&self) {
        *self.answered.lock() = Some(clock::instant());
    }

    /// Whether the webhook answers others: then whoever gets no call is kept waiting by the number of
    /// calls, and not by the webhook.
    fn is_answering(&self, timeout: Duration) -> bool {
        self.answered.lock().is_some_and(|answered| answered.elapsed() <= timeout)
    }
}

/// Answers by the digest of the question.
pub type Answers = moka::sync::Cache<[u8; 32], Verdict>;

impl AuthorizationWebhook {
    /// Room for answers that count so long.
    pub fn answers(life: Duration) -> Answers {
        moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build()
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
        let Some(_call) = self.calls.begin(&question.user.name, self.timeout).await else {
            let why = "too many requests wait for the webhook";
            // Nobody gets past it by asking more than it can answer.
            return match self.calls.is_answering(self.timeout) {
                true => Verdict::new(Decision::Deny, why),
                false => self.failed(why.to_owned()),
            };
        };
        if let Some(known) = self.remembered(&key) {
            return known;
        }
        let answer = self.review(spec).await.and_then(|status| verdict(&status));
        match answer {
            Ok(verdict) => {
                self.calls.answered();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One user's questions leave places for others', and whoever gets none does not get past a webhook
    /// that answers.
    #[tokio::test(start_paused = true)]
    async fn calls_are_shared() {
        let (calls, timeout) = (Calls::default(), Duration::from_secs(3));
        let begin = |user: &'static str| calls.begin(user, timeout);
        let mut held = Vec::new();
        for user in ["a", "b", "c"] {
            for _ in 0..CALLS_SHARE {
                held.push(begin(user).await.unwrap());
            }
            assert!(begin(user).await.is_none(), "{user}");
        }
        let free = CALLS - held.len();
        for _ in 0..free {
            held.push(begin("d").await.unwrap());
        }
        assert!(begin("e").await.is_none());
        assert!(!calls.is_answering(timeout));
        calls.answered();
        held.truncate(CALLS - 1);
        assert!(calls.is_answering(timeout) && begin("e").await.is_some());
        tokio::time::sleep(timeout * 2).await;
        assert!(!calls.is_answering(timeout));
        drop(held);
        assert!(begin("a").await.is_some());
    }
}
