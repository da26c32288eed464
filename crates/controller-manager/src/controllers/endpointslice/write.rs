//! Writes slices and records the expectations.

use std::sync::Arc;

use client::{Api, Client, DeleteOptions};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::pack::Plan;
use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::expectations::Expectations;
use crate::machinery::pod_control::is_namespace_terminating;

/// The slices of one controller.
pub struct SliceWriter {
    pub expectations: Expectations<EndpointSlice>,
    client: Client,
}

impl SliceWriter {
    pub fn new(client: Client, slices: Arc<Cache<EndpointSlice>>) -> Self {
        Self { expectations: Expectations::new(slices), client }
    }

    /// Applies a plan for `owner`: first creations and updates, then deletions.
    pub async fn apply(&self, owner: &Key, plan: Plan) -> Result<(), Error> {
        let slices = Api::<EndpointSlice>::namespaced(&self.client, &owner.namespace);
        for slice in &plan.create {
            match slices.create(slice).await {
                Ok(created) => self.expectations.created(owner, &created),
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => {
                    return Err(error).during(|| format!("create an endpointslice for {owner}"));
                }
            }
        }
        for slice in &plan.update {
            slices
                .replace(slice)
                .await
                .during(|| format!("replace endpointslice {}", Key::of(slice)))?;
        }
        for slice in &plan.delete {
            let name = Key::of(&**slice).name;
            match slices.delete_exactly(slice, &DeleteOptions::default()).await {
                Ok(()) => self.expectations.deleted(owner, slice),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    return Err(error).during(|| format!("delete endpointslice {name}"));
                }
            }
        }
        Ok(())
    }
}
