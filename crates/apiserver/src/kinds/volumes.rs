//! Volumes of pods: [`validate`].

pub mod validate;
