//! Verbs that read: objects, Events, logs, usage, rights, and what the server serves.

pub mod api_resources;
pub mod auth;
pub mod cluster_info;
pub mod describe;
pub mod diff;
pub mod events;
pub mod explain;
pub mod get;
pub mod logs;
pub mod top;
pub mod trace;
pub mod tree;
pub mod version;
pub mod wait;
pub mod why;
