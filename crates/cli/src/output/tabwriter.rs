//! Aligns tab-separated cells as Go's `text/tabwriter` does: neighbouring lines with a cell in a
//! column share its width, and a line without the cell ends the column.

/// Aligns the cells of `text`, which end in tabs; what follows a line's last tab is not padded.
/// A column is as wide as its widest cell and `padding`, and at least `min`.
pub fn align(text: &str, min: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut aligner = Aligner {
        lines: &lines,
        min,
        padding,
        widths: Vec::new(),
        out: String::with_capacity(text.len() * 2),
    };
    aligner.block(0, lines.len());
    aligner.out
}

struct Aligner<'a> {
    lines: &'a [Vec<&'a str>],
    min: usize,
    padding: usize,
    /// Of the columns to the left.
    widths: Vec<usize>,
    out: String,
}

impl Aligner<'_> {
    /// Writes lines that share all columns so far.
    fn block(&mut self, start: usize, end: usize) {
        let column = self.widths.len();
        let has_cell = |line: &usize| column + 1 < self.lines[*line].len();
        let mut line = start;
        while line < end {
            if !has_cell(&line) {
                self.line(line);
                line += 1;
                continue;
            }
            let stop = (line..end).find(|line| !has_cell(line)).unwrap_or(end);
            let widest = (line..stop)
                .map(|line| self.lines[line][column].chars().count())
                .max()
                .unwrap_or(0);
            self.widths.push(self.min.max(widest + self.padding));
            self.block(line, stop);
            self.widths.pop();
            line = stop;
        }
    }

    fn line(&mut self, line: usize) {
        for (column, cell) in self.lines[line].iter().enumerate() {
            self.out.push_str(cell);
            if let Some(width) =
                self.widths.get(column).filter(|_| column + 1 < self.lines[line].len())
            {
                let fill = width.saturating_sub(cell.chars().count());
                self.out.extend(std::iter::repeat_n(' ', fill));
            }
        }
        self.out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_end_where_a_line_lacks_them() {
        let text = "Name:\tweb\nLabels:\ta=1\n\tb=2\nIPs:\n  IP:\t1.2.3.4\nLong name:\tx\n";
        assert_eq!(
            align(text, 0, 2),
            "Name:    web\nLabels:  a=1\n         b=2\nIPs:\n  IP:       1.2.3.4\nLong name:  x\n"
        );
        assert_eq!(align("A\tB\t\n1\t22\t\n", 6, 3), "A     B     \n1     22    \n");
    }
}
