//! The kubelet: runs the pods that are bound to its node.
//!
//! The binary (`main.rs`) reads flags and wires the parts of this library together ([`wire`],
//! [`config`]); the integration tests use the container layer directly.
//!
//! - [`pod`]: pod workers (observe, plan, apply), admission, container configuration, pod status.
//! - [`node`]: the Node object, its lease, the eviction manager. [`events`]: the event recorder.
//! - [`devices`]: devices that plugins offer. [`probe`]: the prober. [`volume`]: the volume manager. [`objects`], [`services`]: the
//!   ConfigMaps, Secrets and Services that pods refer to.
//! - [`server`]: the gRPC service that the apiserver calls.
//! - The container layer: [`containers`] (containers and pod namespaces, through containerd's
//!   native gRPC API), [`image`] (pulling, loading, listing and garbage collection), [`logs`]
//!   (CRI-format logs: writer, rotation, reader), [`cgroup`] (limits and statistics, v1 and v2),
//!   [`network`] (one routed veth per pod, addresses included).
//!
//! Everything can be found again after a restart: from containerd's labels, pinned namespaces and
//! small files below the root directory. Nothing is polled that can be watched, and the state of a
//! pod is computed from what is observed, never accumulated. The kubelet must not know the store,
//! and reaches the apiserver only through `client`. The container layer knows no pod specs, probes
//! or restart policies: it takes plain structs, and each of its operations may be repeated after a
//! crash.

mod certificates;
pub mod cgroup;
pub mod config;
pub mod containers;
mod devices;
mod events;
pub mod image;
pub mod logs;
mod network;
mod node;
mod objects;
mod pod;
mod probe;
mod server;
mod services;
pub mod volume;
pub mod wire;
