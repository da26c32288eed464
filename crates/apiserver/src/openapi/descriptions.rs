//! Descriptions of definitions and fields, which the build extracts from `k8s-openapi`.

use std::collections::BTreeMap;

/// Lines of key, tab and text.
static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/descriptions.txt"));

/// Descriptions by definition (`api.core.v1.Pod`) and field (`api.core.v1.Pod.spec`).
pub fn read() -> BTreeMap<&'static str, String> {
    TEXT.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(key, text)| (key, unescaped(text)))
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) if characters.clone().next() == Some('n') => {
                characters.next();
                out.push('\n');
            }
            (_, true) => out.extend(characters.next()),
            (other, false) => out.push(other),
        }
    }
    out
}
