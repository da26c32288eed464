//! The scheduler: assigns every pod to a node.
//!
//! Observe: informers of pods, nodes, namespaces and volumes feed an [`engine::Engine`]. Plan: the
//! engine does no I/O; it keeps the cluster in columns ([`snapshot`]), takes pods from its
//! [`queue`] in order of priority, narrows a bitset of nodes filter by filter ([`filter`]), and
//! scores the survivors ([`score`]). Apply: [`drive`] sends bindings over one stream while the next
//! pods are already scheduled on the assumed state, and writes conditions and events for
//! unschedulable pods.
//!
//! Comments give the upstream names of plugins. Entry point: [`drive::run`].
//! It must not know the store, the kubelet, or how objects got into the API.

mod bind;
pub mod drive;
mod engine;
mod filter;
mod pod;
mod queue;
mod score;
mod snapshot;
mod volumes;
