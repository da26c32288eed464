//! Creates and starts a container.

use super::{Outcome, PodActions, Problem};
use crate::containers::{ContainerId, RuntimeError};
use crate::pod::backoff::Backoff;
use crate::pod::container_config::{Start, container_config};
use crate::pod::declared::{Declared, find};
use crate::pod::files;
use crate::pod::hooks::{run_hook, target};
use crate::pod::hosts::host_name;
use crate::pod::pod_ext::PodExt;
use crate::pod::worker::state::ReadySandbox;
use crate::volume::MountedVolumes;
use runtime::errors::cause_chain;

/// What to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub container: String,
    pub attempt: u32,
    pub restart: Option<Backoff>,
    pub sandbox: ReadySandbox,
    pub volumes: MountedVolumes,
    pub image_id: String,
}

impl PodActions {
    /// Completes after the postStart hook, if there is one.
    pub async fn start_container(self, request: StartRequest) -> Outcome {
        let result = match find(&self.pod, &request.container) {
            Some(declared) => {
                let result = self.start(&declared, &request).await;
                if let Err(problem) = &result {
                    let text = format!("Error: {}", problem.message);
                    self.context.recorder.warning(&self.pod, &declared, "Failed", text);
                }
                result
            }
            None => Ok(()),
        };
        Outcome::Start { container: request.container, restart: request.restart, result }
    }

    async fn start(&self, declared: &Declared, request: &StartRequest) -> Result<(), Problem> {
        let id = self.create(declared, request).await?;
        let (context, recorder) = (&self.context, &self.context.recorder);
        let name = declared.name();
        recorder.normal(&self.pod, declared, "Created", format!("Created container: {name}"));
        match context.runtime.start(&id).await {
            Ok(_) => {}
            // The container exists and has exited, with the reason: it restarts like any other.
            Err(error @ RuntimeError::Start { .. }) => {
                recorder.warning(&self.pod, declared, "Failed", format!("Error: {error}"));
                return Ok(());
            }
            Err(error) => return Err(runtime_problem(&error)),
        }
        recorder.normal(&self.pod, declared, "Started", format!("Started container {name}"));
        self.post_start(declared, &id, request).await;
        Ok(())
    }

    async fn create(
        &self,
        declared: &Declared,
        request: &StartRequest,
    ) -> Result<ContainerId, Problem> {
        let context = &self.context;
        let config_error = |text: String| Problem::new("CreateContainerConfigError", text);
        let name = host_name(&self.pod, &context.node.name, &context.node.dns.domain)
            .map_err(|error| config_error(cause_chain(&error)))?;
        self.mount_images(declared, &request.volumes).await?;
        let shared = files::write_shared(context, &self.pod, &request.sandbox.ips, &name)
            .map_err(|error| config_error(format!("write the pod's files: {error}")))?;
        let start = Start {
            context,
            pod: &self.pod,
            declared,
            attempt: request.attempt,
            sandbox: &request.sandbox,
            volumes: &request.volumes,
            image_id: &request.image_id,
            worker: &self.worker,
        };
        let config = container_config(&start, &shared)
            .await
            .map_err(|error| config_error(cause_chain(&error)))?;
        let created = context.runtime.create(&request.sandbox.sandbox, &config).await;
        created.map_err(|error| {
            let mut problem = runtime_problem(&error);
            if error.is_root_refused() {
                let pod = &self.pod;
                let (name, namespace, uid) = (pod.pod_name(), pod.pod_namespace(), pod.uid());
                let who = format!(
                    " (pod: \"{name}_{namespace}({uid})\", container: {})",
                    declared.name()
                );
                problem.message.push_str(&who);
            }
            problem
        })
    }

    /// A container whose hook fails is killed, and restarted according to the pod's policy.
    async fn post_start(&self, declared: &Declared, id: &ContainerId, request: &StartRequest) {
        let lifecycle = declared.container.lifecycle.as_ref();
        let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return;
        };
        let target = target(declared, id, request.sandbox.ips.first().copied());
        let Err(error) = run_hook(&self.context, &target, handler).await else {
            return;
        };
        let text = format!("PostStartHook failed: {error}");
        self.context.recorder.warning(&self.pod, declared, "FailedPostStartHook", text);
        let text = "FailedPostStartHook".to_owned();
        self.context.recorder.normal(&self.pod, declared, "Killing", text);
        if let Err(error) = self.context.runtime.kill(id, 9, true).await {
            tracing::warn!(%error, container = %id, "cannot kill after a failed postStart hook");
        }
    }
}

fn runtime_problem(error: &RuntimeError) -> Problem {
    Problem::new(error.waiting_reason(), cause_chain(error))
}
