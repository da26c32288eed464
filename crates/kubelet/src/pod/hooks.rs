//! postStart and preStop hooks, and stopping a container within its grace period.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use tokio::sync::watch;

use super::context::Context;
use super::declared::Declared;
use crate::containers::{ContainerId, RuntimeError};
use crate::probe::prober::{CheckError, Target};

/// Maximum bytes of a hook's output in a message.
const OUTPUT_BYTES: usize = 4096;
/// After a preStop hook a container gets at least this long to exit by itself, in seconds.
const AFTER_HOOK_SECONDS: i64 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Runs a hook until it ends.
pub async fn run_hook(
    context: &Context,
    target: &Target,
    handler: &LifecycleHandler,
) -> Result<(), CheckError> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = context.runtime.exec_sync(&target.id, &command, None, OUTPUT_BYTES).await;
        return match output {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(CheckError::Failed(format!(
                    "command '{}' exited with {}: {text}",
                    command.join(" "),
                    output.exit_code
                )))
            }
            Err(error) => Err(CheckError::Failed(error.to_string())),
        };
    }
    if let Some(http) = &handler.http_get {
        return context.prober.http_get(target, http).await;
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err(CheckError::Failed("invalid handler: the hook does nothing".to_owned()))
}

/// A container to stop.
pub struct Stop {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    /// `None`: it is not (or no longer) declared.
    pub declared: Option<Declared>,
    pub target: Target,
    /// Signal that asks it to exit.
    pub signal: i32,
    /// When it is killed; may be brought forward.
    pub deadline: watch::Receiver<Timestamp>,
}

/// Stops a container: preStop, its stop signal, SIGKILL at the deadline. Returns once SIGKILL is
/// sent; the caller drops it if the container exits before.
pub async fn stop(mut stop: Stop) -> Result<(), RuntimeError> {
    pre_stop(&mut stop).await;
    let (runtime, id) = (stop.context.runtime.clone(), stop.target.id.clone());
    let signal = if stop.signal == 0 { SIGTERM } else { stop.signal };
    runtime.kill(&id, signal, false).await?;
    let earliest = stop
        .context
        .clock
        .now()
        .saturating_add(SignedDuration::from_secs(AFTER_HOOK_SECONDS))
        .unwrap_or(Timestamp::MAX);
    let hook = has_hook(&stop);
    wait(&stop.context, &mut stop.deadline, hook.then_some(earliest)).await;
    runtime.kill(&id, SIGKILL, true).await
}

fn has_hook(stop: &Stop) -> bool {
    hook(stop).is_some()
}

fn hook(stop: &Stop) -> Option<LifecycleHandler> {
    let lifecycle = stop.declared.as_ref()?.container.lifecycle.as_ref()?;
    lifecycle.pre_stop.clone()
}

async fn pre_stop(stop: &mut Stop) {
    let Some(handler) = hook(stop) else {
        return;
    };
    let context = Arc::clone(&stop.context);
    let mut deadline = stop.deadline.clone();
    let result = tokio::select! {
        result = run_hook(&context, &stop.target, &handler) => result,
        () = wait(&context, &mut deadline, None) => Err(CheckError::Failed(
            "the hook did not end within the grace period".to_owned(),
        )),
    };
    if let (Err(error), Some(declared)) = (result, &stop.declared) {
        context.recorder.warning(
            &stop.pod,
            declared,
            "FailedPreStopHook",
            format!("PreStopHook failed: {error}"),
        );
    }
}

/// Waits for the deadline (or `earliest`, if that is later), which may change meanwhile.
async fn wait(
    context: &Context,
    deadline: &mut watch::Receiver<Timestamp>,
    earliest: Option<Timestamp>,
) {
    loop {
        let until = *deadline.borrow_and_update();
        let until = earliest.map_or(until, |earliest| until.max(earliest));
        let left =
            Duration::try_from(until.duration_since(context.clock.now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            changed = deadline.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(left).await;
                    return;
                }
            }
        }
    }
}

/// The target of a container's probes and hooks.
pub fn target(declared: &Declared, id: &ContainerId, ip: Option<std::net::IpAddr>) -> Target {
    Target { id: id.clone(), container: declared.container.clone(), ip }
}
