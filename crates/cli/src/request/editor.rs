//! The user's editor, from `$KUBE_EDITOR`, `$EDITOR` or `$VISUAL`.

use std::io::Write;

use anyhow::{Context, bail};
use runtime::program::Program;

/// Opens the user's editor on a file with `text`; returns what was saved.
pub fn in_editor(text: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new().prefix("skiff-edit-").suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    let editor = ["KUBE_EDITOR", "EDITOR", "VISUAL"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "vi".to_owned());
    // The value may have arguments: it is run by the shell, as in kubectl.
    let status = Program::new("sh")
        .option_with_value("-c", format!("{editor} \"$1\""))
        .operand(file.path())
        .into_command()
        .status()
        .with_context(|| format!("unable to launch the editor {editor:?}"))?;
    if !status.success() {
        bail!("there was a problem with the editor {editor:?}");
    }
    Ok(std::fs::read_to_string(file.path())?)
}
