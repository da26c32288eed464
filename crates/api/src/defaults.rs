//! Defaults of pods: the apiserver gives them to what it stores, a kubelet to its static pods.

pub mod fill;
pub mod pod_spec;
pub mod volume;
