//! Which Events of upstream's scheduler are recorded here: the table of their reasons
//! (`k8s.io/kubernetes/pkg/scheduler`).

use testkit::reasons::Occurs::{self, Here};
use testkit::reasons::check;

/// Why none of the reasons is missing: the scheduler of upstream has no others but those of
/// dynamic resources and of pod groups, which there are not here.
const REASONS: [(&str, Occurs); 3] =
    [("Scheduled", Here), ("FailedScheduling", Here), ("Preempted", Here)];

#[test]
fn upstreams_reasons() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let code = check(folder, &["src/reasons.rs", "tests.rs"], &REASONS);
    // Nothing else is recorded: every call of the recorder has one of them.
    let calls = ["recorder.record(", "recorder_of(&pod).record("];
    let calls: usize = calls.iter().map(|call| code.matches(call).count()).sum();
    assert_eq!(calls, REASONS.len(), "a new event has to be added to the table");
}
