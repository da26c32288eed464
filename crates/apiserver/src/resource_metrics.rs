//! `metrics.k8s.io`: what nodes and pods use, from their kubelets' figures.
//!
//! Nothing is measured while nobody asks: a question starts the [`Sampler`], which measures again
//! and again for a while and then forgets everything. Entry point: [`answer`].
//!
//! An APIService may name another server for the group. REST requests never come here then; those
//! of the other front end are passed on by [`remote`].
//!
//! Upstream: metrics-server.

mod objects;
mod remote;
mod sample;
mod sampler;

use std::sync::{Arc, Weak};

use api::{ApiError, Kind, KindRef};
use k8s_openapi::api::core::v1::{Node, Pod};
use rpc::kubelet_v1::StatsRequest;

pub use sampler::Sampler;

use self::sample::Sample;
use self::sampler::Source;
use crate::cache::{Filter, Version};
use crate::core::{Call, Core, decode};
use crate::request::Verb;
use crate::response::{ListAnswer, ObjectAnswer, Response};
use crate::verbs::read;

/// Handles an authorized request to NodeMetrics or PodMetrics.
///
/// # Errors
/// 404 for what there are no figures of, 405 for all that is not a read.
pub async fn answer(call: Call<'_>) -> Result<Response, ApiError> {
    let named = !call.target.name.is_empty();
    let row = call.row();
    if let Some(service) = call.core.aggregator.snapshot().remote(&row.group, &row.version) {
        return remote::answer(call, service).await;
    }
    if !matches!((call.verb, named), (Verb::Get, true) | (Verb::List, false)) {
        return Err(ApiError::method_not_allowed(call.row(), call.verb.as_str()));
    }
    let measured = if call.row().namespaced() { Pod::ROW } else { Node::ROW };
    let filter = Filter { row: measured.into(), ..read::filter(call)? };
    let cache = &call.core.cache;
    cache.fresh().await?;
    let there = cache.resource(measured).list(&filter);
    if named && there.is_empty() {
        return Err(ApiError::not_found(measured, &call.target.name));
    }
    call.core.sampler.ask(&call.core.itself).await;
    let items: Result<Vec<_>, _> = there
        .iter()
        .filter_map(|object| objects::of(call.row(), object, &call.core.sampler, call.now()))
        .map(|value| version(call.row(), &value))
        .collect();
    let (row, items) = (call.row().clone(), items?);
    if !named {
        let (continue_token, remaining) = Default::default();
        return Ok(Response::List(ListAnswer {
            row,
            items,
            revision: 0,
            continue_token,
            remaining,
        }));
    }
    let version = items.into_iter().next().ok_or_else(|| unmeasured(call))?;
    Ok(Response::Object(ObjectAnswer { code: 200, row, version, warnings: Vec::new() }))
}

fn version(row: &KindRef, value: &serde_json::Value) -> Result<Arc<Version>, ApiError> {
    let json = serde_json::to_vec(value).map_err(ApiError::internal)?;
    Version::unstored(row, &json).map(Arc::new).map_err(ApiError::internal)
}

/// As metrics-server says that it has no figures.
fn unmeasured(call: Call<'_>) -> ApiError {
    let (row, key) = (call.row(), call.target.key());
    let text = format!("{}.{} {key:?} not found", row.kind.to_lowercase(), row.group);
    ApiError::new(404, "NotFound", text).about(row, &key)
}

impl Source for Weak<Core> {
    fn nodes(&self) -> Option<Vec<String>> {
        let core = self.upgrade()?;
        let nodes = core.cache.resource(Node::ROW).list(&Filter::everything(Node::ROW, ""));
        Some(nodes.iter().map(|node| node.name.to_string()).collect())
    }

    async fn sample(&self, node: &str) -> Option<Sample> {
        let core = self.upgrade()?;
        let version = core.cache.resource(Node::ROW).get(node)?;
        let object = decode(Node::ROW, &version).ok()?;
        let mut kubelet = core.kubelets.client(object.as_any().downcast_ref::<Node>()?).ok()?;
        drop(core);
        let answer = kubelet.stats(StatsRequest {}).await;
        let sample = match answer {
            Ok(answer) => {
                Sample::parse(&answer.into_inner().json).map_err(|error| error.to_string())
            }
            Err(status) => Err(status.message().to_owned()),
        };
        sample.inspect_err(|error| tracing::debug!(node, error, "no figures of a node")).ok()
    }
}
