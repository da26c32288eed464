//! Tables of what goes into a specification and what comes out.

use std::path::PathBuf;

use super::*;
use crate::runtime::ExecRequest;
use crate::runtime::container::{Mount, MountPropagation, SecurityContext};
use crate::runtime::pod::{PodConfig, PodRef};

fn sandbox() -> PodSandbox {
    PodSandbox {
        config: PodConfig {
            pod: PodRef { uid: "u1".into(), namespace: "default".into(), name: "web".into() },
            hostname: "web-0".into(),
            ..PodConfig::default()
        },
        netns: Some("/ns/net".into()),
        ipcns: Some("/ns/ipc".into()),
        utsns: Some("/ns/uts".into()),
        pidns: None,
        shm: "/pods/u1/shm".into(),
        id: String::new(),
        created: true,
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["one".into()],
        env: vec!["A=image".into(), "B=image".into()],
        working_dir: "/work".into(),
        ..ImageConfig::default()
    }
}

fn machine() -> Machine {
    Machine {
        bounding: vec!["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()],
        max_open_files: 100,
        ..Machine::default()
    }
}

fn spec_on(sandbox: &PodSandbox, config: &ContainerConfig, machine: &Machine) -> Spec {
    build(SpecInput {
        sandbox,
        config,
        image: &image(),
        user: &ContainerUser::default(),
        cgroup: &CgroupPath::new("/kubepods/podu1/c1"),
        machine,
        pidns: None,
    })
    .unwrap()
}

fn spec(config: &ContainerConfig) -> Spec {
    spec_on(&sandbox(), config, &machine())
}

#[test]
fn commands_and_images() {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (command, args, line) in [
        (&[][..], &[][..], &["/entry", "one"][..]),
        (&[], &["two"], &["/entry", "two"]),
        (&["/own"], &[], &["/own"]),
        (&["/own"], &["two"], &["/own", "two"]),
    ] {
        let config = ContainerConfig {
            command: words(command),
            args: words(args),
            ..ContainerConfig::default()
        };
        assert_eq!(spec(&config).process.args, line);
    }
}

#[test]
fn nothing_to_run_is_an_error() {
    let (sandbox, machine) = (sandbox(), machine());
    let input = SpecInput {
        sandbox: &sandbox,
        config: &ContainerConfig::default(),
        image: &ImageConfig::default(),
        user: &ContainerUser::default(),
        cgroup: &CgroupPath::default(),
        machine: &machine,
        pidns: None,
    };
    let error = build(input).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.waiting_reason()),
        ("no command specified", "CreateContainerConfigError")
    );
}

#[test]
fn the_environment_is_layered() {
    let config = ContainerConfig {
        env: vec![("B".into(), "own".into()), ("C".into(), "x=y".into())],
        tty: true,
        ..Default::default()
    };
    let env = spec(&config).process.env;
    for entry in ["A=image", "B=own", "C=x=y", "HOSTNAME=web-0", "TERM=xterm"] {
        assert!(env.iter().any(|known| known == entry), "{entry} in {env:?}");
    }
    assert_eq!(env.iter().filter(|entry| entry.starts_with("B=")).count(), 1);
    assert!(env[0].starts_with("PATH="));
    assert_eq!(spec(&config).process.cwd, "/work");
    let own = ContainerConfig { working_dir: Some("/own".into()), ..ContainerConfig::default() };
    assert_eq!(spec(&own).process.cwd, "/own");
}

