//! `$(NAME)` references in commands, arguments, environment values and sub-paths
//! (`third_party/forked/golang/expansion` in Kubernetes): `$$` is a dollar sign, and an unknown
//! name is left as it is.

/// Expands the references that `lookup` resolves.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    expand_reporting(text, lookup).0
}

/// Like [`expand`], and also returns the names that `lookup` did not resolve.
pub fn expand_reporting(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some(inner) = after.strip_prefix('(') {
            match inner.split_once(')') {
                Some((name, tail)) => {
                    match lookup(name) {
                        Some(value) => out.push_str(&value),
                        None => {
                            out.push_str(&format!("$({name})"));
                            unknown.push(name.to_owned());
                        }
                    }
                    rest = tail;
                }
                None => {
                    out.push_str("$(");
                    rest = inner;
                }
            }
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    (out, unknown)
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn references() {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "LOOP" => Some("$(A)".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$(NO)", "$(NO)"),
            ("$(EMPTY)", ""),
            ("$(LOOP)", "$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("end$", "end$"),
            ("$()", "$()"),
            ("a$(A)$", "aone$"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }
}
