//! The proxy's tables against real packets: nodes and pods are network namespaces of the test's
//! own, so the machine's ruleset is never touched.

#![allow(clippy::unwrap_used)]

mod cluster;
mod netns;
mod policies;
mod repair;
mod scale;
mod services;
mod tunnel;
mod udp;
