//! Durations as Go writes them: `90s`, `1h30m`, `500ms`.

use anyhow::bail;

/// Reads a duration in milliseconds; a bare number is seconds.
pub fn millis(text: &str) -> anyhow::Result<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds.saturating_mul(1000));
    }
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<u64>() else { bail!("invalid duration {text:?}") };
        let tail = &rest[digits..];
        let unit = tail.find(|character: char| character.is_ascii_digit()).unwrap_or(tail.len());
        let factor = match &tail[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => bail!("invalid duration {text:?}"),
        };
        total = total.saturating_add(number.saturating_mul(factor));
        rest = &tail[unit..];
    }
    if text.is_empty() {
        bail!("invalid duration {text:?}");
    }
    Ok(total)
}

/// Reads a duration in whole seconds, rounded up.
pub fn seconds(text: &str) -> anyhow::Result<u64> {
    Ok(millis(text)?.div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in
            [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("7", 7000), ("0", 0)]
        {
            assert_eq!(millis(text).unwrap(), expected, "{text}");
        }
        for text in ["", "s", "1x", "-1s", "1s2"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }
}
