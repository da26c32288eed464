//! Admission: plugins that may change an object before it is validated, refuse a request, or warn.
//!
//! Flow: [`plugins`] is the one table of them, in Kubernetes' order; a row says what a plugin
//! handles and has its steps ([`plugin`]). A request, described by its [`attributes`], passes the
//! mutating steps of all enabled plugins, and later, complete and valid, the validating ones. The
//! plugins of administrators ([`webhooks`], [`policies`]) are rows too, and the last one, [`quota`],
//! charges what the others have admitted. [`flags`] decide which plugins are enabled,
//! [`configuration`] reads what some of them are told by a file.
//!
//! What the storage of a kind checks by itself upstream is checked here as well, whichever plugins
//! are enabled: RBAC's escalation checks, the right to read the parameters of a policy, who answers for a signer, and which
//! objects of the system cannot be deleted.

mod always;
mod attributes;
mod certificates;
mod claim_resize;
pub mod configuration;
mod defaults;
mod devices;
mod durations;
mod event_rate;
mod external_ips;
pub mod flags;
mod images;
pub mod lifecycle;
mod limits;
mod namespaces;
mod node;
mod node_selector;
mod owners;
mod plugin;
mod plugins;
mod pod_resize;
pub mod pod_security;
pub mod policies;
mod priority;
mod quota;
mod readiness;
mod runtime_class;
mod service_account;
mod subject;
mod toleration_restriction;
mod topology;
pub mod webhooks;

use api::object::Object;
use api::{ApiError, Kind};
use clock::monotonic;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;

use crate::authz;
use crate::core::Call;
use crate::request::Verb;

use attributes::Attributes;
use configuration::Settings;
pub use durations::AdmissionMetrics;
use durations::Phase;
pub use flags::AdmissionFlags;
pub use plugin::Admitted;
use plugin::Plugin;
use quota::Quotas;
pub use subject::Before;
use subject::{Complete, Fixed, Subject, Typed, View, Written};
use webhooks::Rounds;

/// The chain of plugins.
pub struct Admission {
    /// Those that are enabled, in their order.
    enabled: Vec<&'static Plugin>,
    settings: Settings,
    pub webhooks: webhooks::Snapshots,
    quotas: Quotas,
}

impl Admission {
    /// The chain that flags and their file ask for.
    ///
    /// # Errors
    /// When a flag or the file cannot be used.
    pub fn start(flags: &AdmissionFlags) -> anyhow::Result<Self> {
        let enabled = flags.enabled()?;
        let settings = Settings::load(flags, &enabled)?;
        let names = |has: fn(&Plugin) -> bool| {
            let names = enabled.iter().filter(|plugin| has(plugin)).map(|plugin| plugin.name);
            names.collect::<Vec<_>>().join(",")
        };
        tracing::info!(
            mutating = names(Plugin::is_mutating),
            validating = names(Plugin::is_validating),
            "admission plugins in their order"
        );
        let (webhooks, quotas) = (webhooks::Snapshots::default(), Quotas::default());
        Ok(Self { enabled, settings, webhooks, quotas })
    }

    /// Whether a plugin is enabled.
    pub fn has(&self, name: &str) -> bool {
        self.enabled.iter().any(|plugin| plugin.name == name)
    }

    /// Runs the mutating steps on an object that is written. `old`: the current object, on updates.
    ///
    /// # Errors
    /// Those of the plugins.
    pub async fn mutate(
        &self,
        call: Call<'_>,
        object: &mut Box<dyn Object>,
        old: Option<Before<'_>>,
    ) -> Result<(), ApiError> {
        let attributes = Attributes::of_write(call, old);
        let revision = old.map(|old| old.revision);
        self.run_mutating(&attributes, &mut Written::new(call, object, revision)).await
    }

    /// Runs the validating steps on a complete object, whose quotas it charges.
    ///
    /// # Errors
    /// Those of the plugins.
    pub async fn validate(
        &self,
        call: Call<'_>,
        object: &dyn Object,
        old: Option<Before<'_>>,
    ) -> Result<Admitted, ApiError> {
        let attributes = Attributes::of_write(call, old);
        let old_object = attributes.old_object();
        authz::check_escalation(call, object, old_object).await?;
        policies::authorize::check(call, object, old_object).await?;
        certificates::check_answer(call, object, old_object).await?;
        devices::check_admin_access(call, object, old_object).await?;
        let revision = old.map(|old| old.revision);
        self.run_validating(&attributes, &Complete { call, object, revision }).await
    }

