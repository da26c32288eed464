//! Allocations on disk, in upstream's file and shape (monitoring agents read it).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use rpc::deviceplugin_v1beta1 as pb;
use serde::{Deserialize, Serialize};

use super::error::DeviceError;
use super::state::{Allocation, Allocations, State};

/// The file's name.
pub(super) const NAME: &str = "kubelet_internal_checkpoint";

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    data: Data,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(default)]
    pod_device_entries: Vec<Entry>,
    /// Device ids by resource; only the names are used.
    #[serde(default)]
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    devices: BTreeMap<i64, BTreeSet<String>>,
    /// The plugin's encoded response, in base64.
    #[serde(rename = "AllocResp")]
    response: String,
}

/// Reads allocations, and the resources that plugins had registered. Without a file there are none.
pub(super) fn read(directory: &Path) -> Result<(Allocations, BTreeSet<String>), DeviceError> {
    let path = directory.join(NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Default::default()),
        read => read.map_err(DeviceError::file("read", &path))?,
    };
    let bad = |message: String| DeviceError::Checkpoint { path: path.clone(), message };
    let found: Checkpoint =
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let mut allocations = Allocations::new();
    for entry in found.data.pod_device_entries {
        let response = STANDARD.decode(&entry.response).map_err(|error| bad(error.to_string()))?;
        let response = pb::ContainerAllocateResponse::decode(response.as_slice())
            .map_err(|error| bad(error.to_string()))?;
        let of_pod = allocations.entry(entry.pod_uid).or_default();
        let of_container = of_pod.entry(entry.container).or_default();
        of_container.insert(entry.resource, Allocation { devices: entry.devices, response });
    }
    Ok((allocations, found.data.registered_devices.into_keys().collect()))
}

/// Written to another file and renamed, so that the file is always complete.
pub(super) fn write(directory: &Path, state: &State) -> Result<(), DeviceError> {
    let mut data = Data::default();
    for (pod_uid, containers) in &state.allocations {
        for (container, resources) in containers {
            data.pod_device_entries.extend(resources.iter().map(|(resource, allocation)| Entry {
                pod_uid: pod_uid.clone(),
                container: container.clone(),
                resource: resource.clone(),
                devices: allocation.devices.clone(),
                response: STANDARD.encode(allocation.response.encode_to_vec()),
            }));
        }
    }
    for (name, resource) in &state.resources {
        let healthy = resource.devices.iter().filter(|(_, device)| device.healthy);
        let ids = healthy.map(|(id, _)| id.clone()).collect();
        data.registered_devices.insert(name.clone(), ids);
    }
    let bytes = serde_json::to_vec(&Checkpoint { data }).expect("maps with text and number keys");
    let path = directory.join(NAME);
    let beside = directory.join(format!("{NAME}.new"));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(DeviceError::file("write", &beside))?;
    fs::rename(&beside, &path).map_err(DeviceError::file("rename to", &path))
}