#[test]
fn namespaces_are_the_pods() {
    let kinds = |spec: &Spec| -> Vec<(&'static str, bool)> {
        spec.linux
            .namespaces
            .iter()
            .map(|namespace| (namespace.kind, namespace.path.is_some()))
            .collect()
    };
    let own = spec(&ContainerConfig::default());
    assert_eq!(
        kinds(&own),
        [("mount", false), ("network", true), ("ipc", true), ("uts", true), ("pid", false)]
    );
    assert_eq!(own.annotations[SHIM_GROUP], "u1");

    let mut host = sandbox();
    (host.netns, host.ipcns, host.utsns) = (None, None, None);
    host.config.host_pid = true;
    let host = spec_on(&host, &ContainerConfig::default(), &machine());
    assert_eq!(kinds(&host), [("mount", false)]);

    let mut shared = sandbox();
    shared.pidns = Some("/ns/pid".into());
    let unified = Machine { unified_cgroups: true, ..machine() };
    let shared = spec_on(&shared, &ContainerConfig::default(), &unified);
    assert_eq!(shared.linux.namespaces.last().unwrap().kind, "cgroup");
    assert!(kinds(&shared).contains(&("pid", true)));
    assert_eq!(shared.linux.resources.unified["memory.oom.group"], "1");
}

#[test]
fn volumes_come_outermost_first_and_replace_standard_mounts() {
    let mount = |path: &str, propagation| Mount {
        host_path: PathBuf::from("/host"),
        container_path: path.into(),
        propagation,
        ..Mount::default()
    };
    let config = ContainerConfig {
        mounts: vec![
            mount("/data/inner/", MountPropagation::None),
            mount("/data", MountPropagation::HostToContainer),
            mount("/dev/shm", MountPropagation::None),
        ],
        ..ContainerConfig::default()
    };
    let spec = spec(&config);
    let paths: Vec<&str> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(paths.iter().filter(|path| **path == "/dev/shm").count(), 1);
    assert_eq!(paths[paths.len() - 3..], ["/data", "/data/inner", "/dev/shm"]);
    assert_eq!(spec.linux.rootfs_propagation, Some("rslave"));
    let data = spec.mounts.iter().find(|mount| mount.destination == "/data").unwrap();
    assert_eq!(data.options, ["rbind", "rslave", "rw"]);
}

#[test]
fn limits_that_cannot_be_raised_are_clamped() {
    let config = ContainerConfig {
        oom_score_adj: -997,
        rlimits: vec![crate::runtime::Rlimit {
            kind: "RLIMIT_NOFILE".into(),
            soft: 50,
            hard: 1000,
        }],
        ..ContainerConfig::default()
    };
    let process = spec(&config).process;
    assert_eq!(
        (process.oom_score_adj, process.rlimits[0].soft, process.rlimits[0].hard),
        (Some(0), 50, 100)
    );
    let able = Machine { can_raise_limits: true, ..machine() };
    let process = spec_on(&sandbox(), &config, &able).process;
    assert_eq!((process.oom_score_adj, process.rlimits[0].hard), (Some(-997), 1000));
}

#[test]
fn privileged_is_unmasked_but_stays_in_our_bound() {
    let masked = spec(&ContainerConfig::default());
    assert!(masked.linux.masked_paths.contains(&"/proc/kcore".to_string()));
    assert!(!masked.linux.resources.devices[0].allow);
    let security =
        SecurityContext { privileged: true, no_new_privileges: true, ..SecurityContext::default() };
    let privileged = spec(&ContainerConfig { security, ..ContainerConfig::default() });
    assert!(privileged.linux.masked_paths.is_empty() && privileged.linux.readonly_paths.is_empty());
    assert!(privileged.linux.resources.devices[0].allow);
    assert!(!privileged.process.no_new_privileges);
    assert_eq!(privileged.process.capabilities.bounding, ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
}

#[test]
fn commands_added_later_are_the_containers_own() {
    let first = spec(&ContainerConfig::default()).process;
    let text = serde_json::to_vec(&first).unwrap();
    let read: oci::Process = serde_json::from_slice(&text).unwrap();
    assert_eq!(read, first);
    let added = exec_process(
        read,
        &ExecRequest {
            command: vec!["ls".to_string()],
            tty: true,
            size: Some((80, 24)),
            ..ExecRequest::default()
        },
    );
    assert_eq!((added.args.as_slice(), added.terminal), (&["ls".to_string()][..], true));
    assert!(
        added.env.contains(&"TERM=xterm".to_string()) && added.env.contains(&"A=image".to_string())
    );
    assert_eq!(added.capabilities, first.capabilities);
}
