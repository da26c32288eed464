//! Tests the proxy's tables with real packets: nodes and pods are the test's own network
//! namespaces, so the machine's ruleset is never touched.

#![allow(clippy::unwrap_used)]

mod announce;
mod cluster;
mod forged;
mod inspect;
mod netns;
mod policies;
mod policy_packets;
mod policy_plan;
mod policy_scale;
mod probe;
mod reference;
mod repair;
mod scale;
mod services;
mod tunnel;
mod udp;
