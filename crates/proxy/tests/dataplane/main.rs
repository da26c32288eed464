//! Tests the proxy's tables with real packets: nodes and pods are the test's own network
//! namespaces, so the machine's ruleset is never touched.

#![allow(clippy::unwrap_used)]

mod cluster;
mod forged;
mod inspect;
mod netns;
mod policies;
mod repair;
mod scale;
mod services;
mod tunnel;
mod udp;
