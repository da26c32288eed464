use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    let file = |text: &str| Projected { data: text.as_bytes().to_vec(), mode: 0o644, owner: None };
    let mut payload = Payload::default();
    for (path, text) in files {
        payload.insert((*path).to_owned(), file(text)).unwrap();
    }
    payload
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("..2") && !name.starts_with("..1"))
        .collect();
    names.sort();
    names
}

#[test]
fn contents_are_replaced_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let at = Timestamp::UNIX_EPOCH;
    assert!(write(root, &payload(&[("a", "1"), ("deep/er/b", "2")]), None, at).unwrap());
    assert_eq!(names(root), ["..data", "a", "deep"]);
    assert_eq!(fs::read_to_string(root.join("deep/er/b")).unwrap(), "2");
    assert!(!write(root, &payload(&[("a", "1"), ("deep/er/b", "2")]), None, at).unwrap());
    let before = fs::read_link(root.join("..data")).unwrap();
    assert!(write(root, &payload(&[("a", "9"), ("c", "3")]), None, at).unwrap());
    assert_ne!(fs::read_link(root.join("..data")).unwrap(), before);
    assert_eq!(names(root), ["..data", "a", "c"]);
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "9");
    assert_eq!(fs::read_dir(root).unwrap().count(), 4, "the old directory is gone");
}

#[test]
fn a_link_that_is_missing_after_a_crash_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let files = payload(&[("a", "1")]);
    write(root, &files, None, Timestamp::UNIX_EPOCH).unwrap();
    fs::remove_file(root.join("a")).unwrap();
    fs::create_dir(root.join("..leftover")).unwrap();
    assert!(!write(root, &files, None, Timestamp::UNIX_EPOCH).unwrap());
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
}

#[test]
fn modes_are_kept_and_changed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let with = |mode| {
        let mut files = Payload::default();
        let file = Projected { data: b"1".to_vec(), mode, owner: None };
        files.insert("a".to_owned(), file).unwrap();
        files
    };
    write(root, &with(0o400), None, Timestamp::UNIX_EPOCH).unwrap();
    let mode = |root: &Path| fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(root), 0o400);
    assert!(write(root, &with(0o640), None, Timestamp::UNIX_EPOCH).unwrap());
    assert_eq!(mode(root), 0o640);
}

/// A token of the user whom all containers run as, in a pod with an `fsGroup`. As root.
#[test]
fn owner_and_group_are_set_and_a_difference_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut files = Payload::default();
    let file = Projected { data: b"token".to_vec(), mode: 0o600, owner: Some(1000) };
    files.insert("token".to_owned(), file).unwrap();
    let at = Timestamp::UNIX_EPOCH;
    assert!(write(root, &files, Some(2000), at).unwrap());
    let found = fs::metadata(root.join("token")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1000, 2000, 0o640));
    assert!(!write(root, &files, Some(2000), at).unwrap());
    chown(root.join("token"), Some(0), None).unwrap();
    assert!(write(root, &files, Some(2000), at).unwrap());
    assert_eq!(fs::metadata(root.join("token")).unwrap().uid(), 1000);
}

#[test]
fn what_is_left_of_an_interrupted_write_takes_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let at = Timestamp::UNIX_EPOCH;
    write(root, &payload(&[("a", "1")]), None, at).unwrap();
    fs::create_dir_all(root.join("..1970_01_01_00_00_00.0000000007/deep")).unwrap();
    // A container had this `subPath` when there was no such key.
    fs::create_dir(root.join("b")).unwrap();
    write(root, &payload(&[("a", "1"), ("b", "2")]), None, at).unwrap();
    assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "2");
    assert_eq!(fs::read_dir(root).unwrap().count(), 4, "..data, its directory, a and b");
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for path in ["../a", "/a", "..data", "..x/y", "a/../b", "", "a/"] {
        let result = write(directory.path(), &payload(&[(path, "")]), None, Timestamp::UNIX_EPOCH);
        assert!(matches!(result, Err(VolumeError::BadPath(_))), "{path}");
    }
}
