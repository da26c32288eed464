//! `[scheme:]name[:port]`, the names of proxied objects (`utilnet.SplitSchemeNamePort`).

use api::ApiError;

/// A name with its scheme and port.
#[derive(Debug, PartialEq, Eq)]
pub struct Address<'a> {
    pub https: bool,
    pub name: &'a str,
    /// A number or a name; empty: the default.
    pub port: &'a str,
}

impl<'a> Address<'a> {
    /// Parses a name.
    ///
    /// # Errors
    /// 400 for a malformed name.
    pub fn parse(text: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("?", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(ApiError::bad_request(format!(
                "invalid proxy request {text:?}: it must be [http:|https:]name[:port]"
            )));
        }
        Ok(Self { https: scheme == "https", name, port })
    }

    /// The port if it is a number.
    pub fn port_number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port > 0)
    }

    /// The port if none is given.
    pub fn default_port(&self) -> u16 {
        if self.https { 443 } else { 80 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split() {
        let table = [
            ("web", Some((false, "web", ""))),
            ("web:8080", Some((false, "web", "8080"))),
            ("web:http", Some((false, "web", "http"))),
            ("https:web:", Some((true, "web", ""))),
            ("https:web:8443", Some((true, "web", "8443"))),
            ("http:web:80", Some((false, "web", "80"))),
            (":web:80", Some((false, "web", "80"))),
            ("ftp:web:80", None),
            ("", None),
            ("https::80", None),
            ("a:b:c:d", None),
        ];
        for (text, expected) in table {
            let parsed = Address::parse(text).ok();
            let parsed = parsed.map(|address| (address.https, address.name, address.port));
            assert_eq!(parsed, expected, "{text:?}");
        }
    }
}
