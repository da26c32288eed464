use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use futures::StreamExt;

use super::super::format::LineFormatter;
use super::super::rotate::RotatingFile;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn line(second: i64, stream: &str, text: &str) -> String {
    format!("{:.9} {stream} F {text}\n", at(second))
}

async fn read(path: &Path, query: LogQuery) -> String {
    let chunks: Vec<Bytes> = read_log(path, query).map(|chunk| chunk.unwrap()).collect().await;
    String::from_utf8(chunks.concat()).unwrap()
}

/// Two rotated files and a current one, three lines each.
fn rotated(directory: &Path) -> PathBuf {
    let path = directory.join("0.log");
    for (file, first) in
        [(".20260101-000000.000000000", 0), (".20260101-000001.000000000", 3), ("", 6)]
    {
        let mut text = String::new();
        for second in first..first + 3 {
            let stream = if second % 2 == 0 { "stdout" } else { "stderr" };
            text += &line(second, stream, &second.to_string());
        }
        std::fs::write(format!("{}{file}", path.display()), text).unwrap();
    }
    path
}

#[tokio::test]
async fn reads_over_rotated_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = rotated(directory.path());
    let query = LogQuery::default;
    assert_eq!(read(&path, query()).await, "0\n1\n2\n3\n4\n5\n6\n7\n8\n");
    let cases = [
        (LogQuery { tail_lines: Some(2), ..query() }, "7\n8\n"),
        (LogQuery { tail_lines: Some(4), ..query() }, "5\n6\n7\n8\n"),
        (LogQuery { tail_lines: Some(0), ..query() }, ""),
        (LogQuery { tail_lines: Some(100), ..query() }, "0\n1\n2\n3\n4\n5\n6\n7\n8\n"),
        (LogQuery { since: Some(at(7)), ..query() }, "7\n8\n"),
        (LogQuery { stream: Some(LogStream::Stderr), ..query() }, "1\n3\n5\n7\n"),
        (LogQuery { stream: Some(LogStream::Stderr), tail_lines: Some(2), ..query() }, "5\n7\n"),
        (LogQuery { limit_bytes: Some(5), ..query() }, "0\n1\n2"),
        (
            LogQuery { timestamps: true, tail_lines: Some(1), ..query() },
            "1970-01-01T00:00:08.000000000Z 8\n",
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(read(&path, query.clone()).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn parts_of_a_line_are_joined() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    std::fs::write(&path, "t stdout P ab\nt stdout F cd\nrubbish\nt stdout F e\nt stdo").unwrap();
    assert_eq!(
        read(&path, LogQuery { timestamps: true, ..LogQuery::default() }).await,
        "t abcd\nt e\n"
    );
}

/// Writes what a container wrote, as a log writer does: read in pieces of this size, into files of
/// this size.
fn written(path: &Path, text: &[(&str, String)], piece_bytes: usize, file_bytes: u64) {
    let mut log = RotatingFile::open(path, file_bytes, 1000, || true).unwrap();
    let mut formatters = HashMap::new();
    for (second, (stream, text)) in text.iter().enumerate() {
        let stream = if *stream == "stdout" { LogStream::Stdout } else { LogStream::Stderr };
        let lines = formatters.entry(stream).or_insert_with(|| LineFormatter::new(stream));
        for piece in text.as_bytes().chunks(piece_bytes) {
            let mut out = Vec::new();
            lines.push(piece, at(second as i64), &mut out);
            log.write(&out, at(second as i64)).unwrap();
        }
    }
    log.close().unwrap();
}

#[tokio::test]
async fn a_line_is_whole_whatever_its_length() {
    let lengths = [1, 16_384, 16_385, 65_535, 65_536, 65_537, 65_540, 131_072, 200_000, 1_000_000];
    for (piece_bytes, file_bytes) in [(65_536, 10 << 20), (4096, 10 << 20), (65_536, 40_000)] {
        for length in lengths {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("0.log");
            let long = "x".repeat(length);
            let text = format!("first\n{long}\nlast\n");
            written(&path, &[("stdout", text.clone())], piece_bytes, file_bytes);
            let query = LogQuery::default;
            let time = format!("{:.9}", at(0));
            for (query, expected) in [
                (query(), text.clone()),
                (LogQuery { follow: true, ..query() }, text.clone()),
                (LogQuery { since: Some(at(0)), ..query() }, text.clone()),
                (LogQuery { since: Some(at(1)), ..query() }, String::new()),
                (LogQuery { tail_lines: Some(1), ..query() }, "last\n".to_owned()),
                (LogQuery { tail_lines: Some(2), ..query() }, format!("{long}\nlast\n")),
                (LogQuery { tail_lines: Some(3), ..query() }, text.clone()),
                (LogQuery { limit_bytes: Some(length as u64), ..query() }, text[..length].into()),
                (
                    LogQuery { timestamps: true, ..query() },
                    format!("{time} first\n{time} {long}\n{time} last\n"),
                ),
            ] {
                let read = read(&path, query.clone()).await;
                let same = read == expected;
                assert!(same, "{length} {piece_bytes} {query:?}: {} bytes", read.len());
            }
        }
    }
}

/// Output of one stream between the parts of a line of the other does not break the line.
#[tokio::test]
async fn streams_do_not_mix_within_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let long = "x".repeat(40_000);
    let text = [
        ("stdout", long.clone()),
        ("stderr", "an error\n".to_owned()),
        ("stdout", format!("{long}\n")),
    ];
    written(&path, &text, 65_536, 10 << 20);
    let all = read(&path, LogQuery::default()).await;
    assert!(all == format!("{long}{long}\nan error\n"), "{} bytes", all.len());
    let query = LogQuery { timestamps: true, tail_lines: Some(2), ..LogQuery::default() };
    let all = read(&path, query).await;
    let (first, second) = (format!("{:.9}", at(0)), format!("{:.9}", at(1)));
    assert!(all == format!("{first} {long}{long}\n{second} an error\n"), "{} bytes", all.len());
}

#[tokio::test]
async fn no_log_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = read_log(&directory.path().join("0.log"), LogQuery::default());
    let LogError::Io { source, .. } = log.next().await.unwrap().unwrap_err();
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn follow_sees_rotation_and_the_end_of_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut writer = RotatingFile::open(&path, 100, 3, || true).unwrap();
    writer.write(line(0, "stdout", "first").as_bytes(), at(0)).unwrap();
    let mut log = read_log(&path, LogQuery { follow: true, ..LogQuery::default() });
    assert_eq!(log.next().await.unwrap().unwrap(), "first\n");
    for second in 1..6 {
        writer.write(line(second, "stdout", &second.to_string()).as_bytes(), at(second)).unwrap();
        let next = tokio::time::timeout(Duration::from_secs(10), log.next())
            .await
            .expect("a change wakes it");
        assert_eq!(next.unwrap().unwrap(), format!("{second}\n"));
    }
    writer.close().unwrap();
    let end =
        tokio::time::timeout(Duration::from_secs(10), log.next()).await.expect("the end wakes it");
    assert!(end.is_none());
}

#[tokio::test]
async fn follow_of_a_dead_writer_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut file = File::create(&path).unwrap();
    file.write_all(line(0, "stdout", "x").as_bytes()).unwrap();
    assert_eq!(read(&path, LogQuery { follow: true, ..LogQuery::default() }).await, "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_misses_nothing_of_a_writer_that_rotates_all_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let mut writer = RotatingFile::open(&path, 300, 10_000, || true).unwrap();
    let log = read_log(&path, LogQuery { follow: true, ..LogQuery::default() });
    let writing = std::thread::spawn(move || {
        for second in 0..2000 {
            writer
                .write(line(second, "stdout", &second.to_string()).as_bytes(), at(second))
                .unwrap();
        }
        writer.close().unwrap();
    });
    let all = log.map(|chunk| chunk.unwrap()).collect::<Vec<Bytes>>();
    let chunks = tokio::time::timeout(Duration::from_secs(60), all).await.expect("the log ends");
    writing.join().unwrap();
    let text = String::from_utf8(chunks.concat()).unwrap();
    let expected: String = (0..2000).map(|second| format!("{second}\n")).collect();
    assert!(text == expected, "{} bytes of {}", text.len(), expected.len());
}
