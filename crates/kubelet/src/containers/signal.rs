//! Signals by name.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The number of a signal, as an image or a pod names it: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
/// `None` if there is no such signal.
pub(super) fn signal_number(text: &str) -> Option<i32> {
    const REAL_TIME_MIN: i32 = 34;
    const MAX: i32 = 64;
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=MAX).contains(&number).then_some(number);
    }
    let name = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    let offset = |prefix: &str| {
        name.strip_prefix(prefix).map(|rest| rest[1.min(rest.len())..].parse::<i32>().unwrap_or(0))
    };
    if let Some(plus) = offset("SIGRTMIN") {
        return (REAL_TIME_MIN + plus <= MAX).then_some(REAL_TIME_MIN + plus);
    }
    if let Some(minus) = offset("SIGRTMAX") {
        return (MAX - minus >= REAL_TIME_MIN).then_some(MAX - minus);
    }
    Signal::from_str(&name).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn table() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGRTMIN", Some(34)),
            ("SIGNOTHING", None),
            ("0", None),
            ("99", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
