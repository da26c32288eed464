//! The kubelet: runs the pods that are bound to its node.
//!
//! The binary (`main.rs`) reads flags and wires the parts of this library together; tests use them one by one.
//! Parts:
//! - [`runtime`]: containers and pod namespaces through containerd's native gRPC API.
//! - [`image`]: pulling, loading, listing and collecting images in containerd's stores.
//! - [`logs`]: CRI-format container logs: the writer process, rotation, and the reader behind `Logs`.
//! - [`cgroup`]: the pod cgroup hierarchy, v1 and v2: limits, statistics, clean-up.
//! - [`network`]: the pod network, one routed veth per pod, addresses included.
//! - [`pod`]: a worker per pod that observes, plans and applies; the manager that wakes them.
//! - [`volume`], [`objects`], [`services`]: what containers find at their mount paths and in their environment.
//! - [`probe`]: startup, readiness and liveness. [`node`]: the Node object, its lease, eviction.
//! - [`server`]: the gRPC service that the apiserver calls. [`config`], [`wire`]: flags, and the whole put together.
//!
//! What holds for all parts: everything can be found again after a restart (from containerd's labels, pinned
//! namespaces and small files below the root directory); nothing is polled that can be watched; and the state of a
//! pod is computed from what is observed, never accumulated. The kubelet must not know the store, and speaks to the
//! apiserver through `client` only. The container layers (`runtime`, `image`, `logs`, `cgroup`) know no pod specs,
//! probes or restart policies: they take plain structs, and each of their operations may be repeated after a crash.
//!
//! `::runtime` (the wiring crate shared by the binaries) and `crate::runtime` (containers) are two things.

pub mod cgroup;
pub mod config;
pub mod image;
pub mod logs;
pub mod network;
pub mod node;
pub mod objects;
pub mod pod;
pub mod probe;
pub mod runtime;
pub mod server;
pub mod services;
pub mod volume;
pub mod wire;
