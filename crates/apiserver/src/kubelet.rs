//! Channels to the nodes' kubelets.

/// How kubelets are dialled.
#[derive(Debug, Default)]
pub struct Kubelets {}
