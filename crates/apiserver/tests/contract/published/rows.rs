//! The measures of definitions that projects publish: how large and deep they are, and how many of
//! their fields have which type, list type, default, bound or rule.

/// One definition, the measures of its largest version.
pub struct Row {
    pub project: &'static str,
    /// `issuers.cert-manager.io`
    pub resource: &'static str,
    cells: Vec<(&'static str, &'static str)>,
}

impl Row {
    /// A column as it stands in the table.
    pub fn text(&self, column: &str) -> &'static str {
        let cell = self.cells.iter().find(|(name, _)| *name == column);
        cell.unwrap_or_else(|| panic!("there is no column {column}")).1
    }

    pub fn count(&self, column: &str) -> usize {
        self.text(column).parse().unwrap()
    }

    pub fn has(&self, column: &str, part: &str) -> bool {
        self.text(column).split(',').any(|found| found == part)
    }

    pub fn namespaced(&self) -> bool {
        self.text("scope") == "Namespaced"
    }

    pub fn plural(&self) -> &'static str {
        self.resource.split_once('.').unwrap().0
    }

    pub fn group(&self) -> &'static str {
        self.resource.split_once('.').unwrap().1
    }

    pub fn kind(&self) -> String {
        let singular = self.plural().trim_end_matches('s');
        singular[..1].to_uppercase() + &singular[1..]
    }

    /// The path of the objects of a version.
    pub fn path(&self, version: &str) -> String {
        let within = if self.namespaced() { "namespaces/default/" } else { "" };
        format!("/apis/{}/{version}/{within}{}", self.group(), self.plural())
    }
}

/// All rows of the table.
pub fn rows() -> Vec<Row> {
    let mut lines = include_str!("measured.txt").lines();
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let row = |line: &'static str| {
        let cells: Vec<_> = names.iter().copied().zip(line.split_whitespace()).collect();
        assert_eq!(cells.len(), line.split_whitespace().count(), "{line}");
        assert_eq!(cells.len(), names.len(), "{line}");
        Row { project: cells[0].1, resource: cells[1].1, cells }
    };
    lines.map(row).collect()
}
