//! The apiserver: Kubernetes' API over REST and gRPC on one TLS port, on one pipeline.
//!
//! A request from either door becomes one [`request::Request`] and walks one tower stack
//! ([`pipeline`]: authentication, authorization, handler); reads are answered from the watch cache
//! ([`cache`]) as ready bytes, writes ([`verbs`]) are decoded once, defaulted, admitted, validated
//! and stored by compare-and-swap.
//!
//! - Doors: [`rest`], [`grpc`], behind [`server`].
//! - Rights: [`authn`], [`authz`]; rules of kinds: [`kinds`]; of all kinds: [`meta`], [`admission`].
//! - What is not an object: [`paths`] (discovery, health), [`subresources`], [`connect`].
//!
//! Entry point: [`wire::start`], which `skiff-apiserver`'s `main.rs` and tests call. It must not
//! know any other component.

pub mod admission;
pub mod allocate;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod cache;
pub mod config;
pub mod connect;
pub mod core;
pub mod error;
pub mod grpc;
pub mod keys;
pub mod kinds;
pub mod kubelet;
pub mod meta;
pub mod metrics;
pub mod openapi;
pub mod options;
pub mod paths;
pub mod pipeline;
pub mod request;
pub mod response;
pub mod rest;
pub mod rules;
pub mod scan;
pub mod server;
pub mod stored;
pub mod subresources;
pub mod user;
pub mod verbs;
pub mod wire;
