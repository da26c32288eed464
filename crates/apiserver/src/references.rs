//! The objects that a pod refers to, whose tests generate specs for those of admission.

pub use api::references::*;

#[cfg(test)]
pub(crate) mod tests;
