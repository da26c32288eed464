//! Finds where the last lines of a log begin, reading files backwards in blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::LogStream;
use super::format::LogLine;

const BLOCK_BYTES: u64 = 64 << 10;

/// The offset in `file` where its last `wanted` whole lines (of `stream`, if given) begin, and how
/// many there are. Parts of a long line count as one. An incomplete line at the end counts as a
/// line.
pub(super) fn find_tail(
    file: &File,
    stream: Option<LogStream>,
    wanted: u64,
) -> io::Result<(u64, u64)> {
    let mut block_start = file.metadata()?.len();
    // What is known about the line that begins before the block.
    let mut carried: Vec<u8> = Vec::new();
    let mut search = Search { wanted, found: 0, start: block_start, stream };
    while block_start > 0 {
        let size = block_start.min(BLOCK_BYTES);
        block_start -= size;
        let mut block = vec![0; usize::try_from(size).expect("a block is small")];
        file.read_exact_at(&mut block, block_start)?;
        block.append(&mut carried);
        // Lines that begin in this block, last first: each begins after a newline.
        let mut end = block.len();
        while let Some(newline) =
            block[..end.saturating_sub(1)].iter().rposition(|byte| *byte == b'\n')
        {
            let begin = newline + 1;
            if search.line(&block[begin..end], block_start + begin as u64) {
                return Ok((search.start, search.found));
            }
            end = begin;
        }
        block.truncate(end);
        carried = block;
    }
    if !carried.is_empty() {
        search.line(&carried, 0);
    }
    Ok((search.start, search.found))
}

struct Search {
    wanted: u64,
    found: u64,
    /// Where the lines found so far begin.
    start: u64,
    stream: Option<LogStream>,
}

impl Search {
    /// Counts the next line towards the front. Returns whether there are enough: a further line has
    /// begun.
    fn line(&mut self, line: &[u8], offset: u64) -> bool {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let counts = LogLine::parse(text).is_some_and(|line| {
            self.stream.is_none_or(|stream| stream == line.stream) && !line.partial
        });
        if counts {
            if self.found == self.wanted {
                return true;
            }
            self.found += 1;
        }
        self.start = offset;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tail(text: &[u8], stream: Option<LogStream>, wanted: u64) -> (String, u64) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let (start, found) = find_tail(&file, stream, wanted).unwrap();
        let start = usize::try_from(start).unwrap();
        (String::from_utf8_lossy(&text[start..]).into_owned(), found)
    }

    #[test]
    fn table() {
        let text = b"t stdout F a\nt stderr F b\nt stdout P c\nt stdout F d\n";
        assert_eq!(tail(text, None, 1), ("t stdout P c\nt stdout F d\n".into(), 1));
        assert_eq!(tail(text, None, 2), ("t stderr F b\nt stdout P c\nt stdout F d\n".into(), 2));
        assert_eq!(tail(text, None, 9).1, 3);
        assert_eq!(tail(text, None, 0), (String::new(), 0));
        assert_eq!(tail(text, Some(LogStream::Stderr), 1).1, 1);
        assert_eq!(tail(b"", None, 3), (String::new(), 0));
    }

    #[test]
    fn over_blocks() {
        let line = format!("t stdout F {}\n", "x".repeat(1000));
        let text = line.repeat(300);
        let (rest, found) = tail(text.as_bytes(), None, 200);
        assert_eq!((rest.len(), found), (line.len() * 200, 200));
    }
}
