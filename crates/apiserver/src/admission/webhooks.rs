//! Admission webhooks: servers outside that change or judge a request before it is carried out
//! (`k8s.io/apiserver/pkg/admission/plugin/webhook`).
//!
//! Flow: [`configuration`] compiles the configurations once per version and publishes them all as
//! one snapshot; a request looks its resource up there, and goes on at once when no rule names it.
//! Otherwise [`Asked`] says what is asked, [`mod@select`] decides which webhooks are called,
//! [`call`] calls one of them, and [`review`] is the document that goes there and comes back.
//! Mutating webhooks are called one after the other, validating ones at the same time; policies
//! ([`super::policies`]) come before the webhooks of their phase.

mod asked;
mod authorizer;
mod call;
pub mod configuration;
pub(super) mod forms;
mod review;
pub(super) mod select;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use api::{ApiError, KindRef};
use clock::{instant, monotonic};
use futures::future::join_all;
use serde_json::{Value, json};

use super::attributes::Attributes;
use super::policies::Policies;
use super::subject::{Subject, View};
use crate::core::Call;
use crate::request::Origin;
pub use asked::{Asked, Operation};
use call::{Failure, Outcome};
pub use configuration::Snapshots;
use configuration::{Hook, Phase};
use forms::Forms;
pub use select::is_exempt;
use select::{Invocation, Named};

/// What the first round of the mutating plugins leaves for a second one (`reinvocation.go`).
#[derive(Default)]
pub struct Rounds {
    /// A webhook or a policy has changed the object, so that the plugins run once more.
    pub repeats: bool,
    is_second: bool,
    webhooks: Reinvocation,
    policies: Reinvocation,
}

/// What one plugin calls again in the second round.
#[derive(Default)]
struct Reinvocation {
    /// What has been called and may be called again.
    called: HashSet<String>,
    /// What has to be.
    again: HashSet<String>,
    /// What the plugin has left.
    output: Option<Value>,
}

impl Reinvocation {
    /// Others have changed the object since the first round.
    fn begin(&mut self, is_second: bool, object: &Value) {
        if is_second && self.output.as_ref() != Some(object) {
            self.has_changed();
        }
    }

    fn has_changed(&mut self) {
        self.again.extend(self.called.drain());
    }
}

impl Rounds {
    /// Begins the second round.
    pub fn repeat(&mut self) {
        (self.is_second, self.repeats) = (true, false);
    }

    fn changed(&mut self) {
        self.repeats = !self.is_second;
    }

    pub fn begin_policies(&mut self, object: &Value) {
        self.policies.begin(self.is_second, object);
    }

    /// Whether a policy does not run in this round.
    pub fn skips_policy(&self, key: &str) -> bool {
        self.is_second && !self.policies.again.contains(key)
    }

    /// A policy has run that may run again.
    pub fn policy_called(&mut self, key: String) {
        self.policies.called.insert(key);
    }

    /// A policy has changed the object.
    pub fn policies_changed(&mut self) {
        self.policies.has_changed();
        self.changed();
    }

    pub fn end_policies(&mut self, object: Value) {
        self.policies.output = Some(object);
    }
}

