//! From objects to files: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::VolumeError;
use super::atomic::{Payload, Projected};
use crate::pod::downward_api::{self, RuntimeFields};

/// Default mode of files.
pub const DEFAULT_MODE: i32 = 0o644;

/// How the keys of an object are mapped to files.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Which keys, and their paths; `None`: all, under their own names.
    pub items: Option<&'a Vec<KeyToPath>>,
    /// Mode of files whose item has none.
    pub mode: i32,
    /// Missing keys are skipped.
    pub optional: bool,
}

/// Files of a ConfigMap.
pub fn config_map(map: &ConfigMap, selection: Selection<'_>) -> Result<Payload, VolumeError> {
    let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for (key, text) in map.data.iter().flatten() {
        data.insert(key, text.as_bytes());
    }
    for (key, bytes) in map.binary_data.iter().flatten() {
        data.insert(key, &bytes.0);
    }
    select(&data, selection, "config")
}

/// Files of a Secret.
pub fn secret(secret: &Secret, selection: Selection<'_>) -> Result<Payload, VolumeError> {
    let data = secret
        .data
        .iter()
        .flatten()
        .map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()))
        .collect();
    select(&data, selection, "secret")
}

fn select(
    data: &BTreeMap<&str, &[u8]>,
    selection: Selection<'_>,
    kind: &'static str,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::default();
    let Some(items) = selection.items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            payload.insert((*key).to_owned(), file(bytes, selection.mode, None))?;
        }
        return Ok(payload);
    };
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                let mode = item.mode.unwrap_or(selection.mode);
                payload.insert(item.path.clone(), file(bytes, mode, item.user))?;
            }
            None if selection.optional => {}
            None => {
                return Err(VolumeError::NoKey { kind, key: item.key.clone() });
            }
        }
    }
    Ok(payload)
}

/// Files of the downward API.
pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    runtime_fields: &RuntimeFields,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::default();
    for item in items {
        let text = if let Some(selector) = &item.field_ref {
            downward_api::field(pod, selector, runtime_fields)?
        } else if let Some(selector) = &item.resource_field_ref {
            downward_api::resource(pod, None, selector, runtime_fields)?
        } else {
            return Err(VolumeError::NoSource);
        };
        let mode = item.mode.unwrap_or(mode);
        payload.insert(item.path.clone(), file(text.as_bytes(), mode, item.user))?;
    }
    Ok(payload)
}

/// One file.
pub fn file(data: &[u8], mode: i32, owner: Option<i64>) -> Projected {
    Projected {
        data: data.to_vec(),
        mode: u32::try_from(mode).unwrap_or(0) & 0o777,
        owner: owner.and_then(|owner| u32::try_from(owner).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn keys_items_modes_and_binary_data() {
        let map = ConfigMap {
            data: Some([("a".into(), "1".into()), ("b".into(), "2".into())].into()),
            binary_data: Some([("bin".into(), ByteString(vec![0, 255]))].into()),
            ..Default::default()
        };
        let all = Selection { items: None, mode: DEFAULT_MODE, optional: false };
        let payload = config_map(&map, all).unwrap();
        assert_eq!(payload.keys().collect::<Vec<_>>(), ["a", "b", "bin"]);
        assert_eq!(payload["bin"].data, [0, 255]);
        let item = |key: &str, mode| KeyToPath {
            key: key.into(),
            path: format!("x/{key}"),
            mode,
            user: None,
        };
        let items = vec![item("b", Some(0o400)), item("gone", None)];
        let some = Selection { items: Some(&items), ..all };
        assert_eq!(
            config_map(&map, some).unwrap_err().to_string(),
            "references non-existent config key: gone"
        );
        let payload = config_map(&map, Selection { optional: true, ..some }).unwrap();
        assert_eq!(payload["x/b"].mode, 0o400);
        assert_eq!(payload.len(), 1);
    }

    /// A pod of a few kilobytes must not make the node hold gigabytes.
    #[test]
    fn a_key_that_is_listed_many_times_is_refused() {
        let map = ConfigMap {
            data: Some([("big".into(), "x".repeat(1 << 20))].into()),
            ..Default::default()
        };
        let items = |count: usize| -> Vec<KeyToPath> {
            let item = |number| KeyToPath {
                key: "big".into(),
                path: format!("{number}"),
                mode: None,
                user: None,
            };
            (0..count).map(item).collect()
        };
        let select = |items: &Vec<KeyToPath>| {
            let selection = Selection { items: Some(items), mode: DEFAULT_MODE, optional: false };
            config_map(&map, selection)
        };
        let half = select(&items(32)).unwrap();
        assert!(matches!(select(&items(65)), Err(VolumeError::TooLarge { .. })));
        let mut whole = Payload::default();
        whole.extend(half.clone()).unwrap();
        whole.extend(half).unwrap();
        let more = file(&[1], 0, None);
        let rest = |number: usize| (0..number).map(|n| (format!("more{n}"), more.clone()));
        // Even the smallest file occupies a page.
        let pages = usize::try_from(super::super::atomic::PAYLOAD_MAX_BYTES / 2 / 4096).unwrap();
        rest(pages).for_each(|(path, file)| whole.insert(path, file).unwrap());
        assert!(whole.insert("last".into(), more.clone()).is_err());
    }
}
