//! Errors as people read them, in events and statuses: with what caused them, on one line.

use std::error::Error;

/// "connection refused" is the innermost. A cause that the text has already is not said again.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("read it")]
        Plain(#[source] io::Error),
        #[error("read it: {0}")]
        Told(#[source] io::Error),
    }

    #[test]
    fn every_cause_is_told_once() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        for error in [Sample::Plain(missing()), Sample::Told(missing())] {
            assert_eq!(with_causes(&error), "read it: entity not found");
        }
    }
}