impl Snapshots {
    /// Calls the mutating webhooks that are about a request.
    ///
    /// # Errors
    /// Those of the webhooks.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        subject: &mut dyn Subject,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        let named = self.named(Phase::Mutating, attributes);
        if named.is_empty() {
            return Ok(());
        }
        let (asked, old) = (attributes.asked(subject)?, attributes.before()?);
        self.mutate_by(&named, asked, subject, old, rounds).await
    }

    /// Calls the validating webhooks that are about a request.
    ///
    /// # Errors
    /// Those of the webhooks.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        view: &dyn View,
    ) -> Result<(), ApiError> {
        let named = self.named(Phase::Validating, attributes);
        if named.is_empty() {
            return Ok(());
        }
        let (asked, old) = (attributes.asked(view)?, attributes.before()?);
        self.validate_by(&named, asked, attributes.shown(view)?, old).await
    }

    /// Judges a request by the policies that are about it.
    ///
    /// # Errors
    /// What a policy denies it with.
    pub async fn judge(
        &self,
        attributes: &Attributes<'_>,
        view: &dyn View,
    ) -> Result<(), ApiError> {
        if !self.has_policies(attributes.call, Policies::any_validates) {
            return Ok(());
        }
        let (asked, old) = (attributes.asked(view)?, self.old_of_policies(attributes)?);
        self.policies.judge(asked, attributes.shown(view)?, old).await
    }

    /// Lets the policies that are about a request change its object.
    ///
    /// # Errors
    /// What a policy denies it with.
    pub async fn change_by_policies(
        &self,
        attributes: &Attributes<'_>,
        subject: &mut dyn Subject,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        if !self.has_policies(attributes.call, Policies::any_mutates) {
            return Ok(());
        }
        let (asked, old) = (attributes.asked(subject)?, self.old_of_policies(attributes)?);
        self.policies.mutate(asked, subject, old, rounds).await
    }

    /// The former state of an object; null if no policy reads it.
    fn old_of_policies<'a>(&self, attributes: &'a Attributes<'_>) -> Result<&'a Value, ApiError> {
        match self.policies.reads_old(&requested(attributes.call).plural) {
            true => attributes.before(),
            false => Ok(&Value::Null),
        }
    }

    /// Whether a policy may be about the request's resource.
    fn has_policies(&self, call: Call<'_>, any: impl Fn(&Policies, &str) -> bool) -> bool {
        let resource = requested(call);
        call.options.origin == Origin::Client
            && !select::has_no_policies(resource)
            && any(&self.policies, &resource.plural)
    }

    async fn mutate_by(
        &self,
        named: &[Named],
        asked: &Asked<'_>,
        subject: &mut dyn Subject,
        old: &Value,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        let mut new = subject.value()?;
        rounds.webhooks.begin(rounds.is_second, &new);
        let mut forms = Forms::default();
        for (index, Named { hook, equivalent }) in named.iter().enumerate() {
            let invocation = Invocation { hook, resource: equivalent };
            if rounds.is_second && !rounds.webhooks.again.contains(&hook.id) {
                continue;
            }
            if !select::selects(asked, invocation, &new, old, &mut forms).await? {
                continue;
            }
            let started = monotonic();
            let outcome = match forms.of(asked, invocation.resource, &new, old).await {
                Ok((shown, old)) => call::call(asked, invocation, shown, old).await,
                Err(error) => Err(Failure::Refused(error)),
            };
            let place = format!("round_{}_index_{index}", u8::from(rounds.is_second));
            let trail = &asked.call.options.trail;
            let changed = match outcome {
                Ok(Outcome { patch: Some(patch) }) => {
                    trail.annotate_with_object(&format!("{PATCH}{place}"), || {
                        let shown = json!({"configuration": hook.configuration(),
                            "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
                        shown.to_string()
                    });
                    self.change(asked, invocation, &patch, subject, &mut new, old, &mut forms).await
                }
                Ok(_) => Ok(false),
                Err(failure) => Err(failure),
            };
            observe(asked, hook, Phase::Mutating, started, changed.as_ref().err());
            if matches!(changed, Ok(true)) {
                rounds.webhooks.has_changed();
                rounds.changed();
            }
            if hook.reinvoked {
                rounds.webhooks.called.insert(hook.id.clone());
            }
            if trail.is_kept() {
                let mutated = matches!(changed, Ok(true));
                let value = json!({"configuration": hook.configuration(), "webhook": hook.name,
                    "mutated": mutated});
                trail.annotate(&format!("{MUTATION}{place}"), value.to_string());
            }
            if let Err(failure) = changed {
                settle(asked, hook, Phase::Mutating, &place, failure)?;
            }
        }
        rounds.webhooks.output = Some(new);
        Ok(())
    }

    /// Applies a patch; whether it changes anything.
    #[allow(clippy::too_many_arguments)]
    async fn change(
        &self,
        asked: &Asked<'_>,
        invocation: Invocation<'_>,
        patch: &[Value],
        subject: &mut dyn Subject,
        new: &mut Value,
        old: &Value,
        forms: &mut Forms,
    ) -> Result<bool, Failure> {
        if new.is_null() {
            return Err(Failure::Refused(ApiError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                invocation.hook.name
            ))));
        }
        let (shown, _) =
            forms.of(asked, invocation.resource, new, old).await.map_err(Failure::Refused)?;
        let patched = review::patched(shown, patch).map_err(Failure::Refused)?;
        if patched == *shown {
            return Ok(false);
        }
        let patched =
            forms.back(asked, invocation.resource, patched).await.map_err(Failure::Refused)?;
        subject.replace(patched).map_err(Failure::Refused)?;
        *new = subject.value().map_err(Failure::Refused)?;
        forms.clear();
        Ok(true)
    }

    async fn validate_by(
        &self,
        named: &[Named],
        asked: &Asked<'_>,
        new: &Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        let mut forms = Forms::default();
        let mut called = Vec::new();
        for Named { hook, equivalent } in named {
            let invocation = Invocation { hook, resource: equivalent };
            if select::selects(asked, invocation, new, old, &mut forms).await? {
                forms.of(asked, invocation.resource, new, old).await?;
                called.push(invocation);
            }
        }
        let forms = &forms;
        let calls = called.iter().enumerate().map(|(index, invocation)| async move {
            let started = monotonic();
            let (new, old) = forms.made(invocation.resource, new, old);
            let outcome = call::call(asked, *invocation, new, old).await;
            observe(asked, invocation.hook, Phase::Validating, started, outcome.as_ref().err());
            match outcome {
                Ok(_) => Ok(()),
                Err(failure) => {
                    let place = format!("round_0_index_{index}");
                    settle(asked, invocation.hook, Phase::Validating, &place, failure)
                }
            }
        });
        join_all(calls).await.into_iter().collect()
    }
}

