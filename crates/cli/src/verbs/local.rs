//! Verbs about this side of the connection: the kubeconfig, a local REST proxy, the shell.

pub mod completion;
pub mod config;
pub mod proxy;
