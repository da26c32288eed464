//! Verbs that open a session with a pod: a process, a terminal, files, ports.

pub mod cp;
pub mod debug;
pub mod exec;
pub mod port_forward;
pub mod run;