/// The resource of a request, in the version that the client named.
fn requested<'a>(call: Call<'a>) -> &'a KindRef {
    call.options.requested.as_ref().unwrap_or(call.row())
}

/// Audit annotations about calls (upstream's).
const PATCH: &str = "patch.webhook.admission.k8s.io/";
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const VALIDATION: &str = "validating.webhook.admission.k8s.io/";

/// What becomes of the request after a webhook that has not admitted it.
fn settle(
    asked: &Asked<'_>,
    hook: &Arc<Hook>,
    phase: Phase,
    place: &str,
    failure: Failure,
) -> Result<(), ApiError> {
    let why = match failure {
        Failure::Denied(error) | Failure::Refused(error) => return Err(error),
        Failure::Calling { why, .. } => why,
    };
    if asked.call.options.due.is_some_and(|due| due <= instant()) {
        return Err(call::out_of_time());
    }
    if hook.ignores_failures {
        tracing::warn!(webhook = hook.name, why, "a webhook failed, and its policy is to go on");
        asked.call.core.metrics.webhooks.failed_open(&hook.name, phase.step());
        let key = match phase {
            Phase::Mutating => format!("failed-open.{MUTATION}{place}"),
            Phase::Validating => format!("failed-open.{VALIDATION}{place}"),
        };
        asked.call.options.trail.annotate(&key, hook.name.as_str());
        return Ok(());
    }
    tracing::debug!(webhook = hook.name, why, "a webhook failed");
    Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name)))
}

fn observe(
    asked: &Asked<'_>,
    hook: &Hook,
    phase: Phase,
    started: Instant,
    failure: Option<&Failure>,
) {
    let metrics = &asked.call.core.metrics.webhooks;
    let rejection = failure
        .filter(|failure| !(hook.ignores_failures && matches!(failure, Failure::Calling { .. })));
    let (name, step, operation) = (&hook.name, phase.step(), asked.operation.text());
    metrics.called(name, step, operation, rejection.is_some(), started.elapsed());
    if let Some(failure) = rejection {
        let (kind, code) = failure.kind();
        metrics.rejected(name, step, operation, kind, code);
    }
}
