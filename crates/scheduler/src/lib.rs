//! The scheduler: assigns every pod to a node.
//!
//! Observe: informers feed an [`engine::Engine`]. Plan: the engine does no I/O; it keeps the cluster
//! in columns ([`snapshot`]) and takes pods from its [`queue`] in order of priority. A decision
//! ([`decide`]) finds out about the pod ([`prepare`]), narrows a bitset of nodes filter by filter
//! ([`filter`]), and scores the survivors ([`score`]), or looks for pods to preempt ([`preempt`]).
//! Which plugins do that, and how, is in the pod's [`profile`], as [`configuration`] sets it up. A
//! pod that no node fits waits for a change that could help it ([`hint`]). Apply: [`drive`] sends
//! bindings over one stream while the next pods are already scheduled on the assumed state, writes
//! conditions and events for unschedulable pods, and deletes victims. [`serve`] explains decisions to
//! the apiserver.
//!
//! Comments give the upstream names of plugins. Entry point: [`drive::run`].
//! It must not know the store, the kubelet, or how objects got into the API.

mod bind;
mod budgets;
pub mod configuration;
mod decide;
pub mod drive;
pub mod engine;
mod explain;
mod filter;
mod hint;
mod nominate;
mod plugin;
mod pod;
mod preempt;
mod prepare;
pub mod profile;
pub mod queue;
#[cfg(test)]
mod reasons;
mod score;
pub mod serve;
mod snapshot;
mod volumes;
