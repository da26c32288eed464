//! PEM as Go's `encoding/pem` reads it: what is not a block is skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// Characters of a line of an encoded block.
const LINE_CHARS: usize = 64;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `CERTIFICATE`
    pub label: String,
    pub has_headers: bool,
    pub der: Vec<u8>,
}

/// The blocks of a text, in order. The text is read once, whatever is in it.
pub fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    std::iter::from_fn(move || next(&mut lines))
}

/// The next block; one that is not ended, or is not base64, is none.
fn next<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> Option<Block> {
    let mut open: Option<(&[u8], bool, Vec<u8>)> = None;
    for line in lines {
        if let Some(label) = marker(line, BEGIN) {
            open = Some((label, false, Vec::new()));
        } else if let Some(label) = marker(line, END) {
            if let Some((begun, has_headers, encoded)) = open.take()
                && begun == label
                && let Ok(der) = STANDARD.decode(encoded)
            {
                let label = String::from_utf8_lossy(label).into_owned();
                return Some(Block { label, has_headers, der });
            }
        } else if let Some((_, has_headers, encoded)) = &mut open {
            if encoded.is_empty() && line.contains(&b':') {
                *has_headers = true;
            } else {
                encoded.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
            }
        }
    }
    None
}

fn marker<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(DASHES)
}

/// A block as text.
pub fn encode(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_text() {
        let block = |label: &str, has_headers, der: &[u8]| Block {
            label: label.to_owned(),
            has_headers,
            der: der.to_vec(),
        };
        let long = [7; 100];
        let text = format!(
            "hello\n{}between\n-----BEGIN B-----\r\nkey: value\r\n\r\nAQI=\r\n-----END B-----\r\n{}",
            encode("A", &long),
            "-----BEGIN C-----\nAQ==\n-----END D-----\n-----BEGIN E-----\n???\n-----END E-----\n-----BEGIN F-----\nAQ=="
        );
        let found: Vec<_> = blocks(text.as_bytes()).collect();
        assert_eq!(found, [block("A", false, &long), block("B", true, &[1, 2])]);
    }

    #[test]
    fn an_unfinished_block_does_not_hide_the_next() {
        let text = format!("-----BEGIN A-----\nAQ==\n{}", encode("A", &[2]));
        let found: Vec<_> = blocks(text.as_bytes()).map(|block| block.der).collect();
        assert_eq!(found, [[2]]);
    }
}
