//! Admission, in Kubernetes' order: mutating plugins, which may change an object before it is
//! validated, and validating ones, which may refuse it or warn.
//!
//! Each plugin is a file: [`lifecycle`] (namespaces), `service_account`, `limits` (LimitRange),
//! `runtime_class`, `defaults` (tolerations, storage class, taints of new nodes), `priority`,
//! `node` (NodeRestriction), [`pod_security`], `claim_resize` (PersistentVolumeClaimResize),
//! `certificates` (approval, signing, attestation), and
//! `quota` (ResourceQuota), which the verbs call last. What administrators add comes after the
//! built-in plugins of its phase: [`webhooks`] and [`policies`]. RBAC's escalation checks are in
//! `authz`. A plugin knows the cache and the request.

mod certificates;
mod claim_resize;
mod defaults;
pub mod lifecycle;
mod limits;
pub mod node;
pub mod pod_security;
pub mod policies;
mod priority;
mod quota;
pub mod readiness;
mod runtime_class;
mod service_account;
pub mod webhooks;

use api::ApiError;
use api::object::Object;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use crate::authz;
use crate::cache::Version;
use crate::core::Call;
use crate::request::Verb;

pub use pod_security::PodSecurity;
pub use quota::{Charges, Quotas};
pub use webhooks::Before;
use webhooks::{Asked, Fixed, Rounds};

/// The chain of plugins.
#[derive(Debug, Default)]
pub struct Admission {
    pub pod_security: PodSecurity,
    pub webhooks: webhooks::Snapshots,
    /// The last of the chain; it charges what it admits.
    pub quotas: Quotas,
}

impl Admission {
    /// Runs the mutating plugins, the policies and webhooks last; all of them once more if one of
    /// those has changed the object. `old`: the current object, on updates.
    ///
    /// # Errors
    /// 403 and 404 from the plugins, and those of webhooks.
    pub async fn mutate(
        &self,
        call: Call<'_>,
        object: &mut Box<dyn Object>,
        old: Option<Before<'_>>,
    ) -> Result<(), ApiError> {
        readiness::check(call)?;
        let mut rounds = Rounds::default();
        loop {
            self.mutate_here(call, &mut **object, old.map(|old| old.object)).await?;
            self.webhooks.mutate_written(call, object, old, &mut rounds).await?;
            if !rounds.repeats {
                return Ok(());
            }
            rounds.repeat();
        }
    }

    /// The server's own mutating plugins. On updates fewer plugins act, and only on the object
    /// itself.
    async fn mutate_here(
        &self,
        call: Call<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if let Some(old) = old {
            if call.target.subresource.is_empty()
                && let (Some(pod), Some(old)) = (object.downcast_mut::<Pod>(), old.downcast_ref())
            {
                defaults::tolerations(pod);
                priority::keep(pod, old);
            }
            return Ok(());
        }
        lifecycle::check(call, object).await?;
        defaults::protection(object);
        if let Some(pod) = object.downcast_mut::<Pod>() {
            service_account::complete(call, pod).await?;
            limits::complete(call, pod);
            runtime_class::complete(call, pod).await?;
            defaults::tolerations(pod);
            priority::complete(call, pod).await?;
        } else if let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() {
            defaults::storage_class(call, claim);
        } else if let Some(ingress) = object.downcast_mut::<Ingress>() {
            defaults::ingress_class(call, ingress);
        } else if let Some(node) = object.downcast_mut::<Node>() {
            defaults::taint(node);
        }
        Ok(())
    }

    /// Runs the validating plugins on a complete object; returns their warnings.
    ///
    /// # Errors
    /// 403 and 422 from the plugins.
    pub async fn validate(
        &self,
        call: Call<'_>,
        object: &dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<Vec<String>, ApiError> {
        node::check(call, object, old).await?;
        limits::check(call, object, old)?;
        let warnings = self.pod_security.check(call, object, old).await?;
        if let Some(class) = object.downcast_ref::<PriorityClass>() {
            priority::check_class(call, class)?;
        }
        certificates::check(call, object, old).await?;
        claim_resize::check(call, object, old).await?;
        authz::check_escalation(call, object, old).await?;
        policies::authorize::check(call, object, old).await?;
        Ok(warnings)
    }

    /// Calls the validating webhooks about a new object, of which they see what has been allocated,
    /// and then charges quotas.
    ///
    /// # Errors
    /// Those of webhooks, and 403 when a quota does not allow it.
    pub async fn charge_new(
        &self,
        call: Call<'_>,
        object: &dyn Object,
    ) -> Result<Charges, ApiError> {
        self.webhooks.validate_written(call, object, None).await?;
        self.quotas.charge(call, object, None).await
    }

    /// Runs the validating plugins, and all webhooks, on a deletion.
    ///
    /// # Errors
    /// 403 from the plugins, and those of webhooks.
    pub async fn validate_delete(
        &self,
        call: Call<'_>,
        object: &dyn Object,
        version: &Version,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        readiness::check(call)?;
        node::check_delete(call, object)?;
        priority::check_delete(call, object)?;
        lifecycle::check_delete(call, object)?;
        let is_deletion = matches!(call.verb, Verb::Delete | Verb::DeleteCollection);
        if !is_deletion || !self.webhooks.any_about(call) {
            return Ok(());
        }
        let mut options: serde_json::Value =
            serde_json::from_slice(&api::options::encode_delete_options(options))
                .map_err(ApiError::internal)?;
        options["kind"] = "DeleteOptions".into();
        options["apiVersion"] = "meta.k8s.io/v1".into();
        if call.options.dry_run {
            options["dryRun"] = serde_json::json!(["All"]);
        }
        let asked = Asked::of_deletion(call, options);
        let old = serde_json::from_slice(&version.json).map_err(ApiError::internal)?;
        self.webhooks.admit(&asked, &mut Fixed(serde_json::Value::Null), &old).await
    }
}
