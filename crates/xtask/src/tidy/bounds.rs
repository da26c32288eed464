//! Every bound that the documentation states is reached by a test, which it names.

use std::collections::BTreeSet;

use super::Finding;

/// Where the bounds are.
pub const DOCUMENT: &str = "docs/architecture.md";
const SECTION: &str = "## What clients can cost";

/// Adds the names of the functions in a file, of which the tests are some.
pub fn functions(content: &str, names: &mut BTreeSet<String>) {
    for line in content.lines() {
        let line = line.trim_start();
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let line = line.strip_prefix("async ").unwrap_or(line);
        if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')) {
            names.insert(name.to_owned());
        }
    }
}

/// Checks the tables of the section in `document` against the names of all functions.
pub fn check(document: &str, functions: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_section = false;
    for (number, line) in document.lines().enumerate() {
        if line.starts_with("## ") {
            in_section = line == SECTION;
        }
        let is_row = line.starts_with('|') && !line.starts_with("|--");
        if !in_section || !is_row || line.ends_with("| shown by |") {
            continue;
        }
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let missing = named.iter().find(|name| !functions.contains(**name));
        let rule = match (named.is_empty(), missing) {
            (true, _) => "a bound without a test that reaches it".to_owned(),
            (false, Some(name)) => format!("there is no test {name}"),
            (false, None) => continue,
        };
        findings.push(Finding { location: format!("{DOCUMENT}:{}", number + 1), rule });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_needs_a_test_that_exists() {
        let mut names = BTreeSet::new();
        let code = "    #[test]\n    fn it_is_bounded() {}\npub async fn all_is_well(f: &F) {";
        functions(code, &mut names);
        let row = |cell: &str| format!("{SECTION}\n| a | shown by |\n|---|---|\n| x |{cell}|\n");
        let rules = |cell: &str| {
            let findings = check(&row(cell), &names);
            findings.into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
        };
        assert!(rules(" `it_is_bounded`, `all_is_well` ").is_empty());
        assert_eq!(rules(" - "), ["a bound without a test that reaches it"]);
        assert_eq!(rules(" `it_is_bounded`, `other` "), ["there is no test other"]);
        assert!(check("## Other\n| x | - |\n", &names).is_empty());
    }
}
