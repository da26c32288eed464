//! Files of the group `apiserver.config.k8s.io` that the server is started with, and follows while it runs.

use std::path::{Path, PathBuf};

use api::status::FieldError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// A file that is larger is no configuration.
const MAX_BYTES: u64 = 4 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl From<String> for Unusable {
    fn from(problem: String) -> Self {
        Self(problem)
    }
}

/// Reads a file of a bounded size.
///
/// # Errors
/// When it cannot be read, or is too large.
pub fn read(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        return Err(std::io::Error::other(format!("{size} bytes are no configuration")));
    }
    std::fs::read_to_string(path)
}

/// Decodes YAML or JSON of a kind, in one of its versions. Unknown fields are errors, as upstream's strict decoder has it.
///
/// # Errors
/// What is wrong, without the values of the file: they may be secret.
pub fn decode<T: DeserializeOwned>(
    text: &str,
    kind: &str,
    versions: &[&str],
) -> Result<T, Unusable> {
    // A parser's own message shows the text around an error.
    let mut value: Value = serde_saphyr::from_str(text)
        .map_err(|_| Unusable("couldn't get version/kind; the file is not YAML".to_owned()))?;
    let Some(fields) = value.as_object_mut() else {
        return Err(Unusable("couldn't get version/kind; the file is no object".to_owned()));
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (version, own) = (take("apiVersion"), take("kind"));
    if own.is_empty() {
        return Err(Unusable("Object 'Kind' is missing".to_owned()));
    }
    if own != kind || !versions.contains(&version.as_str()) {
        let problem = format!("no kind {own:?} is registered for version {version:?}");
        return Err(Unusable(problem));
    }
    serde_json::from_value(value).map_err(|error| Unusable(strict(&error.to_string())))
}

/// A decoder's message without values, in upstream's words where there are any.
fn strict(message: &str) -> String {
    let quoted = message.split('`').nth(1).unwrap_or_default();
    for (found, shown) in
        [("unknown field", "unknown field"), ("duplicate field", "duplicate field")]
    {
        if message.starts_with(found) {
            return format!("strict decoding error: {shown} {quoted:?}");
        }
    }
    match message.split_once(": ") {
        // `invalid type: string "...", expected a map`
        Some((problem, rest)) => {
            let expected = rest.rsplit_once("expected ").map_or("another one", |(_, what)| what);
            format!("{problem}, expected {expected}")
        }
        None => message.to_owned(),
    }
}

/// Errors as `ToAggregate` prints them; `None`: there are none.
pub fn aggregate(errors: &[FieldError]) -> Option<String> {
    let texts: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    match &texts[..] {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

/// `sha256:…` of a file's contents.
pub fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Calls `changed` with the contents of a file, or why it cannot be read, whenever they are others than
/// `known`; until `shutdown`.
pub async fn follow(
    path: PathBuf,
    known: String,
    shutdown: CancellationToken,
    mut changed: impl AsyncFnMut(std::io::Result<String>),
) {
    let own = path.clone();
    let text = move || anyhow::Ok(read(&own).map_err(|error| error.to_string()));
    let Ok(mut texts) = runtime::files::follow(&[path], text, shutdown.clone()) else { return };
    let mut known = Ok(known);
    loop {
        let now = texts.borrow_and_update().clone();
        if *now != known {
            known = (*now).clone();
            changed(known.clone().map_err(std::io::Error::other)).await;
        }
        tokio::select! {
            changed = texts.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        number: u32,
    }

    #[test]
    fn problems_do_not_show_values() {
        let decoded = |text: &str| {
            let decoded = decode::<Sample>(text, "Sample", &["g/v1"]);
            decoded.map(|sample| sample.number).map_err(|error| error.to_string())
        };
        let head = "apiVersion: g/v1\nkind: Sample\n";
        assert_eq!(decoded(&format!("{head}number: 3")), Ok(3));
        for (text, problem) in [
            ("other: secret", "strict decoding error: unknown field \"other\""),
            ("number: secret", "invalid type, expected u32"),
            ("number: [secret", "couldn't get version/kind; the file is not YAML"),
        ] {
            assert_eq!(decoded(&format!("{head}{text}")), Err(problem.to_owned()));
        }
        let other = "no kind \"Other\" is registered for version \"g/v1\"";
        assert_eq!(decoded("apiVersion: g/v1\nkind: Other"), Err(other.to_owned()));
    }

    #[tokio::test]
    async fn a_file_is_read_again_whenever_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let (sender, mut seen) = tokio::sync::mpsc::channel(8);
        let shutdown = CancellationToken::new();
        let following = tokio::spawn(follow(path.clone(), "one".into(), shutdown.clone(), {
            async move |text: std::io::Result<String>| sender.send(text.ok()).await.unwrap()
        }));
        for text in ["two", "three"] {
            let other = folder.path().join("other");
            std::fs::write(&other, text).unwrap();
            std::fs::rename(&other, &path).unwrap();
            assert_eq!(seen.recv().await.unwrap().as_deref(), Some(text));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seen.recv().await.unwrap(), None);
        shutdown.cancel();
        following.await.unwrap();
    }
}
