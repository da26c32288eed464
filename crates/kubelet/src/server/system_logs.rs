//! `/logs/`: the node's own logs, as upstream's kubelet serves `/var/log`: listings of directories,
//! and files.
//!
//! Pods may be able to write there (by a hostPath volume), so a link that leads out of the directory
//! is not followed, and only regular files are read.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::web::{PLAIN, Refusal, moved};

/// Most entries of a directory that are listed.
const MAX_ENTRIES: usize = 10_000;

/// What a path below the directory names.
enum Found {
    File(File, u64),
    Listing(String),
    /// A directory, asked for without the slash at its end.
    Directory,
}

/// Answers a request for the path that these words make up. An empty last word stands for a slash
/// at the end.
pub(super) async fn answer(root: &Path, words: &[&str]) -> Result<Response, Refusal> {
    let path = decoded(words).ok_or_else(not_found)?;
    let root = root.to_owned();
    let is_directory = words.last().is_some_and(|last| last.is_empty());
    let work = move || find(&root, &path, is_directory);
    let found = tokio::task::spawn_blocking(work).await.expect("reading a file does not panic");
    match found {
        Ok(Found::Listing(html)) => Ok(Html(html).into_response()),
        Ok(Found::Directory) => Ok(moved(words.last().copied().unwrap_or_default())),
        Ok(Found::File(file, size)) => {
            // It may grow meanwhile.
            let stream = ReaderStream::new(tokio::fs::File::from_std(file).take(size));
            let headers = [
                (CONTENT_TYPE, PLAIN.to_owned()),
                (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
                (CONTENT_LENGTH, size.to_string()),
            ];
            Ok((headers, Body::from_stream(stream)).into_response())
        }
        Err(Errno::EACCES | Errno::EPERM) => {
            Err((StatusCode::FORBIDDEN, "403 Forbidden".to_owned()))
        }
        // EXDEV and ELOOP: a link that leads elsewhere.
        Err(_) => Err(not_found()),
    }
}

fn not_found() -> Refusal {
    (StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

fn find(root: &Path, path: &Path, is_directory: bool) -> Result<Found, Errno> {
    let root = File::open(root).map_err(errno)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened: OwnedFd = openat2(&root, path, how)?;
    let file = File::from(opened);
    let metadata = file.metadata().map_err(errno)?;
    if metadata.is_dir() {
        return Ok(if is_directory { Found::Listing(listing(&file)?) } else { Found::Directory });
    }
    if !metadata.is_file() || is_directory {
        return Err(Errno::ENOENT);
    }
    Ok(Found::File(file, metadata.len()))
}

/// The page that Go's file server shows.
fn listing(directory: &File) -> Result<String, Errno> {
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let mut names: Vec<String> = entries
        .map_err(errno)?
        .flatten()
        .take(MAX_ENTRIES)
        .map(|entry| {
            let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let mut page = String::from(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n",
    );
    for name in names {
        page += &format!("<a href=\"{}\">{}</a>\n", encoded(&name), escaped(&name));
    }
    Ok(page + "</pre>\n")
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

/// The relative path; `None` if it is malformed.
fn decoded(words: &[&str]) -> Option<PathBuf> {
    let mut path = PathBuf::from(".");
    for word in words.iter().filter(|word| !word.is_empty()) {
        let word = percent_decoded(word)?;
        if word == ".." || word.contains(['/', '\0']) {
            return None;
        }
        path.push(word);
    }
    Some(path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let hex = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// A name as a relative link.
fn encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

fn escaped(text: &str) -> String {
    let special = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")];
    special.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn get(root: &Path, path: &str) -> (u16, String) {
        let words: Vec<&str> = path.split('/').collect();
        match answer(root, &words).await {
            Ok(response) => {
                let status = response.status().as_u16();
                let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
                (status, String::from_utf8(body.to_vec()).unwrap())
            }
            Err((status, text)) => (status.as_u16(), text),
        }
    }

    #[tokio::test]
    async fn files_and_directories_but_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("log");
        std::fs::create_dir_all(root.join("pods/a b")).unwrap();
        std::fs::write(outside.path().join("shadow"), "secret").unwrap();
        std::fs::write(root.join("syslog"), "line\n").unwrap();
        std::fs::write(root.join("pods/a b/<0>.log"), "of a pod").unwrap();
        symlink("syslog", root.join("inside")).unwrap();
        symlink("../shadow", root.join("relative")).unwrap();
        symlink(outside.path().join("shadow"), root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, status, text) in [
            ("", 200, "<a href=\"pods/\">pods/</a>"),
            ("pods/", 200, "<a href=\"a%20b/\">a b/</a>"),
            ("pods", 301, ""),
            ("syslog", 200, "line\n"),
            ("inside", 200, "line\n"),
            ("pods/a%20b/", 200, "<a href=\"%3C0%3E.log\">&lt;0&gt;.log</a>"),
            ("pods/a%20b/%3C0%3E.log", 200, "of a pod"),
            ("nothing", 404, ""),
            ("syslog/", 404, ""),
            ("relative", 404, ""),
            ("absolute", 404, ""),
            ("up/shadow", 404, ""),
            ("up/", 404, ""),
            ("magic/etc/passwd", 404, ""),
            ("fifo", 404, ""),
            ("../shadow", 404, ""),
            ("%2e%2e/shadow", 404, ""),
            ("..%2fshadow", 404, ""),
            ("pods/../../shadow", 404, ""),
            ("%00", 404, ""),
            ("%zz", 404, ""),
        ] {
            let (found, body) = get(&root, path).await;
            assert_eq!(found, status, "{path}: {body}");
            assert!(body.contains(text) && !body.contains("secret"), "{path}: {body}");
        }
    }
}
