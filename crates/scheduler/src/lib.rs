//! The scheduler: which node every pod runs on.
//!
//! Observe: informers of pods, nodes, namespaces and volumes feed an [`engine::Engine`]. Plan: the
//! engine is pure; it keeps the cluster in columns ([`snapshot`]), takes pods from its [`queue`] in
//! order of priority, narrows a bitset of nodes filter by filter ([`filter`]), and scores the
//! survivors ([`score`]). Apply: [`drive`] sends bindings down one stream while the next pods are
//! already decided on the assumed state, and writes conditions and events for pods that fit
//! nowhere.
//!
//! Plugins keep their upstream names in comments. Entry point: [`drive::run`].
//! It must not know the store, the kubelet, or how objects got into the API.

pub mod bind;
pub mod drive;
pub mod engine;
pub mod filter;
pub mod pod;
pub mod queue;
pub mod score;
pub mod snapshot;
pub mod volumes;
