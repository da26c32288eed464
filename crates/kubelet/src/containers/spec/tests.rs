//! Configurations, and the JSON of their specifications.

use oci_spec::runtime::{Capabilities, Capability};
use serde_json::{Value, json};

use super::*;
use crate::containers::ExecRequest;
use crate::containers::container::{Mount, MountPropagation, SecurityContext};
use crate::containers::pod::{PodConfig, PodRef};

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
        user_namespace: None,
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
    Machine { bounding: [Capability::Chown, Capability::SysAdmin].into(), ..Machine::default() }
}

fn spec_on(sandbox: &PodSandbox, config: &ContainerConfig, machine: &Machine) -> Value {
    let spec = build(SpecInput {
        sandbox,
        config,
        image: &image(),
        user: &ContainerUser::default(),
        cgroup: &CgroupPath::new("/kubepods/podu1/c1"),
        machine,
        pidns: None,
    });
    serde_json::to_value(spec.unwrap()).unwrap()
}

fn spec(config: &ContainerConfig) -> Value {
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
        assert_eq!(spec(&config)["process"]["args"], json!(line));
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
    let process = &spec(&config)["process"];
    let path = format!("PATH={}", process::DEFAULT_PATH);
    let env = [path.as_str(), "HOSTNAME=web-0", "TERM=xterm", "A=image", "B=own", "C=x=y"];
    assert_eq!(process["env"], json!(env));
    assert_eq!(process["cwd"], "/work");
    let own = ContainerConfig { working_dir: Some("/own".into()), ..ContainerConfig::default() };
    assert_eq!(spec(&own)["process"]["cwd"], "/own");
}

#[test]
fn namespaces_are_the_pods() {
    let own = spec(&ContainerConfig::default());
    let network = json!({"type": "network", "path": "/ns/net"});
    let ipc = json!({"type": "ipc", "path": "/ns/ipc"});
    let uts = json!({"type": "uts", "path": "/ns/uts"});
    let (mount, pid) = (json!({"type": "mount"}), json!({"type": "pid"}));
    assert_eq!(own["linux"]["namespaces"], json!([mount, network, ipc, uts, pid]));
    assert_eq!(own["annotations"][SHIM_GROUP], "u1");

    let mut host = sandbox();
    (host.netns, host.ipcns, host.utsns) = (None, None, None);
    host.config.host_pid = true;
    let host = spec_on(&host, &ContainerConfig::default(), &machine());
    assert_eq!(host["linux"]["namespaces"], json!([mount]));

    let mut shared = sandbox();
    shared.pidns = Some("/ns/pid".into());
    let unified = Machine { unified_cgroups: true, ..machine() };
    let shared = spec_on(&shared, &ContainerConfig::default(), &unified);
    let pid = json!({"type": "pid", "path": "/ns/pid"});
    let cgroup = json!({"type": "cgroup"});
    assert_eq!(shared["linux"]["namespaces"], json!([mount, network, ipc, uts, pid, cgroup]));
    assert_eq!(shared["linux"]["resources"]["unified"]["memory.oom.group"], "1");
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
    let mounts = spec["mounts"].as_array().unwrap();
    let paths: Vec<&str> =
        mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(paths.iter().filter(|path| **path == "/dev/shm").count(), 1);
    assert_eq!(paths[paths.len() - 3..], ["/data", "/data/inner", "/dev/shm"]);
    assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
    let data = mounts.iter().find(|mount| mount["destination"] == "/data").unwrap();
    assert_eq!(data["options"], json!(["rbind", "rslave", "rw"]));
}

#[test]
fn an_oom_score_that_cannot_be_lowered_is_raised_to_our_own() {
    let config = ContainerConfig { oom_score_adj: -997, ..ContainerConfig::default() };
    assert_eq!(spec(&config)["process"]["oomScoreAdj"], 0);
    let able = Machine { can_raise_limits: true, ..machine() };
    assert_eq!(spec_on(&sandbox(), &config, &able)["process"]["oomScoreAdj"], -997);
}

#[test]
fn privileged_is_unmasked_but_stays_in_our_bound() {
    let masked = spec(&ContainerConfig::default());
    assert_eq!(masked["linux"]["maskedPaths"], json!(MASKED_PATHS));
    assert_eq!(masked["linux"]["readonlyPaths"], json!(READONLY_PATHS));
    assert_eq!(masked["linux"]["resources"]["devices"], json!([{"allow": false, "access": "rwm"}]));
    let security =
        SecurityContext { privileged: true, no_new_privileges: true, ..SecurityContext::default() };
    let privileged = spec(&ContainerConfig { security, ..ContainerConfig::default() });
    assert_eq!(privileged["linux"]["maskedPaths"], json!([]));
    assert_eq!(privileged["linux"]["readonlyPaths"], json!([]));
    assert_eq!(privileged["linux"]["resources"]["devices"][0]["allow"], true);
    assert_eq!(privileged["process"]["noNewPrivileges"], false);
    let capabilities = privileged["process"]["capabilities"].as_object().unwrap();
    assert_eq!(capabilities.keys().collect::<Vec<_>>(), ["bounding", "effective", "permitted"]);
    for set in capabilities.values() {
        let set: Capabilities = serde_json::from_value(set.clone()).unwrap();
        assert_eq!(set, machine().bounding);
    }
}

/// The types of oci-spec come with defaults (a host name, mounts, limits, a shell) that no pod has.
#[test]
fn nothing_is_left_to_the_defaults_of_oci_spec() {
    let members =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let cgroup = CgroupPath::new("/kubepods/podu1/pause");
    let pause = crate::containers::sandbox::pause_spec(&sandbox(), &cgroup);
    let pause = serde_json::to_value(pause).unwrap();
    let mut container = spec(&ContainerConfig::default());
    container["process"].as_object_mut().unwrap().remove("oomScoreAdj");
    for spec in [&pause, &container] {
        assert_eq!(
            members(spec),
            ["annotations", "linux", "mounts", "ociVersion", "process", "root"]
        );
        assert_eq!(
            members(&spec["process"]),
            ["args", "capabilities", "cwd", "env", "noNewPrivileges", "terminal", "user"]
        );
        assert_eq!(
            members(&spec["linux"]),
            ["cgroupsPath", "devices", "maskedPaths", "namespaces", "readonlyPaths", "resources"]
        );
    }
    assert_eq!(pause["linux"]["resources"], json!({}));
    assert_eq!(pause["process"]["args"], json!(["/pause"]));
    let none = json!({"bounding": [], "effective": [], "permitted": []});
    assert_eq!(pause["process"]["capabilities"], none);
}

#[test]
fn commands_added_later_are_the_containers_own() {
    let stored = spec(&ContainerConfig::default())["process"].clone();
    let first: Process = serde_json::from_value(stored).unwrap();
    let request = ExecRequest {
        command: vec!["ls".to_string()],
        tty: true,
        size: Some((80, 24)),
        ..ExecRequest::default()
    };
    let added = exec_process(first.clone(), &request);
    assert_eq!(added.capabilities(), first.capabilities());
    let added = serde_json::to_value(added).unwrap();
    assert_eq!(added["args"], json!(["ls"]));
    assert_eq!(added["terminal"], true);
    assert_eq!(added["consoleSize"], json!({"height": 24, "width": 80}));
    let env: Vec<String> = serde_json::from_value(added["env"].clone()).unwrap();
    assert!(env.contains(&"TERM=xterm".to_string()) && env.contains(&"A=image".to_string()));
}
