//! The kernel's table of mounts (`proc_pid_mountinfo(5)`): pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Mount points in the order of the table: what is mounted on top of another is after it. The path
/// of a mount may be any bytes.
pub fn points(table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsString::from_vec(unescape(point))))
        .collect()
}

/// Decodes `\040` and the like, as the kernel writes blanks.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let decoded = octal.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_any_bytes() {
        assert_eq!(unescape(b"/a\\040b\\134c"), b"/a b\\c");
        assert_eq!(unescape(b"/plain\\x"), b"/plain\\x");
        assert_eq!(unescape(b"/end\\04"), b"/end\\04");
        let table = b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /m\xff rw - tmpfs b rw\n\
            3 2 0:3 / /m\xff rw - tmpfs c rw\n";
        let odd = PathBuf::from(OsString::from_vec(b"/m\xff".to_vec()));
        assert_eq!(points(table), [PathBuf::from("/"), odd.clone(), odd]);
    }
}
