//! Sets of completion indexes and their text form: `0-3,5`.

use std::collections::BTreeSet;

/// Parses the text form; ignores what is malformed or not below `completions`.
pub fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// The text form, with ranges for three or more consecutive indexes.
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_forms() {
        assert_eq!(format(&[0, 1, 2, 5, 7, 8].into()), "0-2,5,7,8");
        assert_eq!(parse("0-2,9,x,4-", 4), [0, 1, 2].into());
        assert_eq!(format(&BTreeSet::new()), "");
    }

    proptest! {
        #[test]
        fn text_forms_round_trip(indexes in prop::collection::btree_set(0..200i32, 0..60)) {
            prop_assert_eq!(parse(&format(&indexes), 200), indexes);
        }
    }
}
