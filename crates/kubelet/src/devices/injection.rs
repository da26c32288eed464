//! What a container gets together with its devices.

use std::path::PathBuf;

use rpc::deviceplugin_v1beta1 as pb;

use super::error::DeviceError;
use super::state::ByResource;
use crate::containers::{Device, Mount};

/// Added to a container's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub annotations: Vec<(String, String)>,
}

impl Injection {
    /// The responses of all plugins together. Of several values for one name, mount point or device,
    /// the first counts, as upstream.
    pub(super) fn of(allocated: &ByResource) -> Result<Self, DeviceError> {
        let mut all = Self::default();
        for allocation in allocated.values() {
            all.add(&allocation.response)?;
        }
        Ok(all)
    }

    fn add(&mut self, response: &pb::ContainerAllocateResponse) -> Result<(), DeviceError> {
        if let Some(device) = response.cdi_devices.first() {
            return Err(DeviceError::Cdi(device.name.clone()));
        }
        add_pairs(&mut self.env, &response.envs);
        add_pairs(&mut self.annotations, &response.annotations);
        for mount in &response.mounts {
            if self.mounts.iter().all(|known| known.container_path != mount.container_path) {
                self.mounts.push(Mount {
                    host_path: PathBuf::from(&mount.host_path),
                    container_path: mount.container_path.clone(),
                    read_only: mount.read_only,
                    ..Default::default()
                });
            }
        }
        for device in &response.devices {
            if self.devices.iter().all(|known| known.container_path != device.container_path) {
                self.devices.push(Device {
                    host_path: PathBuf::from(&device.host_path),
                    container_path: device.container_path.clone(),
                    permissions: device.permissions.clone(),
                });
            }
        }
        Ok(())
    }
}

fn add_pairs(pairs: &mut Vec<(String, String)>, more: &std::collections::HashMap<String, String>) {
    let mut more: Vec<_> = more.iter().collect();
    more.sort();
    for (name, value) in more {
        if pairs.iter().all(|(known, _)| known != name) {
            pairs.push((name.clone(), value.clone()));
        }
    }
}
