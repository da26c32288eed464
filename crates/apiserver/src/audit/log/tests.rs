use std::io::Read;

use clock::ManualClock;

use super::*;

fn open(folder: &Path, rotation: Rotation) -> (LogFile, ManualClock) {
    let clock = ManualClock::at("2026-01-31T12:00:00Z".parse().unwrap());
    let file =
        LogFile::open(&folder.join("sub/audit.log"), rotation, std::sync::Arc::new(clock.clone()));
    (file.unwrap(), clock)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("sub")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const LINE: &[u8] = b"0123456789\n";
const ROTATION: Rotation =
    Rotation { max_bytes: 30, max_age_days: 0, max_backups: 0, compress: false };

#[test]
fn a_large_file_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, clock) = open(folder.path(), ROTATION);
    for _ in 0..5 {
        file.write(LINE).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(
        names(folder.path()),
        ["audit-2026-01-31T12-00-02.000.log", "audit-2026-01-31T12-00-04.000.log", "audit.log"]
    );
    assert_eq!(fs::read(folder.path().join("sub/audit.log")).unwrap(), LINE);
    // Two at the same time do not overwrite one another.
    for _ in 0..4 {
        file.write(LINE).unwrap();
    }
    assert_eq!(names(folder.path()).len(), 5);
    let error = file.write(&[b'x'; 31]).unwrap_err();
    assert_eq!(error.to_string(), "write length 31 exceeds maximum file size 30");
    // Another process goes on where this one has ended.
    drop(file);
    let (file, _) = open(folder.path(), ROTATION);
    assert_eq!(file.size, 11);
}

#[test]
fn backups_are_few_young_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let rotation = Rotation { max_backups: 2, max_age_days: 3, compress: true, ..ROTATION };
    let (mut file, clock) = open(folder.path(), rotation);
    // Not one of its backups.
    fs::write(folder.path().join("sub/audit-of-others.log"), "x").unwrap();
    for _ in 0..10 {
        file.write(LINE).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(
        names(folder.path()),
        [
            "audit-2026-01-31T12-00-06.000.log.gz",
            "audit-2026-01-31T12-00-08.000.log.gz",
            "audit-of-others.log",
            "audit.log",
        ]
    );
    let packed =
        File::open(folder.path().join("sub/audit-2026-01-31T12-00-08.000.log.gz")).unwrap();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut text).unwrap();
    assert_eq!(text, [LINE, LINE].concat());
    clock.advance(DAY * 4);
    (0..2).for_each(|_| file.write(LINE).unwrap());
    assert_eq!(
        names(folder.path()),
        ["audit-2026-02-04T12-00-10.000.log.gz", "audit-of-others.log", "audit.log"]
    );
}

#[test]
fn without_a_size_the_file_grows() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = open(folder.path(), Rotation { max_bytes: 0, ..ROTATION });
    (0..100).for_each(|_| file.write(LINE).unwrap());
    assert_eq!(names(folder.path()), ["audit.log"]);
}
