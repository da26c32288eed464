//! Which of upstream's Events a component records: the check of its table of their reasons.

use std::path::Path;

/// Whether a component records the Events of a reason.
pub enum Occurs {
    Here,
    /// Why it does not.
    Never(&'static str),
}

/// Checks what a table says of each reason against the code in `folder`, and returns the code. The
/// files named in `apart`, such as the table itself, are no part of it.
///
/// # Panics
/// When a reason that occurs is not in the code, or one that does not is.
pub fn check<'a>(
    folder: &str,
    apart: &[&str],
    table: impl IntoIterator<Item = &'a (&'a str, Occurs)>,
) -> String {
    let code = code(Path::new(folder), apart);
    let mut wrong = Vec::new();
    for (reason, occurs) in table {
        let found = code.contains(&format!("\"{reason}\""));
        let right = match occurs {
            Occurs::Here => found,
            Occurs::Never(why) => !found && !why.is_empty(),
        };
        if !right {
            wrong.push(format!("{reason}: found: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    code
}

fn code(folder: &Path, apart: &[&str]) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &code(&path, apart);
        } else if !apart.iter().any(|apart| path.ends_with(apart)) {
            text += &std::fs::read_to_string(path).expect("source is text");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_in_the_code() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(folder.path().join("src/inner")).expect("a folder");
            std::fs::write(folder.path().join(name), text).expect("a file");
        };
        write("src/inner/a.rs", "record(\"Started\")");
        write("src/reasons.rs", "(\"Stopped\", Never(\"why\"))");
        let holds = |reason: &str, occurs: Occurs| {
            let folder = folder.path().to_str().expect("a path in UTF-8");
            let table = [(reason, occurs)];
            std::panic::catch_unwind(|| check(folder, &["src/reasons.rs"], &table)).is_ok()
        };
        assert!(holds("Started", Occurs::Here));
        assert!(!holds("Started", Occurs::Never("why")));
        assert!(!holds("Stopped", Occurs::Here));
        assert!(holds("Stopped", Occurs::Never("why")));
        assert!(!holds("Stopped", Occurs::Never("")));
    }
}
