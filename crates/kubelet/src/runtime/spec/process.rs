//! The process of a container: command, environment, user and limits.

use crate::image::ImageConfig;
use crate::runtime::container::{ContainerConfig, ContainerUser, SecurityContext};
use crate::runtime::error::{Result, RuntimeError};
use crate::runtime::exec::ExecRequest;
use crate::runtime::pod::PodSandbox;

use super::capabilities;
use super::machine::Machine;
use super::oci::{ConsoleSize, Process, Rlimit, User};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first process of a container.
pub(super) fn build(
    sandbox: &PodSandbox,
    config: &ContainerConfig,
    image: &ImageConfig,
    user: &ContainerUser,
    machine: &Machine,
) -> Result<Process> {
    let args = command_line(config, image)?;
    Ok(Process {
        terminal: config.tty,
        console_size: None,
        user: User { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids.clone() },
        args,
        env: environment(sandbox, config, image),
        cwd: working_directory(config, image),
        capabilities: capabilities::of_container(&config.security, &machine.bounding)?,
        rlimits: rlimits(config, machine),
        no_new_privileges: config.security.no_new_privileges && !config.security.privileged,
        oom_score_adj: Some(oom_score_adj(config.oom_score_adj, machine)),
    })
}

/// A further process in a container: its first process's user, environment and rights.
pub(in crate::runtime) fn exec_process(first: Process, request: &ExecRequest) -> Process {
    let terminal = request.tty;
    let size = request.size.filter(|_| terminal);
    let mut process = Process {
        args: request.command.clone(),
        terminal,
        console_size: size.map(|(width, height)| ConsoleSize { height, width }),
        ..first
    };
    let has_term = process.env.iter().any(|entry| entry.starts_with("TERM="));
    if terminal && !has_term {
        process.env.push("TERM=xterm".to_string());
    }
    process
}

/// Checks `runAsNonRoot` against the resolved user. `image_user` is the image's USER as written.
pub(in crate::runtime) fn apply_user_policy(
    security: &SecurityContext,
    image_user: &str,
    user: &ContainerUser,
) -> Result<()> {
    if !security.run_as_non_root {
        return Ok(());
    }
    if security.run_as_user.is_none() {
        let name = image_user.split(':').next().unwrap_or_default();
        if !name.is_empty() && name.parse::<u32>().is_err() {
            return Err(RuntimeError::NonNumericUser { user: name.to_string() });
        }
    }
    match (user.uid, security.run_as_user) {
        (0, Some(_)) => Err(RuntimeError::RunAsUserRoot),
        (0, None) => Err(RuntimeError::RunAsNonRoot),
        _ => Ok(()),
    }
}

/// `command` replaces ENTRYPOINT and drops CMD; `args` replaces CMD.
fn command_line(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>> {
    let (head, tail): (&[String], &[String]) =
        match (config.command.is_empty(), config.args.is_empty()) {
            (true, true) => (&image.entrypoint, &image.cmd),
            (true, false) => (&image.entrypoint, &config.args),
            (false, _) => (&config.command, &config.args),
        };
    let line: Vec<String> = head.iter().chain(tail).cloned().collect();
    if line.is_empty() {
        return Err(RuntimeError::InvalidConfig { message: "no command specified".to_string() });
    }
    Ok(line)
}

fn environment(sandbox: &PodSandbox, config: &ContainerConfig, image: &ImageConfig) -> Vec<String> {
    let mut env: Vec<(String, String)> = vec![("PATH".to_string(), DEFAULT_PATH.to_string())];
    if !sandbox.config.hostname.is_empty() {
        env.push(("HOSTNAME".to_string(), sandbox.config.hostname.clone()));
    }
    if config.tty {
        env.push(("TERM".to_string(), "xterm".to_string()));
    }
    let from_image = image.env.iter().filter_map(|entry| entry.split_once('='));
    let from_image = from_image.map(|(name, value)| (name.to_string(), value.to_string()));
    for (name, value) in from_image.chain(config.env.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn working_directory(config: &ContainerConfig, image: &ImageConfig) -> String {
    let own = config.working_dir.as_deref().filter(|path| !path.is_empty());
    own.or(Some(image.working_dir.as_str()).filter(|path| !path.is_empty()))
        .unwrap_or("/")
        .to_string()
}

/// A value below our own cannot be set without CAP_SYS_RESOURCE: then ours holds.
fn oom_score_adj(wanted: i32, machine: &Machine) -> i32 {
    let wanted = wanted.clamp(-1000, 1000);
    if machine.can_raise_limits { wanted } else { wanted.max(machine.oom_score_adj) }
}

fn rlimits(config: &ContainerConfig, machine: &Machine) -> Vec<Rlimit> {
    let clamp = |kind: &str, value: u64| {
        let bounded = kind == "RLIMIT_NOFILE" && !machine.can_raise_limits;
        if bounded { value.min(machine.max_open_files) } else { value }
    };
    config
        .rlimits
        .iter()
        .map(|limit| Rlimit {
            kind: limit.kind.clone(),
            soft: clamp(&limit.kind, limit.soft),
            hard: clamp(&limit.kind, limit.hard),
        })
        .collect()
}
