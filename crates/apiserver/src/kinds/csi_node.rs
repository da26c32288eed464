//! CSINodes: the CSI drivers of a node, and how many of their volumes it can have.

use std::collections::BTreeSet;

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};
use serde_json::Value;

use super::{Column, Strategy};

const DRIVER_NAME_MAX: usize = 63;
/// Characters of a node's id, since version 1.2 of the CSI specification.
const NODE_ID_MAX: usize = 256;

/// The strategy of CSINodes.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::integer("Drivers", "How many drivers the node has."), columns::AGE];

impl Strategy for Rules {
    type Object = CSINode;

    fn validate(&self, node: &CSINode) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut names = BTreeSet::new();
        let path = Path::new("spec").child("drivers");
        for (index, driver) in node.spec.drivers.iter().enumerate() {
            let path = path.index(index);
            validate_driver(driver, &path, &mut errors);
            if !names.insert(&driver.name) {
                errors.push(FieldError::duplicate(path.child("name"), &driver.name));
            }
        }
        errors
    }

    /// A driver that is there stays as it is; it may go, and come again.
    fn validate_update(&self, new: &CSINode, old: &CSINode) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for driver in &new.spec.drivers {
            let known = old.spec.drivers.iter().find(|known| known.name == driver.name);
            // How many volumes a node can have may change.
            let same = |known: &CSINodeDriver| {
                (&known.node_id, &known.topology_keys) == (&driver.node_id, &driver.topology_keys)
            };
            if known.is_some_and(|known| !same(known)) {
                // Upstream names the type.
                check::invalid_whole(check::IMMUTABLE, &Path::new("CSINodeDriver"), &mut errors);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, node: &CSINode, now: Timestamp) -> Vec<Value> {
        let name = node.metadata.name.clone().unwrap_or_default();
        vec![name.into(), node.spec.drivers.len().into(), columns::age(&node.metadata, now)]
    }
}

fn validate_driver(driver: &CSINodeDriver, path: &Path, errors: &mut Errors) {
    let name = path.child("name");
    if driver.name.is_empty() {
        errors.push(FieldError::required(&name, ""));
    } else {
        if driver.name.len() > DRIVER_NAME_MAX {
            errors.push(FieldError::too_long(&name, DRIVER_NAME_MAX));
        }
        let problems = api::names::dns_subdomain(&driver.name.to_lowercase());
        check::invalid(problems, &driver.name, &name, errors);
    }
    let id = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.push(FieldError::required(&id, ""));
    } else if driver.node_id.len() > NODE_ID_MAX {
        errors.push(FieldError::invalid(
            &id,
            &driver.node_id,
            format!("must be {NODE_ID_MAX} characters or less"),
        ));
    }
    let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
    if let Some(count) = count.filter(|count| *count < 0) {
        let path = path.child("allocatable").child("count");
        errors.push(FieldError::invalid(&path, count, check::NOT_NEGATIVE));
    }
    let mut keys = BTreeSet::new();
    for key in driver.topology_keys.iter().flatten() {
        let path = path.child("topologyKeys");
        if !keys.insert(key) {
            errors.push(FieldError::duplicate(&path, key));
        }
        check::invalid(api::names::qualified_name(key), key, &path, errors);
    }
}
