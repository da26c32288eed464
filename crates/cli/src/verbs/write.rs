//! Verbs that create, change and delete objects.

pub mod apply;
pub mod autoscale;
pub mod certificate;
pub mod create;
pub mod delete;
pub mod edit;
pub mod expose;
pub mod metadata;
pub mod patch;
pub mod replace;
pub mod rollout;
pub mod scale;
pub mod set;
