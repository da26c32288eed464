//! `-o custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[*].image`.

use std::str::FromStr;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::output::go_template::go_text;
use crate::output::table::TextTable;
use api::jsonpath::Template;

/// Headers and their paths.
#[derive(Clone, Debug)]
pub struct Columns(Vec<(String, Template)>);

impl FromStr for Columns {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text.is_empty() {
            bail!("custom-columns format specified but no custom columns given");
        }
        let column = |part: &str| {
            let (name, path) = part
                .split_once(':')
                .filter(|(name, path)| !name.is_empty() && !path.is_empty())
                .with_context(|| {
                    format!(
                        "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                    )
                })?;
            Ok((name.to_owned(), Template::parse_path(path)?))
        };
        Ok(Self(text.split(',').map(column).collect::<anyhow::Result<_>>()?))
    }
}

impl Columns {
    /// A file with headers in the first line and paths in the second.
    pub fn from_file(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let (headers, paths) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let pairs: Vec<String> = headers
            .split_whitespace()
            .zip(paths.split_whitespace())
            .map(|(name, path)| format!("{name}:{path}"))
            .collect();
        pairs.join(",").parse()
    }

    pub fn render(&self, objects: &[&Value], headers: bool) -> String {
        let cell = |path: &Template, object: &Value| {
            let found: Vec<String> = path.find(object).iter().map(|value| go_text(value)).collect();
            if found.is_empty() { "<none>".to_owned() } else { found.join(",") }
        };
        let text = TextTable {
            headers: self.0.iter().map(|(name, _)| name.clone()).collect(),
            rows: objects
                .iter()
                .map(|object| self.0.iter().map(|(_, path)| cell(path, object)).collect())
                .collect(),
        };
        text.render(headers, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_show_paths_and_none() {
        let columns: Columns =
            "NAME:.metadata.name,IMAGES:.spec.containers[*].image,X:{.missing}".parse().unwrap();
        let object = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"image": "a"}, {"image": "b"}]}});
        assert_eq!(columns.render(&[&object], true), "NAME   IMAGES   X\nweb    a,b      <none>\n");
        assert!("NAME".parse::<Columns>().is_err());
    }
}
