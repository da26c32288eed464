//! Reads the markers (`+listType=map`, `+patchMergeKey=name`, ...) from the comments in
//! `k8s-pb`'s source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::rust_files;

/// The markers in the comment of one field or type.
#[derive(Clone, Debug, Default)]
pub struct Markers {
    pub list_type: Option<String>,
    pub map_keys: Vec<String>,
    pub patch_strategy: Option<String>,
    pub merge_key: Option<String>,
    /// `structType=atomic` or `mapType=atomic`.
    pub atomic: bool,
    /// JSON text of the default.
    pub default: Option<String>,
    /// Number of a field in Kubernetes' protobuf encoding.
    pub tag: Option<u16>,
    /// Name of the message type of a field, as written.
    message: Option<String>,
}

impl Markers {
    /// The markers as they are written in a comment.
    pub fn written(&self) -> impl Iterator<Item = String> {
        let named = [
            ("listType", &self.list_type),
            ("patchStrategy", &self.patch_strategy),
            ("patchMergeKey", &self.merge_key),
            ("default", &self.default),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let keys = self.map_keys.iter().map(|key| ("listMapKey", &**key));
        let atomic = self.atomic.then_some(("structType", "atomic"));
        named.chain(keys).chain(atomic).map(|(name, value)| format!("{name}={value}"))
    }

    /// Adds what a line of a comment says.
    pub fn add(&mut self, comment: &str) {
        let Some(marker) = comment.trim().strip_prefix('+') else {
            return;
        };
        let Some((name, value)) = marker.split_once('=') else {
            return;
        };
        let value = value.trim();
        match name {
            "listType" => self.list_type = Some(value.to_owned()),
            "listMapKey" => self.map_keys.push(value.to_owned()),
            "patchStrategy" => self.patch_strategy = Some(value.to_owned()),
            "patchMergeKey" => self.merge_key = Some(value.to_owned()),
            "structType" | "mapType" => self.atomic = value == "atomic",
            "default" if !value.starts_with("ref(") => self.default = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// The number in an attribute such as `#[prost(string, optional, tag = "1")]`.
fn tag(attribute: &str) -> Option<u16> {
    let (_, rest) = attribute.split_once("tag = \"")?;
    rest.split_once('"')?.0.parse().ok()
}

/// The markers of one type: its own, and its fields' by normalized name (see [`normalize`]).
#[derive(Clone, Debug, Default)]
pub struct TypeMarkers {
    pub own: Markers,
    pub fields: BTreeMap<String, Markers>,
}

impl TypeMarkers {
    /// The markers of a field by its JSON name. Go embeds some structs in others: their fields are
    /// JSON fields of the outer type, so message fields that are not among its JSON
    /// fields (`properties`, normalized) are searched as well.
    pub fn field<'a>(
        &'a self,
        name: &str,
        all: &'a All,
        module: &str,
        properties: &BTreeSet<String>,
    ) -> Option<&'a Markers> {
        self.search(name, all, module, properties).map(|(_, markers)| markers)
    }

    /// The field's numbers in the protobuf encoding, outermost first: two or three for a field of
    /// an embedded struct, none for a field that only JSON has.
    pub fn tags(
        &self,
        name: &str,
        all: &All,
        module: &str,
        properties: &BTreeSet<String>,
    ) -> Vec<u16> {
        match self.search(name, all, module, properties) {
            Some((outer, markers)) => outer.into_iter().chain(markers.tag).collect(),
            None => Vec::new(),
        }
    }

    /// The field, and the numbers of the embedded structs that it is in.
    fn search<'a>(
        &'a self,
        name: &str,
        all: &'a All,
        module: &str,
        properties: &BTreeSet<String>,
    ) -> Option<(Vec<u16>, &'a Markers)> {
        let name = normalize(name);
        if let Some(own) = self.fields.get(&name) {
            return Some((Vec::new(), own));
        }
        let mut embedded = self.fields.iter().filter(|(own, _)| !properties.contains(*own));
        embedded.find_map(|(_, field)| {
            let inner = all.get(&key(module, field.message.as_deref()?))?;
            let (outer, found) = inner.search(&name, all, module, properties)?;
            Some((field.tag.into_iter().chain(outer).collect(), found))
        })
    }
}

/// Types by [`key`].
pub type All = BTreeMap<String, TypeMarkers>;

/// `api.core.v1.pod`: in lower case, since prost writes `HttpGetAction` for `HTTPGetAction`.
pub fn key(module: &str, name: &str) -> String {
    format!("{module}.{name}").to_ascii_lowercase()
}

/// `hostIP` and `host_ip` both become `hostip`.
pub fn normalize(name: &str) -> String {
    name.trim_start_matches("r#").replace(['_', '$', '-'], "").to_ascii_lowercase()
}

pub fn read(folder: &Path) -> anyhow::Result<All> {
    let mut all = All::new();
    for file in rust_files(folder)? {
        let module: Vec<_> = match file.parent().and_then(|parent| parent.strip_prefix(folder).ok())
        {
            Some(module) => module.iter().map(|part| part.to_string_lossy()).collect(),
            None => continue,
        };
        parse(&std::fs::read_to_string(&file)?, &module.join("."), &mut all);
    }
    Ok(all)
}

fn parse(source: &str, module: &str, all: &mut All) {
    let mut pending = Markers::default();
    let mut current: Option<(String, TypeMarkers)> = None;
    for line in source.lines() {
        let text = line.trim();
        if let Some(comment) = text.strip_prefix("///") {
            pending.add(comment);
        } else if text.starts_with("#[prost(") {
            pending.tag = tag(text);
        } else if let Some(rest) = text.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches([' ', '{', '}']);
            let found = TypeMarkers { own: std::mem::take(&mut pending), ..TypeMarkers::default() };
            if rest.ends_with("{}") {
                all.insert(key(module, name), found);
            } else {
                current = Some((key(module, name), found));
            }
        } else if let (Some(rest), Some((_, found))) = (text.strip_prefix("pub "), &mut current) {
            let Some((name, ty)) = rest.split_once(':') else {
                continue;
            };
            let mut markers = std::mem::take(&mut pending);
            let message = ty.rsplit(['<', ':']).next().unwrap_or_default();
            markers.message = Some(message.trim_end_matches(['>', ',']).to_owned());
            found.fields.insert(normalize(name), markers);
        } else if text == "}" {
            pending = Markers::default();
            if let Some((name, found)) = current.take() {
                all.insert(name, found);
            }
        }
    }
}
