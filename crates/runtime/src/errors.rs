//! Formatting of errors for logs, events and statuses.

use std::error::Error;

/// An error and its cause chain on one line, outermost first: `read it: entity not found`.
///
/// A cause that the preceding text already ends with is not repeated, since some errors include
/// their source in their own message.
pub fn cause_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !ends_with(&text, &message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// The innermost cause, or the error itself if it has none.
pub fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

fn ends_with(text: &str, message: &str) -> bool {
    text.strip_suffix(message).is_some_and(|before| before.is_empty() || before.ends_with(": "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug)]
    struct Outer {
        text: &'static str,
        source: io::Error,
    }

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.text)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.source)
        }
    }

    fn outer(text: &'static str) -> Outer {
        Outer { text, source: io::ErrorKind::NotFound.into() }
    }

    #[test]
    fn every_cause_is_printed_once() {
        for (text, expected) in [
            ("read it", "read it: entity not found"),
            ("read it: entity not found", "read it: entity not found"),
            ("entity not found", "entity not found"),
            ("entity not found in a", "entity not found in a: entity not found"),
            ("no entity not found", "no entity not found: entity not found"),
        ] {
            assert_eq!(cause_chain(&outer(text)), expected);
        }
    }

    #[test]
    fn the_root_cause_is_the_innermost() {
        assert_eq!(root_cause(&outer("read it")).to_string(), "entity not found");
        assert_eq!(root_cause(&io::Error::other("x")).to_string(), "x");
    }
}
