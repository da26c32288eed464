//! What the kubelet knows, as JSON: its pods, those that run, and its configuration.

use std::collections::BTreeMap;

use api::Kind;
use serde_json::{Value, json};
use tonic::Status;

use super::service::Service;
use super::target::status;
use crate::config::Flags;
use crate::containers::{ContainerState, PodRef};

impl Service {
    /// `/pods`: the pods that are bound to the node, as the apiserver last sent them.
    pub(super) fn pod_list(&self) -> String {
        let mut list =
            String::from(r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#);
        for (index, known) in self.pods.all().iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            list += comma;
            list += &String::from_utf8_lossy(&known.pod.encode());
        }
        list + "]}"
    }

    /// `/runningpods/`: what runs, whatever the apiserver knows of it.
    pub(super) async fn running_pods(&self) -> Result<String, Status> {
        let containers = self.context.runtime.list().await.map_err(|error| status(&error))?;
        let mut pods: BTreeMap<PodRef, Vec<Value>> = BTreeMap::new();
        for one in containers {
            if matches!(one.state, ContainerState::Running { .. }) {
                let container = json!({"name": one.name, "image": one.image, "resources": {}});
                pods.entry(one.pod).or_default().push(container);
            }
        }
        let items: Vec<Value> = pods
            .into_iter()
            .map(|(pod, containers)| {
                json!({
                    "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                    "spec": {"containers": containers},
                    "status": {},
                })
            })
            .collect();
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
        Ok(list.to_string())
    }
}

/// `/configz`: the settings in force, by upstream's names.
pub(super) fn configuration(flags: &Flags) -> Value {
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": flags.bind_address,
        "port": flags.port,
        "tlsCertFile": flags.tls_cert_file,
        "tlsPrivateKeyFile": flags.tls_private_key_file,
        "authentication": {
            "x509": {"clientCAFile": flags.client_ca_file},
            "webhook": {"enabled": true},
            "anonymous": {"enabled": false},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": flags.cluster_domain,
        "clusterDNS": flags.cluster_dns,
        "resolvConf": flags.resolv_conf,
        "cgroupRoot": flags.cgroup_root,
        "maxPods": flags.max_pods,
        "containerRuntimeEndpoint": flags.container_runtime_endpoint,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 5,
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": flags.image_gc_high_threshold,
        "imageGCLowThresholdPercent": flags.image_gc_low_threshold,
        "imagePullCredentialsVerificationPolicy":
            format!("{:?}", flags.image_pull_credentials_verification_policy),
        "preloadedImagesVerificationAllowlist": flags.preloaded_images_verification_allowlist,
        "evictionHard": {
            "memory.available": flags.eviction_memory_available,
            "nodefs.available": format!("{}%", flags.eviction_nodefs_available_percent),
            "nodefs.inodesFree": format!("{}%", flags.eviction_nodefs_inodes_free_percent),
        },
        "allowedUnsafeSysctls": flags.allowed_unsafe_sysctls,
        "enableSystemLogHandler": true,
    }})
}
