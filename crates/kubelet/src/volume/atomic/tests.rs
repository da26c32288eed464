use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    let file = |text: &str| Projected { data: text.as_bytes().to_vec(), mode: 0o644, owner: None };
    files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
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
    let mut files = payload(&[("a", "1")]);
    files.get_mut("a").unwrap().mode = 0o400;
    write(root, &files, None, Timestamp::UNIX_EPOCH).unwrap();
    let mode = |root: &Path| fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(root), 0o400);
    files.get_mut("a").unwrap().mode = 0o640;
    assert!(write(root, &files, None, Timestamp::UNIX_EPOCH).unwrap());
    assert_eq!(mode(root), 0o640);
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for path in ["../a", "/a", "..data", "..x/y", "a/../b", "", "a/"] {
        let result = write(directory.path(), &payload(&[(path, "")]), None, Timestamp::UNIX_EPOCH);
        assert!(matches!(result, Err(VolumeError::BadPath(_))), "{path}");
    }
}
