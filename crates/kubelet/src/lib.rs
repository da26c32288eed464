//! The kubelet: runs the pods that are bound to its node.
//!
//! The binary (`main.rs`) reads flags and wires the parts of this library together; tests use them one by one.
//! Parts:
//! - [`network`]: the pod network, one routed veth per pod, addresses included.
//!
//! What holds for all parts: everything can be found again after a restart (from containerd's labels, pinned
//! namespaces and small files below the root directory); nothing is polled that can be watched; and the state of a
//! pod is computed from what is observed, never accumulated. The kubelet must not know the store, and speaks to the
//! apiserver through `client` only.

pub mod network;
