//! Admission policies: rules in CEL about requests (`k8s.io/apiserver/pkg/admission/plugin/policy`).
//!
//! Flow: [`compiled`] compiles policies once per version and joins them with their bindings into one
//! snapshot of each kind, indexed by resource; [`params`] finds the parameters of bindings.
//! [`validating`] judges a request: the first denial is the answer, and what a policy says for the
//! audit log goes to the request's trail. [`mutating`] changes its object.

pub mod authorize;
pub mod compiled;
mod evaluate;
mod mutating;
mod params;
mod validating;

use std::sync::Arc;

use api::{ApiError, Kind, KindRef};
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use super::webhooks::Asked;
use super::webhooks::forms::Forms;
use super::webhooks::select::{Facts, Uses};
use compiled::Set;
use mutating::Mutating;
pub use params::row_of;
use validating::Validating;

/// The policies that are in force, with their bindings.
#[derive(Default)]
pub struct Policies {
    mutating: ArcSwap<Set<Mutating>>,
    validating: ArcSwap<Set<Validating>>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Policies").field(&self.names()).finish()
    }
}

impl Policies {
    /// Whether a validating policy with a binding names a resource.
    pub fn any_validates(&self, plural: &str) -> bool {
        self.validating.load().about(plural).next().is_some()
    }

    /// Whether a mutating policy with a binding names a resource.
    pub fn any_mutates(&self, plural: &str) -> bool {
        self.mutating.load().about(plural).next().is_some()
    }

    /// Whether a policy about a resource reads how an object was before.
    pub fn reads_old(&self, plural: &str) -> bool {
        self.mutating.load().reads_old(plural) || self.validating.load().reads_old(plural)
    }

    /// The bindings that are in force.
    pub fn names(&self) -> Vec<String> {
        let (mutating, validating) = (self.mutating.load(), self.validating.load());
        let names = mutating.binding_names().chain(validating.binding_names());
        names.map(str::to_owned).collect()
    }
}

/// What the policies about one request share, made when the first one needs it.
#[derive(Default)]
struct Shared<'a> {
    forms: Forms,
    /// By the version of the resource.
    facts: Vec<(KindRef, Arc<Facts<'a>>)>,
    namespace: Option<Arc<Value>>,
}

impl<'a> Shared<'a> {
    fn facts(&mut self, asked: &Asked<'a>, resource: &KindRef, uses: Uses) -> Arc<Facts<'a>> {
        let mut known = self.facts.iter().filter(|(known, _)| known == resource);
        if let Some((_, facts)) = known.find(|(_, facts)| facts.cover(uses)) {
            return facts.clone();
        }
        let facts = Arc::new(Facts::new(asked, resource, uses));
        self.facts.push((resource.clone(), facts.clone()));
        facts
    }

    /// The namespace of the object, if it is read; null otherwise.
    async fn namespace(&mut self, asked: &Asked<'_>, uses: Uses) -> Result<Arc<Value>, ApiError> {
        if !uses.namespace {
            return Ok(Arc::default());
        }
        if let Some(namespace) = &self.namespace {
            return Ok(namespace.clone());
        }
        let namespace = Arc::new(namespace_of(asked).await?);
        Ok(self.namespace.insert(namespace).clone())
    }
}

/// The namespace of the object; null for what is in none, and for a namespace itself.
async fn namespace_of(asked: &Asked<'_>) -> Result<Value, ApiError> {
    if asked.namespace.is_empty() || asked.resource == *Namespace::ROW {
        return Ok(Value::Null);
    }
    let found = asked.call.core.find(Namespace::ROW, &asked.namespace).await?;
    let found = found.ok_or_else(|| ApiError::not_found(Namespace::ROW, &asked.namespace))?;
    let mut namespace: Value = serde_json::from_slice(&found.json).map_err(ApiError::internal)?;
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    Ok(namespace)
}
