//! Formats and parses lines in CRI format: pure.

use jiff::Timestamp;

use super::LogStream;

/// A longer line is split into parts: all but the last have the tag `P`.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;

/// Turns what a container writes into lines. One per stream.
#[derive(Debug)]
pub(super) struct LineFormatter {
    stream: LogStream,
    pending: Vec<u8>,
}

impl LineFormatter {
    pub(super) fn new(stream: LogStream) -> Self {
        LineFormatter { stream, pending: Vec::new() }
    }

    /// Appends to `out` every line that is complete with `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        let head = format!("{now:.9} {} ", self.stream.as_str());
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LINE_BYTES - self.pending.len();
            let window = &rest[..rest.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.emit(&head, b'F', &rest[..end], out);
                rest = &rest[end + 1..];
            } else if window.len() > room {
                self.emit(&head, b'P', &rest[..room], out);
                rest = &rest[room..];
            } else {
                self.pending.extend_from_slice(rest);
                rest = &[];
            }
        }
    }

    /// Appends what is left when the stream ends without a newline.
    pub(super) fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            let head = format!("{now:.9} {} ", self.stream.as_str());
            self.emit(&head, b'F', &[], out);
        }
    }

    fn emit(&mut self, head: &str, tag: u8, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&[tag, b' ']);
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(text);
        out.push(b'\n');
        self.pending.clear();
    }
}

/// A line of a log file, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogLine<'a> {
    /// The time, as written.
    pub(super) time: &'a str,
    pub(super) stream: LogStream,
    /// Whether more of the same line follows.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Parses a line; `None` if it is not in the format (torn by a crash).
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return None,
        };
        // Tags may be followed by others after a colon.
        let partial = match fields.next()?.first()? {
            b'P' => true,
            b'F' => false,
            _ => return None,
        };
        Some(LogLine { time, stream, partial, text: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(chunks: &[&[u8]]) -> Vec<u8> {
        let mut formatter = LineFormatter::new(LogStream::Stderr);
        let mut out = Vec::new();
        for chunk in chunks {
            formatter.push(chunk, Timestamp::UNIX_EPOCH, &mut out);
        }
        formatter.finish(Timestamp::UNIX_EPOCH, &mut out);
        out
    }

    #[test]
    fn lines() {
        let head = "1970-01-01T00:00:00.000000000Z stderr";
        assert_eq!(
            format(&[b"a\n\nb"]),
            format!("{head} F a\n{head} F \n{head} F b\n").into_bytes()
        );
        assert_eq!(format(&[b"a", b"b\n"]), format!("{head} F ab\n").into_bytes());
        assert_eq!(format(&[b""]), b"");
        let exact = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(format(&[exact.as_bytes(), b"\n"]), format!("{head} F {exact}\n").into_bytes());
        assert_eq!(
            format(&[exact.as_bytes(), b"y\n"]),
            format!("{head} P {exact}\n{head} F y\n").into_bytes()
        );
    }

    #[test]
    fn parsing() {
        let line = LogLine::parse(b"2026-01-01T00:00:00Z stdout P hello  world").unwrap();
        assert_eq!(
            (line.time, line.stream, line.partial, line.text),
            ("2026-01-01T00:00:00Z", LogStream::Stdout, true, &b"hello  world"[..])
        );
        for bad in [&b""[..], b"x", b"t stdin F x", b"t stdout Q x", b"\xff stdout F x"] {
            assert_eq!(LogLine::parse(bad), None);
        }
        assert_eq!(LogLine::parse(b"t stdout F").unwrap().text, b"");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(text in "[a-z\n]{0,200}", cut in 0_usize..200) {
            let cut = cut.min(text.len());
            let out = format(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            let mut back = Vec::new();
            for line in out.split_inclusive(|byte| *byte == b'\n') {
                let line = LogLine::parse(&line[..line.len() - 1]).unwrap();
                back.extend_from_slice(line.text);
                if !line.partial {
                    back.push(b'\n');
                }
            }
            let mut expected = text.clone().into_bytes();
            if !expected.is_empty() && expected.last() != Some(&b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(back, expected);
        }
    }
}
