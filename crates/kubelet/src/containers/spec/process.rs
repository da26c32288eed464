//! The process of a container: command, environment, user and capabilities.

use oci_spec::runtime::{BoxBuilder, Capabilities, Process, User};

use crate::containers::container::{ContainerConfig, ContainerUser, SecurityContext};
use crate::containers::error::{Result, RuntimeError};
use crate::containers::exec::ExecRequest;
use crate::containers::pod::PodSandbox;
use crate::image::ImageConfig;

use super::{Machine, capabilities, oci_user};

pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first process of a container.
pub(super) fn build(
    sandbox: &PodSandbox,
    config: &ContainerConfig,
    image: &ImageConfig,
    user: &ContainerUser,
    capabilities: Capabilities,
    machine: &Machine,
) -> Result<Process> {
    let no_new_privileges = config.security.no_new_privileges && !config.security.privileged;
    let user = oci_user(user.uid, user.gid, &user.additional_gids);
    let mut process = bare_process(user, command_line(config, image)?);
    process
        .set_terminal(Some(config.tty))
        .set_env(Some(environment(sandbox, config, image)))
        .set_cwd(working_directory(config, image).into())
        .set_capabilities(Some(capabilities::in_all_sets(capabilities)))
        .set_no_new_privileges(Some(no_new_privileges))
        .set_apparmor_profile(machine.app_armor.profile(&config.security)?)
        .set_oom_score_adj(Some(oom_score_adj(config.oom_score_adj, machine)));
    Ok(process)
}

/// A process without environment and capabilities. Every member that oci-spec has a default for is
/// set.
pub(in crate::containers) fn bare_process(user: User, args: Vec<String>) -> Process {
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(user)
        .set_args(Some(args))
        .set_env(Some(Vec::new()))
        .set_cwd("/".into())
        .set_capabilities(Some(capabilities::in_all_sets(Capabilities::new())))
        .set_rlimits(None)
        .set_no_new_privileges(Some(true));
    process
}

/// An additional process in a container, with the user, environment and privileges of the first
/// one.
pub(in crate::containers) fn exec_process(first: Process, request: &ExecRequest) -> Process {
    let size = request.size.filter(|_| request.tty).map(|(width, height)| {
        let size = BoxBuilder::default().height(height).width(width).build();
        size.expect("both members have defaults")
    });
    let mut process = first;
    process
        .set_args(Some(request.command.clone()))
        .set_terminal(Some(request.tty))
        .set_console_size(size);
    let environment = process.env_mut().get_or_insert_default();
    if request.tty && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_string());
    }
    process
}

/// Checks `runAsNonRoot` against the resolved user. `image_user` is the image's USER as written.
pub(in crate::containers) fn apply_user_policy(
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

/// A value below our own cannot be set without CAP_SYS_RESOURCE: then ours is used.
fn oom_score_adj(wanted: i32, machine: &Machine) -> i32 {
    let wanted = wanted.clamp(-1000, 1000);
    if machine.can_raise_limits { wanted } else { wanted.max(machine.oom_score_adj) }
}
