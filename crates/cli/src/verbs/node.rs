//! Verbs about nodes: scheduling, maintenance, taints, images.

pub mod cordon;
pub mod drain;
pub mod image;
pub mod taint;
