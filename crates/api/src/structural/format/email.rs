//! Email addresses: the part of RFC 5322 that `mail.ParseAddress` reads.

/// `name <local@domain>` or `local@domain`.
pub fn is_address(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    match text.strip_suffix('>') {
        Some(rest) => match rest.rsplit_once('<') {
            Some((name, address)) => is_display_name(name.trim()) && is_spec(address),
            None => false,
        },
        None => is_spec(text),
    }
}

fn is_display_name(name: &str) -> bool {
    if let Some(quoted) = quoted(name) {
        return is_quoted_content(quoted);
    }
    name.split([' ', '\t'])
        .filter(|word| !word.is_empty())
        .all(|word| word.chars().all(|c| is_atom(c) || c == '.'))
}

fn is_spec(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let local = match quoted(local) {
        Some(content) => is_quoted_content(content),
        None => is_dot_atom(local),
    };
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    local
        && match literal {
            Some(literal) => {
                let ip = literal.strip_prefix("IPv6:").unwrap_or(literal);
                ip.parse::<std::net::IpAddr>().is_ok()
            }
            None => is_dot_atom(domain),
        }
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

fn is_quoted_content(text: &str) -> bool {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let valid = match character {
            '\\' => characters.next().is_some_and(|next| !next.is_control()),
            '"' => false,
            other => !other.is_control(),
        };
        if !valid {
            return false;
        }
    }
    true
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|part| !part.is_empty() && part.chars().all(is_atom))
}

fn is_atom(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
        || (!character.is_ascii() && !character.is_control())
}
