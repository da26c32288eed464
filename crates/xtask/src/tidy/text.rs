//! Rules about the text of single files.

use super::Finding;
use std::path::Path;

/// Maximum number of lines of a source file.
const FILE_MAX: usize = 800;
/// Maximum number of lines of a function, its signature and closing brace included.
const FUNCTION_MAX: usize = 100;
/// File names that say nothing about the contents of a module.
const VAGUE: [&str; 4] = ["utils", "helpers", "common", "misc"];
/// Words that mark unfinished work; written so that this file does not contain them.
const LEFTOVERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Extensions of the files that are searched for these words.
const TEXTS: [&str; 9] = ["rs", "toml", "md", "sh", "yml", "yaml", "proto", "py", "service"];
/// Crates whose programs handle objects, with the places that may start a program in their own way:
/// these pass on what the operator's command line says, and nothing of an object.
const STARTS_PROGRAMS: [&str; 5] = [
    "crates/runtime/src/program.rs",
    "crates/cli/src/cluster/command.rs",
    "crates/cli/src/cluster/supervisor/keeper.rs",
    "crates/cli/src/cluster/up.rs",
    "crates/cli/src/verbs/read/diff.rs",
];
/// Crates that only serve development.
const DEVELOPMENT: [&str; 2] = ["crates/testkit", "crates/xtask"];

/// Checks one file; `file` is its path from the workspace's root.
pub fn check(file: &Path, content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |line: Option<usize>, rule: String| {
        let location = match line {
            Some(line) => format!("{}:{}", file.display(), line + 1),
            None => file.display().to_string(),
        };
        findings.push(Finding { location, rule });
    };
    let extension = file.extension().unwrap_or_default().to_string_lossy();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let generated =
        stem == "generated" || content.lines().take(3).any(|line| line.contains("@generated"));
    if TEXTS.contains(&&*extension) && !generated {
        for (number, line) in content.lines().enumerate() {
            if let Some(word) = leftover(line) {
                add(Some(number), format!("{word}: finish it, or open an issue"));
            }
        }
    }
    if extension != "rs" {
        return findings;
    }
    if stem == "mod" {
        add(None, "write foo.rs beside foo/, not foo/mod.rs".to_owned());
    }
    if VAGUE.contains(&&*stem) {
        add(None, format!("{stem:?} says nothing about the contents"));
    }
    if matches!(&*stem, "lib" | "main") && !content.starts_with("//!") {
        add(None, "does not open with its purpose (//!)".to_owned());
    }
    if generated {
        return findings;
    }
    let lines = content.lines().count();
    if lines > FILE_MAX {
        add(None, format!("{lines} lines; the limit is {FILE_MAX}"));
    }
    // Tables of test cases are data.
    let of_tests = stem == "tests" || file.components().any(|part| part.as_os_str() == "tests");
    if !of_tests && let Some(number) = starts_program(file, content) {
        let rule =
            "start programs through runtime::program::Program, whose operands are never options";
        add(Some(number), rule.to_owned());
    }
    for function in functions(content).into_iter().filter(|_| !of_tests) {
        if function.lines > FUNCTION_MAX {
            let rule = format!(
                "fn {}: {} lines; the limit is {FUNCTION_MAX}",
                function.name, function.lines
            );
            add(Some(function.start), rule);
        }
    }
    findings
}

fn leftover(line: &str) -> Option<&'static str> {
    let word_char = |c: char| c.is_alphanumeric() || c == '_';
    LEFTOVERS.into_iter().find(|word| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            !before.is_some_and(word_char) && !after.is_some_and(word_char)
        })
    })
}

/// The first line outside of tests that names the type `Command` of a process, in code that handles
/// objects.
fn starts_program(file: &Path, content: &str) -> Option<usize> {
    let component = file.starts_with("crates")
        && file.components().nth(2).is_some_and(|part| part.as_os_str() == "src");
    let mut exempt = STARTS_PROGRAMS.iter().chain(&DEVELOPMENT);
    if !component || exempt.any(|path| file.starts_with(path)) {
        return None;
    }
    let code = content.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    code.enumerate().find_map(|(number, line)| {
        let (_, after) = line.split_once("process::")?;
        let imported = after.strip_prefix('{').and_then(|list| list.split_once('}'));
        let mut names = imported.map_or(after, |(list, _)| list).split(", ");
        // `Command::from` converts a command that exists.
        let starts = |name: &str| {
            let rest = name.strip_prefix("Command")?;
            let ends = !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
            (ends && !rest.starts_with("::from(")).then_some(())
        };
        names.find_map(starts).map(|()| number)
    })
}