    /// Runs all steps on a deletion.
    ///
    /// # Errors
    /// Those of the plugins, and 403 for what the system needs.
    pub async fn delete(
        &self,
        call: Call<'_>,
        old: Before<'_>,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        priority::check_delete(call, old.object)?;
        // An eviction has been admitted as what it is.
        if !matches!(call.verb, Verb::Delete | Verb::DeleteCollection) {
            return Ok(());
        }
        let attributes = Attributes::of_deletion(call, old, options);
        self.run(&attributes, &mut Fixed(Value::Null)).await
    }

    /// Runs all steps on a connection, whose options are an object of `kind`; the options
    /// afterwards.
    ///
    /// # Errors
    /// Those of the plugins.
    pub async fn connect(
        &self,
        call: Call<'_>,
        kind: &'static str,
        options: Value,
    ) -> Result<Value, ApiError> {
        let mut subject = Fixed(options);
        self.run(&Attributes::of_connection(call, kind), &mut subject).await?;
        subject.value()
    }

    /// Runs all steps on an object that is created at a subresource, or never stored.
    ///
    /// # Errors
    /// Those of the plugins.
    pub async fn create<K: Kind>(&self, call: Call<'_>, object: &mut K) -> Result<(), ApiError> {
        let own = Object::metadata(object).name.clone().unwrap_or_default();
        let name = if call.target.name.is_empty() { own } else { call.target.name.clone() };
        self.run(&Attributes::of_creation(call, K::ROW, name), &mut Typed(object)).await
    }

    async fn run(
        &self,
        attributes: &Attributes<'_>,
        subject: &mut dyn Subject,
    ) -> Result<(), ApiError> {
        self.run_mutating(attributes, subject).await?;
        // No quota counts what is not stored.
        self.run_validating(attributes, subject).await.map(drop)
    }

    async fn run_mutating(
        &self,
        attributes: &Attributes<'_>,
        subject: &mut dyn Subject,
    ) -> Result<(), ApiError> {
        readiness::check(attributes.call)?;
        let (metrics, started) = (&attributes.call.core.metrics.admission, monotonic());
        let outcome = self.mutate_in_rounds(attributes, subject).await;
        metrics.phase(Phase::Mutating, attributes.operation, outcome.is_err(), started);
        outcome
    }

    /// All of them once more if a webhook has changed the object.
    async fn mutate_in_rounds(
        &self,
        attributes: &Attributes<'_>,
        subject: &mut dyn Subject,
    ) -> Result<(), ApiError> {
        let (metrics, operation) = (&attributes.call.core.metrics.admission, attributes.operation);
        let mut rounds = Rounds::default();
        loop {
            for plugin in &self.enabled {
                let Some(mutation) = plugin.mutation(attributes) else { continue };
                let started = monotonic();
                let outcome = mutation.run(attributes, subject, &mut rounds).await;
                let refused = outcome.is_err();
                metrics.plugin(plugin.name, Phase::Mutating, operation, refused, started);
                outcome?;
            }
            if !rounds.repeats {
                return Ok(());
            }
            rounds.repeat();
        }
    }

    /// What has been charged is refunded if a later plugin refuses the request.
    async fn run_validating(
        &self,
        attributes: &Attributes<'_>,
        view: &dyn View,
    ) -> Result<Admitted, ApiError> {
        let (metrics, operation) = (&attributes.call.core.metrics.admission, attributes.operation);
        let (mut admitted, begun) = (Admitted::default(), monotonic());
        for plugin in &self.enabled {
            let Some(validation) = plugin.validation(attributes) else { continue };
            let started = monotonic();
            let outcome = validation.run(attributes, view, &mut admitted).await;
            let refused = outcome.is_err();
            metrics.plugin(plugin.name, Phase::Validating, operation, refused, started);
            if let Err(refusal) = outcome {
                metrics.phase(Phase::Validating, operation, true, begun);
                admitted.charges.refund(attributes.call).await;
                return Err(refusal);
            }
        }
        metrics.phase(Phase::Validating, operation, false, begun);
        Ok(admitted)
    }
}
