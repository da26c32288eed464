//! HTTP/1.1 requests and responses, as far as a test server needs them.

use std::io::{self, BufRead, Read, Write};

/// Largest body that is read, in bytes.
const BODY_MAX: u64 = 64 << 20;

/// A complete request.
pub struct Request {
    pub method: String,
    pub target: String,
    /// As received, without line endings.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the rest of a request whose first line has been read.
    pub fn read(line: &str, reader: &mut impl BufRead) -> io::Result<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut request = Self {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_else(|| "/".to_owned()),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            request.headers.push(header.trim().to_owned());
        }
        if request.has("transfer-encoding", "chunked") {
            request.body = chunks(reader)?;
        } else if let Some(length) = request.header("content-length") {
            let length: u64 = length.parse().map_err(io::Error::other)?;
            reader.take(length.min(BODY_MAX)).read_to_end(&mut request.body)?;
        }
        Ok(request)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.headers.iter().filter_map(|line| line.split_once(':'));
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// Whether the value of a header contains a word.
    pub fn has(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }
}

fn chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        reader.take(length.min(BODY_MAX)).read_to_end(&mut body)?;
        // The line ending after the chunk, or after the trailers.
        reader.read_line(&mut line)?;
        if length == 0 || body.len() as u64 > BODY_MAX {
            return Ok(body);
        }
    }
}

/// A response.
pub struct Response {
    pub status: &'static str,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Response {
    /// A plain-text response.
    pub fn text(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec!["Content-Type: text/plain".to_owned()], body: body.into() }
    }

    /// Writes it, without its body if `head`; `close` says that the connection ends with it.
    pub fn write(&self, writer: &mut impl Write, head: bool, close: bool) -> io::Result<()> {
        let connection = if close { "close" } else { "keep-alive" };
        write!(writer, "HTTP/1.1 {}\r\n", self.status)?;
        for header in &self.headers {
            write!(writer, "{header}\r\n")?;
        }
        write!(writer, "Content-Length: {}\r\nConnection: {connection}\r\n\r\n", self.body.len())?;
        if !head {
            writer.write_all(&self.body)?;
        }
        writer.flush()
    }
}