struct Function<'a> {
    name: &'a str,
    start: usize,
    lines: usize,
}

/// The functions of a file that rustfmt has formatted: a body that is not on the signature's
/// line ends at the first later line that is a closing brace at the signature's depth.
fn functions(content: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = content.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let depth = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(depth));
        // A declaration without a body ends in a semicolon before any brace.
        let opens = lines[start..].iter().find(|line| line.ends_with(['{', '}', ';']));
        if opens.is_none_or(|line| !line.ends_with('{')) {
            continue;
        }
        if let Some(length) = lines[start..].iter().position(|line| *line == closing) {
            found.push(Function { name, start, lines: length + 1 });
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        let (word, after) = rest.split_once(' ')?;
        match word {
            "fn" => {
                let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
                return Some(&after[..end]);
            }
            "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\"" => rest = after,
            _ if word.starts_with("pub(") && word.ends_with(')') => rest = after,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, content: &str) -> Vec<String> {
        check(Path::new(path), content).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn only_long_functions_are_reported() {
        let body = "    step();\n".repeat(FUNCTION_MAX);
        let long = format!(
            "pub(crate) async fn long(\n    a: u8,\n) -> u8 {{\n{body}}}\n\nfn short() {{\n}}\n"
        );
        let found = rules("crates/x/src/a.rs", &long);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("fn long: 104 lines"), "{found:?}");
    }

    #[test]
    fn programs_are_started_in_one_way() {
        let rule = "start programs through runtime::program::Program";
        let found = |path: &str, line: &str| {
            rules(path, &format!("//! A.\n{line}\n")).iter().any(|one| one.starts_with(rule))
        };
        for line in [
            "use std::process::Command;",
            "use std::process::{Command, Stdio};",
            "use tokio::process::{Child, Command};",
            "    let mut command = std::process::Command::new(\"mount\");",
        ] {
            assert!(found("crates/kubelet/src/volume/mount.rs", line), "{line}");
            assert!(found("crates/apiserver/src/x.rs", line), "{line}");
            let of_tests = format!("#[cfg(test)]\nmod tests {{\n{line}\n}}");
            for (path, line) in [
                ("crates/kubelet/src/network/tests.rs", line),
                ("crates/kubelet/tests/a.rs", line),
                ("crates/runtime/src/program.rs", line),
                ("crates/testkit/src/a.rs", line),
                ("tests/src/a.rs", line),
                ("crates/kubelet/src/a.rs", &of_tests),
            ] {
                assert!(!found(path, line), "{path}: {line}");
            }
        }
        for line in [
            "use std::process::ExitCode;",
            "let child = tokio::process::Command::from(command);",
            "use process::CommandLine;",
        ] {
            assert!(!found("crates/kubelet/src/a.rs", line), "{line}");
        }
    }

    #[test]
    fn declarations_have_no_body() {
        let filler = "    const A: u8 = 1;\n".repeat(FUNCTION_MAX);
        let content = format!(
            "trait T {{\n    fn declared(&self);\n{filler}    fn b(&self) {{\n    }}\n}}\n"
        );
        assert!(rules("crates/x/src/a.rs", &content).is_empty());
    }

    #[test]
    fn bad_file_names_and_lengths_are_reported() {
        assert_eq!(rules("crates/x/src/mod.rs", "").len(), 1);
        assert_eq!(rules("crates/x/src/utils.rs", "").len(), 1);
        assert_eq!(rules("crates/x/src/lib.rs", "use x;\n").len(), 1);
        assert!(rules("crates/x/src/lib.rs", "//! Its job.\n").is_empty());
        assert_eq!(rules("crates/x/src/a.rs", &"\n".repeat(FILE_MAX + 1)).len(), 1);
        let generated = format!("// @generated by x\n{}", "\n".repeat(FILE_MAX));
        assert!(rules("crates/x/src/a.rs", &generated).is_empty());
    }

    #[test]
    fn leftovers_are_whole_words() {
        let word = LEFTOVERS[0];
        assert_eq!(rules("a.md", &format!("a {word}: b")).len(), 1);
        assert!(rules("a.md", &format!("a{word} {word}b")).is_empty());
        assert!(rules("a.bin", word).is_empty());
    }
}
