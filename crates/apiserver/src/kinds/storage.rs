//! The kinds of CSI drivers: CSIDrivers, CSINodes, CSIStorageCapacities, VolumeAttachments and
//! VolumeAttributesClasses (`k8s.io/kubernetes/pkg/apis/storage/validation`).

use std::collections::BTreeSet;

use api::defaults::fill;
use api::names;
use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSINodeDriver, CSIStorageCapacity, VolumeAttachment, VolumeAttributesClass,
};
use serde_json::Value;

use super::at::At;
use super::columns::{self, boolean, integer, text};
use super::table::{Check, Fixed, Row, Rows, age, items, name, status_apart, text_at};
use super::{check, persistent_volume};

const DRIVER_NAME_MAX: usize = 63;
/// Characters of a node's id, since version 1.2 of the CSI specification.
const NODE_ID_MAX: usize = 256;
const PARAMETERS_MAX: usize = 512;
/// Bytes of all parameters, or of what an attacher says of a volume, keys and values.
const TEXTS_MAX_BYTES: usize = 256 << 10;
const ERROR_MAX_BYTES: usize = 1024;

pub static CSI_DRIVERS: Rows<CSIDriver> = Rows {
    default: |driver| {
        let spec = &mut driver.spec;
        fill::missing(&mut spec.attach_required, true);
        fill::missing(&mut spec.pod_info_on_mount, false);
        fill::missing(&mut spec.storage_capacity, false);
        fill::missing(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType");
        fill::missing(&mut spec.requires_republish, false);
        fill::missing(&mut spec.se_linux_mount, false);
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    },
    checks: &[(
        "spec",
        Check::Inside(&[
            // Upstream's name of the path.
            ("", Check::Relation(attach_required)),
            ("podInfoOnMount", Check::Present("")),
            ("storageCapacity", Check::Present("")),
            ("fsGroupPolicy", Check::OneOf(&["File", "None", "ReadWriteOnceWithFSType"])),
            ("tokenRequests", Check::Relation(token_requests)),
            ("volumeLifecycleModes", Check::Relation(lifecycle_modes)),
            ("seLinuxMount", Check::Present("")),
            (
                "nodeAllocatableUpdatePeriodSeconds",
                Check::AtLeast(10, "must be greater than or equal to 10 seconds"),
            ),
            ("", Check::Relation(tokens_in_secrets)),
            ("preventPodSchedulingIfMissing", Check::Relation(no_limit_scaling)),
        ]),
    )],
    update: |new, old, at| {
        let (new, old) = (&new.spec, &old.spec);
        if new.attach_required != old.attach_required {
            at.child("spec.attachedRequired").invalid(new.attach_required, check::IMMUTABLE);
        }
        if new.volume_lifecycle_modes != old.volume_lifecycle_modes {
            let modes = &new.volume_lifecycle_modes;
            at.child("spec.volumeLifecycleModes").invalid(modes, check::IMMUTABLE);
        }
    },
    unconditional: false,
    columns: &[
        name(),
        boolean("AttachRequired", "Whether volumes are attached to nodes before they are mounted.")
            .flag("spec.attachRequired", true),
        boolean("PodInfoOnMount", "Whether the driver is told which pod a volume is mounted for.")
            .flag("spec.podInfoOnMount", false),
        boolean("StorageCapacity", "Whether pods go where the driver reports enough capacity.")
            .flag("spec.storageCapacity", false),
        text("TokenRequests", "Audiences of the tokens that the driver gets.").json(|driver| {
            match driver["spec"]["tokenRequests"].as_array() {
                None => "<unset>".into(),
                Some(requests) => {
                    let audience = |one: &Value| text_at(one, "audience").to_owned();
                    requests.iter().map(audience).collect::<Vec<_>>().join(",").into()
                }
            }
        }),
        boolean(
            "RequiresRepublish",
            "Whether mounted volumes are published again from time to time.",
        )
        .flag("spec.requiresRepublish", false),
        text("Modes", "Lifecycles that volumes of the driver can have.")
            .or("spec.volumeLifecycleModes", columns::NONE),
        age(),
    ],
    ..Rows::NEW
};

pub static CSI_NODES: Rows<CSINode> = Rows {
    checks: &[
        (
            "spec.drivers",
            Check::Each(&[
                ("name", Check::RequiredText(driver_name)),
                ("nodeID", Check::Required("")),
                ("nodeID", Check::TextIfAny(node_id)),
                ("allocatable.count", Check::AtLeast(0, check::NOT_NEGATIVE)),
                ("topologyKeys", Check::Relation(topology_keys)),
            ]),
        ),
        ("spec.drivers", Check::Relation(unique_names)),
    ],
    // A driver that is there stays as it is, except for how many volumes a node can have; it may
    // go, and come again.
    update: |new, old, at| {
        for was in &old.spec.drivers {
            let same = |known: &CSINodeDriver| {
                (&known.node_id, &known.topology_keys) == (&was.node_id, &was.topology_keys)
            };
            let named = new.spec.drivers.iter().filter(|driver| driver.name == was.name);
            for _ in named.filter(|driver| !same(driver)) {
                at.child("spec.drivers").invalid_whole(check::IMMUTABLE);
            }
        }
    },
    unconditional: false,
    columns: &[
        name(),
        integer("Drivers", "How many drivers the node has.")
            .json(|node| node["spec"]["drivers"].as_array().map_or(0, Vec::len).into()),
        age(),
    ],
    ..Rows::NEW
};

pub static CSI_STORAGE_CAPACITIES: Rows<CSIStorageCapacity> = Rows {
    default: |capacity| {
        fill::amount(&mut capacity.capacity);
        fill::amount(&mut capacity.maximum_volume_size);
    },
    checks: &[
        ("nodeTopology", Check::LabelSelector),
        ("storageClassName", Check::Text(names::dns_subdomain)),
        ("capacity", Check::Amount),
    ],
    fixed: &[("nodeTopology", Fixed::Immutable), ("storageClassName", Fixed::Immutable)],
    unconditional: false,
    columns: &[
        name(),
        text("StorageClassName", "Class of the volumes for which there is room.")
            .at("storageClassName"),
        text("Capacity", "How much room there is.").pointer("capacity"),
    ],
    ..Rows::NEW
};

pub static VOLUME_ATTACHMENTS: Rows<VolumeAttachment> = Rows {
    parts: status_apart!(),
    checks: &[
        ("spec.attacher", Check::RequiredText(driver_name)),
        ("spec.source", Check::Relation(attached_source)),
        ("spec.nodeName", Check::Text(names::dns_subdomain)),
        ("spec.source.persistentVolumeName", Check::TextIfAny(names::dns_subdomain)),
    ],
    fixed: &[("spec", Fixed::Whole("spec"))],
    status: &[
        ("status.attachmentMetadata", Check::Relation(small_texts)),
        ("status.attachError", Check::Inside(VOLUME_ERROR)),
        ("status.detachError", Check::Inside(VOLUME_ERROR)),
    ],
    unconditional: false,
    columns: &[
        name(),
        text("Attacher", "Driver that attaches the volume.").at("spec.attacher"),
        text("PV", "The volume.").at("spec.source.persistentVolumeName"),
        text("Node", "Where it is attached.").at("spec.nodeName"),
        boolean("Attached", "Whether it is attached.").flag("status.attached", false),
        age(),
    ],
    ..Rows::NEW
};

const VOLUME_ERROR: &[Row] = &[
    ("message", Check::Relation(error_message)),
    ("errorCode", Check::AtLeast(0, "must be between 0 and 2147483647, inclusive")),
];

pub static VOLUME_ATTRIBUTES_CLASSES: Rows<VolumeAttributesClass> = Rows {
    checks: &[
        ("driverName", Check::RequiredText(provisioner)),
        ("parameters", Check::Relation(parameters)),
        ("parameters", Check::Required("must contain at least one key/value pair")),
    ],
    fixed: &[
        ("driverName", Fixed::Forbidden("updates to driverName are forbidden.")),
        ("parameters", Fixed::Forbidden("updates to parameters are forbidden.")),
    ],
    columns: &[name(), text("DriverName", "Driver of the class.").at("driverName"), age()],
    ..Rows::NEW
};

/// What is wrong with the name of a CSI driver.
pub fn driver_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > DRIVER_NAME_MAX {
        problems.push(format!("must be no more than {DRIVER_NAME_MAX} bytes"));
    }
    problems.extend(names::dns_subdomain(&name.to_lowercase()));
    problems
}

