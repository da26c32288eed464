//! The user's editor, from `$KUBE_EDITOR`, `$EDITOR` or `$VISUAL`.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, bail};

/// Opens the user's editor on a file with `text`; returns what was saved.
pub fn in_editor(text: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new().prefix("skiff-edit-").suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    let editor = ["KUBE_EDITOR", "EDITOR", "VISUAL"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "vi".to_owned());
    // The value may have arguments: it is run by the shell, as in kubectl.
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file.path())
        .status()
        .with_context(|| format!("unable to launch the editor {editor:?}"))?;
    if !status.success() {
        bail!("there was a problem with the editor {editor:?}");
    }
    Ok(std::fs::read_to_string(file.path())?)
}
