//! The dictionary that header compression starts with on both sides (SPDY draft 3, 2.6.10.1): words
//! with their lengths, then a tail.

/// Length of the whole dictionary, in bytes.
const LENGTH: usize = 1423;

/// Each is preceded by its length, four bytes, big endian.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match \
    if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status";
/// The words after them; one contains a space.
const MORE_WORDS: [&str; 8] =
    ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request\
401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented\
503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary.
pub fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    for word in WORDS.split_ascii_whitespace().chain(MORE_WORDS) {
        let length = u32::try_from(word.len()).expect("words are short");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_matches_the_specification() {
        let bytes = super::dictionary();
        assert_eq!(bytes.len(), super::LENGTH);
        let (mut low, mut high) = (1u32, 0u32);
        for byte in bytes {
            low = (low + u32::from(byte)) % 65_521;
            high = (high + low) % 65_521;
        }
        assert_eq!(high << 16 | low, 0xe3c6_a7c2, "its Adler-32 checksum");
    }
}
