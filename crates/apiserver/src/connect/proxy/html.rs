//! Rewrites links in an HTML stream: absolute paths would leave the proxy. Only tags are parsed,
//! each as a whole; scripts, styles and comments are skipped.

use super::links::Links;

/// Longest tag that is parsed, in bytes. A longer one passes unchanged.
const MAX_TAG_BYTES: usize = 8 << 10;
/// Elements, and which of their attributes are links.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is not markup.
const RAW: &[(&str, &str)] = &[
    ("script", "</script"),
    ("style", "</style"),
    ("textarea", "</textarea"),
    ("title", "</title"),
];

/// A document being streamed.
pub struct Rewriter {
    links: Links,
    /// What has arrived and is still undecided.
    pending: Vec<u8>,
    /// What ends the text that is being skipped.
    unread_until: Option<&'static str>,
}

impl Rewriter {
    pub fn new(links: Links) -> Self {
        Self { links, pending: Vec::new(), unread_until: None }
    }

    /// Adds the next bytes; returns what of the document is decided.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut out = Vec::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let Some(taken) = self.step(rest, &mut out) else {
                break;
            };
            rest = &rest[taken..];
        }
        self.pending = rest.to_vec();
        out
    }

    /// The end of the document.
    pub fn finish(self) -> Vec<u8> {
        self.pending
    }

    /// Writes the start of `rest`; returns its length, or `None` when more input is needed.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if let Some(end) = self.unread_until {
            let found = find(rest, end);
            // The end marker may be split across chunks.
            let taken = found.unwrap_or_else(|| (rest.len() + 1).saturating_sub(end.len()));
            if found.is_some() {
                self.unread_until = None;
            } else if taken == 0 {
                return None;
            }
            out.extend_from_slice(&rest[..taken]);
            // At the end of a script there is still its closing tag to pass.
            return Some(taken).filter(|taken| *taken > 0).or_else(|| {
                out.push(rest[0]);
                Some(1)
            });
        }
        match rest.iter().position(|byte| *byte == b'<') {
            Some(0) => self.markup(rest, out),
            Some(at) => {
                out.extend_from_slice(&rest[..at]);
                Some(at)
            }
            None => {
                out.extend_from_slice(rest);
                Some(rest.len())
            }
        }
    }

    /// As [`Self::step`], for text that begins with `<`.
    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        const COMMENT: &[u8] = b"<!--";
        if rest.len() < COMMENT.len() && COMMENT.starts_with(rest) {
            return None;
        }
        if rest.starts_with(COMMENT) {
            self.unread_until = Some("-->");
            out.extend_from_slice(COMMENT);
            return Some(COMMENT.len());
        }
        if !rest[1].is_ascii_alphabetic() {
            out.push(b'<');
            return Some(1);
        }
        let Some(end) = tag_end(rest) else {
            if rest.len() <= MAX_TAG_BYTES {
                return None;
            }
            out.push(b'<');
            return Some(1);
        };
        let tag = &rest[..end];
        let name = name(tag);
        match ATTRIBUTES.iter().find(|(known, _)| *known == name) {
            Some((_, attributes)) => self.tag(tag, name.len(), attributes, out),
            None => out.extend_from_slice(tag),
        }
        let raw = RAW.iter().find(|(known, _)| *known == name);
        self.unread_until = raw.map(|(_, end)| *end);
        Some(end)
    }

    /// Writes a tag with its links rewritten.
    fn tag(&self, tag: &[u8], name: usize, attributes: &[&str], out: &mut Vec<u8>) {
        let mut written = 0;
        let mut at = 1 + name;
        while let Some(attribute) = attribute(tag, at) {
            at = attribute.end;
            let key = String::from_utf8_lossy(&tag[attribute.name]).to_ascii_lowercase();
            let value = std::str::from_utf8(&tag[attribute.value.clone()]).unwrap_or_default();
            if attributes.contains(&key.as_str())
                && let Some(link) = self.links.rewrite(value.trim())
            {
                out.extend_from_slice(&tag[written..attribute.value.start]);
                out.extend_from_slice(link.as_bytes());
                written = attribute.value.end;
            }
        }
        out.extend_from_slice(&tag[written..]);
    }
}

/// The position of a text, ignoring case.
fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

/// The end of a tag, after its `>`; a `>` in quotes does not count.
fn tag_end(tag: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') if before_value(tag, at) => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Whether a value starts here: quotes elsewhere have no meaning.
fn before_value(tag: &[u8], at: usize) -> bool {
    let before = tag[..at].iter().rev();
    before.copied().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| byte == b'=')
}