pub fn provisioner(name: &str) -> Vec<String> {
    names::qualified_name(&name.to_lowercase())
}

fn node_id(id: &str) -> Vec<String> {
    let problem = || format!("must be {NODE_ID_MAX} characters or less");
    (id.len() > NODE_ID_MAX).then(problem).into_iter().collect()
}

fn attach_required(spec: &Value, at: &At<'_>) {
    if spec["attachRequired"].is_null() {
        at.child("attachedRequired").required("");
    }
}

/// Audiences are different, and lifetimes possible.
fn token_requests(requests: &Value, at: &At<'_>) {
    const LEAST_SECONDS: i64 = 600;
    let mut audiences = BTreeSet::new();
    for (index, request) in items(requests).iter().enumerate() {
        let at = at.index(index);
        let audience = text_at(request, "audience");
        if !audiences.insert(audience) {
            at.child("audience").duplicate(audience);
            continue;
        }
        let at = at.child("expirationSeconds");
        let problem = match request["expirationSeconds"].as_i64() {
            Some(seconds) if seconds < LEAST_SECONDS => {
                Some((seconds, "may not specify a duration less than 10 minutes"))
            }
            Some(seconds) if seconds > 1 << 32 => {
                Some((seconds, "may not specify a duration larger than 2^32 seconds"))
            }
            _ => None,
        };
        if let Some((seconds, problem)) = problem {
            at.invalid(seconds, problem);
        }
    }
}

