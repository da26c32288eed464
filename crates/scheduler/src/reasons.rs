//! Which Events of upstream's scheduler are recorded here: the table of their reasons
//! (`k8s.io/kubernetes/pkg/scheduler`).

use std::path::Path;

/// Why none of the reasons is missing: the scheduler of upstream has no others but those of
/// dynamic resources and of pod groups, which there are not here.
const REASONS: [&str; 3] = ["Scheduled", "FailedScheduling", "Preempted"];

#[test]
fn upstreams_reasons() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for reason in REASONS {
        assert!(sources.contains(&format!("\"{reason}\"")), "{reason} is recorded nowhere");
    }
    // Nothing else is recorded: every call of the recorder has one of them.
    let calls = ["recorder.record(", "recorder_of(&pod).record("];
    let calls: usize = calls.iter().map(|call| sources.matches(call).count()).sum();
    assert_eq!(calls, REASONS.len(), "a new event has to be added to the table");
}

/// All code, but this table and the tests.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if !path.ends_with("src/reasons.rs") && !path.ends_with("tests.rs") {
            text += &std::fs::read_to_string(path).unwrap();
        }
    }
    text
}