/// The name of a tag's element.
fn name(tag: &[u8]) -> String {
    let name = tag[1..]
        .iter()
        .take_while(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>'));
    String::from_utf8_lossy(&name.copied().collect::<Vec<_>>()).to_ascii_lowercase()
}

/// Positions of an attribute's parts within its tag.
struct Attribute {
    name: std::ops::Range<usize>,
    /// Without quotes; empty for none.
    value: std::ops::Range<usize>,
    end: usize,
}

/// The first attribute from `at` on.
fn attribute(tag: &[u8], at: usize) -> Option<Attribute> {
    let skip = |from: usize, wanted: &dyn Fn(u8) -> bool| {
        let rest = tag[from..].iter();
        from + rest.take_while(|byte| wanted(**byte)).count()
    };
    let start = skip(at, &|byte| byte.is_ascii_whitespace() || byte == b'/');
    if start >= tag.len() || tag[start] == b'>' {
        return None;
    }
    // A name has at least one byte, whatever it is.
    let name_end =
        skip(start + 1, &|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'/' | b'>'));
    let equals = skip(name_end, &|byte| byte.is_ascii_whitespace());
    if tag.get(equals) != Some(&b'=') {
        return Some(Attribute { name: start..name_end, value: name_end..name_end, end: name_end });
    }
    let from = skip(equals + 1, &|byte| byte.is_ascii_whitespace());
    let (value, end) = match tag.get(from) {
        Some(&quote @ (b'"' | b'\'')) => {
            let end = skip(from + 1, &|byte| byte != quote);
            (from + 1..end, (end + 1).min(tag.len()))
        }
        _ => {
            let end = skip(from, &|byte| !byte.is_ascii_whitespace() && byte != b'>');
            (from..end, end)
        }
    };
    Some(Attribute { name: start..name_end, value, end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite(document: &[u8], piece: usize) -> Vec<u8> {
        let mut rewriter =
            Rewriter::new(Links { prefix: "/p".to_owned(), hosts: vec!["server".to_owned()] });
        let mut out = Vec::new();
        for chunk in document.chunks(piece) {
            out.extend(rewriter.push(chunk));
        }
        out.extend(rewriter.finish());
        out
    }

    #[test]
    fn links_of_tags_are_rewritten_in_any_pieces() {
        let table = [
            (r#"<a href="/x">t</a>"#, r#"<a href="/p/x">t</a>"#),
            ("<A\nHREF = '/x' >", "<A\nHREF = '/p/x' >"),
            ("<a href=/x>", "<a href=/p/x>"),
            ("<a href=/x/>", "<a href=/p/x/>"),
            (r#"<a href="x" title="/y">"#, r#"<a href="x" title="/y">"#),
            (
                r#"<img alt="a > b" src="http://server/i.png"/>"#,
                r#"<img alt="a > b" src="/p/i.png"/>"#,
            ),
            (
                r#"<script src="/s.js">if (a<b) x('<a href="/no">')</script><a href="/x">"#,
                r#"<script src="/p/s.js">if (a<b) x('<a href="/no">')</script><a href="/p/x">"#,
            ),
            (
                r#"<!-- <a href="/no"> --><a href="/x">"#,
                r#"<!-- <a href="/no"> --><a href="/p/x">"#,
            ),
            ("<!doctype html>1 < 2 <p href=\"/no\">", "<!doctype html>1 < 2 <p href=\"/no\">"),
            ("<script></script><a href='/x'>", "<script></script><a href='/p/x'>"),
            ("<a hidden href='/x' b", "<a hidden href='/x' b"),
            ("<a it's href=\"/x\">", "<a it's href=\"/p/x\">"),
        ];
        for (document, expected) in table {
            for piece in [1, 2, 3, 7, 1000] {
                let found = rewrite(document.as_bytes(), piece);
                let found = String::from_utf8(found).unwrap();
                assert_eq!(found, expected, "in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_has_no_links_passes_unchanged(text in "[<>a-c!/ ='\"-]{0,60}", piece in 1usize..9) {
            prop_assert_eq!(rewrite(text.as_bytes(), piece), text.as_bytes());
        }

        #[test]
        fn pieces_do_not_matter(text in "(<a|<img|<script|</script|<!--|-->| href=| src=|/x|['\"<> ]|[a-b]){0,30}", piece in 1usize..9) {
            prop_assert_eq!(rewrite(text.as_bytes(), piece), rewrite(text.as_bytes(), 10_000));
        }
    }
}