fn lifecycle_modes(modes: &Value, at: &At<'_>) {
    const MODES: &[&str] = &["Persistent", "Ephemeral"];
    for mode in items(modes).iter().filter_map(Value::as_str) {
        if !MODES.contains(&mode) {
            at.not_supported(mode, MODES);
        }
    }
}

fn tokens_in_secrets(spec: &Value, at: &At<'_>) {
    let flag = &spec["serviceAccountTokenInSecrets"];
    if !flag.is_null() && spec["tokenRequests"].as_array().is_none_or(Vec::is_empty) {
        at.child("serviceAccountTokenInSecrets").invalid(
            flag,
            "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
        );
    }
}

/// The feature gate is off by default.
fn no_limit_scaling(flag: &Value, at: &At<'_>) {
    if !flag.is_null() {
        at.forbidden("preventPodSchedulingIfMissing requires the VolumeLimitScaling feature gate to be enabled");
    }
}

fn topology_keys(keys: &Value, at: &At<'_>) {
    let mut unique = check::Unique::default();
    for key in items(keys).iter().filter_map(Value::as_str) {
        unique.add(key, at);
        at.qualified_name(key);
    }
}

fn unique_names(drivers: &Value, at: &At<'_>) {
    let mut unique = check::Unique::default();
    for (index, driver) in items(drivers).iter().enumerate() {
        let name = text_at(driver, "name");
        unique.add(name, &at.index(index).child("name"));
    }
}

/// A persistent volume or one that a pod names, and not both.
fn attached_source(source: &Value, at: &At<'_>) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let (inline, name) = (&source["inlineVolumeSpec"], &source["persistentVolumeName"]);
    match (inline.is_null(), name.as_str()) {
        (true, None) => at.required(ONE),
        (false, Some(_)) => at.forbidden(ONE),
        (true, Some("")) => {
            at.child("persistentVolumeName").required("must specify non empty persistentVolumeName")
        }
        (true, Some(_)) => {}
        (false, None) => {
            if let Ok(spec) = serde_json::from_value::<PersistentVolumeSpec>(inline.clone()) {
                let at = at.child("inlineVolumeSpec");
                persistent_volume::validate_inline(&spec, &at);
            }
        }
    }
}

fn small_texts(texts: &Value, at: &At<'_>) {
    if bytes_of(texts) > TEXTS_MAX_BYTES {
        at.too_long(TEXTS_MAX_BYTES);
    }
}

fn bytes_of(texts: &Value) -> usize {
    let texts = texts.as_object().into_iter().flatten();
    texts.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum()
}

/// Upstream names another limit than the one it applies.
fn error_message(message: &Value, at: &At<'_>) {
    if message.as_str().is_some_and(|message| message.len() > ERROR_MAX_BYTES) {
        at.too_long(TEXTS_MAX_BYTES);
    }
}

fn parameters(parameters: &Value, at: &At<'_>) {
    let all = parameters.as_object();
    if all.is_some_and(|all| all.len() > PARAMETERS_MAX) {
        at.too_long(PARAMETERS_MAX);
        return;
    }
    if all.is_some_and(|all| all.contains_key("")) {
        at.invalid("", "field can not be empty.");
    }
    small_texts(parameters, at);
}
