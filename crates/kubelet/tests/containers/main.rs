//! The container layer with real containerd, runc and a real registry. Each test has a node of its
//! own (containerd with its own root, state and socket, and a cgroup of its own) and leaves nothing
//! behind. The tests need root, and Debian's `containerd`, `runc`, `busybox-static` and
//! `docker-registry`.

#![allow(clippy::unwrap_used, reason = "the place of the panic tells what failed")]

mod attach;
mod exec;
mod images;
mod lifecycle;
mod limits;
mod logs;
mod namespaces;
mod node;
mod registry;
mod restart;
mod security;
mod testimage;
mod timing;
