//! The configuration of a node's own containerd.

use crate::cluster::layout::Layout;

/// Plugins that a node does not need. `cri` and `restart` would listen and poll to no purpose;
/// `io.containerd.runtime.v1.linux` and `io.containerd.internal.v1.opt` look unused as well, but
/// without them containerd 1.6 has no task service.
const DISABLED: [&str; 9] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
];

/// The configuration file, in TOML. Everything containerd writes is below the node's folder,
/// so that the machine's own containerd is not affected.
pub fn config(layout: &Layout, node: &str) -> String {
    let folder = layout.containerd(node);
    let quote = |text: &str| format!("{text:?}");
    let path = |name: &str| quote(&folder.join(name).to_string_lossy());
    let disabled = DISABLED.map(quote).join(", ");
    format!(
        "version = 2\n\
         root = {root}\n\
         state = {state}\n\
         temp = {temp}\n\
         disabled_plugins = [{disabled}]\n\
         \n\
         [grpc]\n\
         address = {socket}\n\
         \n\
         [debug]\n\
         level = \"warn\"\n\
         \n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n\
         path = {opt}\n\
         \n\
         [plugins.\"io.containerd.gc.v1.scheduler\"]\n\
         startup_delay = \"10s\"\n",
        root = path("root"),
        state = path("state"),
        temp = path("tmp"),
        socket = quote(&layout.containerd_socket(node).to_string_lossy()),
        opt = path("opt"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_below_the_nodes_folder() {
        let config = config(&Layout::new("skiff", "/data".into()), "node-1");
        for line in config.lines().filter(|line| line.contains(" = \"/")) {
            assert!(line.contains("= \"/data/nodes/node-1/containerd/"), "{line}");
        }
        assert!(config.contains("address = \"/data/nodes/node-1/containerd/containerd.sock\""));
    }
}
