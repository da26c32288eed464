//! The apiserver: Kubernetes' API over REST and gRPC on one TLS port, on one pipeline.
//!
//! A request from either front end becomes one [`request::Request`] and passes through one tower
//! stack ([`pipeline`]: metrics, authentication, authorization, a seat, the body, handler); reads are
//! answered from the watch cache ([`cache`]) as encoded bytes, writes ([`verbs`]) are decoded once,
//! defaulted, admitted, validated and stored by compare-and-swap.
//!
//! - Front ends: [`rest`], [`grpc`], behind [`server`].
//! - Authorization: [`authn`], [`authz`]; who waits for a seat: [`inflight`], [`flowcontrol`]; rules of a kind: [`kinds`]; of all kinds: [`meta`],
//!   [`admission`].
//! - What is not an object: [`paths`] (discovery, health), [`subresources`], [`connect`].
//! - Group versions that other servers answer: [`aggregation`].
//! - Custom resources: [`definitions`], [`conversion`]. Servers that they name: [`webhook`].
//! - Who asked for what: [`audit`].
//! - What nodes and pods use: [`resource_metrics`].
//!
//! Entry point: [`wire::start`], which `skiff-apiserver`'s `main.rs` and tests call. It must not
//! know any other component.

mod admission;
mod aggregation;
mod allocate;
mod answer;
mod audit;
pub mod authn;
mod authz;
mod body;
mod bootstrap;
mod cache;
mod component_statuses;
pub mod config;
mod configuration;
mod connect;
mod conversion;
pub mod core;
mod deadline;
mod definitions;
mod encryption;
mod error;
mod flowcontrol;
mod grpc;
mod incoming;
mod inflight;
mod keys;
mod kinds;
mod kubelet;
mod meta;
mod metrics;
mod openapi;
mod options;
mod paths;
mod pipeline;
mod references;
mod registry;
mod request;
mod request_info;
mod resource_metrics;
mod response;
pub mod rest;
mod scan;
mod scheduler;
mod served;
pub mod server;
mod stored;
mod subresources;
mod user;
mod verbs;
mod webhook;
pub mod wire;

pub use paths::profile;
