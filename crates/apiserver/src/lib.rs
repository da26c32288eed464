//! The apiserver: Kubernetes' API over REST and gRPC on one TLS port, on one pipeline.
//!
//! A request from either door becomes one `Request` and walks one tower stack (authentication,
//! audit, fairness, authorization); reads are answered from the watch cache as ready bytes, writes
//! are decoded once, defaulted, admitted, validated and stored by compare-and-swap.
//!
//! Entry point: `skiff-apiserver`'s `main.rs`. It must not know any other component.

pub mod kinds;
