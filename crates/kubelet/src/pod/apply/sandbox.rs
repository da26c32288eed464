//! The pod's namespaces and network.

use super::{Outcome, PodActions, Problem};
use crate::containers::PodConfig;
use crate::pod::hosts::host_name;
use crate::pod::pod_ext::PodExt;
use crate::pod::worker::state::ReadySandbox;
use crate::pod::{qos, resources};
use runtime::errors::cause_chain;

/// As upstream; `status.runtimeHandlers` of the node says so too.
const NO_USER_NAMESPACES: &str =
    "can't set `spec.hostUsers: false`, runtime does not support user namespaces";

impl PodActions {
    pub async fn set_up_sandbox(self) -> Outcome {
        let result = self.sandbox().await;
        Outcome::Sandbox(result.map(Box::new).map_err(|message| {
            Problem::new(
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {message}"),
            )
        }))
    }

    async fn sandbox(&self) -> Result<ReadySandbox, String> {
        let (context, pod) = (&self.context, &self.pod);
        let spec = pod.spec_ref();
        let user_namespace = spec.host_users == Some(false);
        if user_namespace && !context.runtime.supports_user_namespaces() {
            return Err(NO_USER_NAMESPACES.to_owned());
        }
        let name = host_name(pod, &context.node.name, &context.node.dns.domain)
            .map_err(|error| error.to_string())?;
        // The machine's namespace will do for the machine's name.
        let machine = nix::unistd::gethostname().unwrap_or_default();
        let sysctls = spec
            .security_context
            .iter()
            .flat_map(|security| security.sysctls.iter().flatten())
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect();
        let mut resources = resources::pod_cgroup(pod);
        for size in &context.node.huge_page_sizes {
            resources.huge_pages.entry(*size).or_insert(0);
        }
        let config = PodConfig {
            pod: pod.pod_ref(),
            host_uts: pod.host_network() && machine == name.hostname.as_str(),
            hostname: name.hostname,
            host_network: pod.host_network(),
            host_ipc: spec.host_ipc.unwrap_or(false),
            host_pid: spec.host_pid.unwrap_or(false),
            user_namespace,
            share_process_namespace: spec.share_process_namespace.unwrap_or(false),
            sysctls,
            shm_size_bytes: None,
            cgroup: context.cgroups.pod_path(qos::qos_class(pod), pod.uid()),
            resources,
            runtime_handler: String::new(),
        };
        let made = context.runtime.ensure_pod(&config).await;
        let sandbox = made.map_err(|error| cause_chain(&error))?;
        let Some(netns) = sandbox.netns() else {
            return Ok(ReadySandbox { ips: context.node.ips.clone(), sandbox });
        };
        let network =
            context.network().ok_or_else(|| "the node has no pod address range yet".to_owned())?;
        let ips = network
            .setup(pod.uid(), netns)
            .await
            .map_err(|error| format!("failed to set up network: {}", cause_chain(&error)))?;
        Ok(ReadySandbox { sandbox, ips: ips.0 })
    }
}
