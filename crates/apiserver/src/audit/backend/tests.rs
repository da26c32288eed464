use super::super::log::{LogFile, Rotation};
use super::*;
use crate::audit::Level;
use crate::request::{Request, Subject};

fn event(path: &str) -> Event {
    let subject = Subject::Path { path: path.to_owned(), method: "get", accept: String::new() };
    Event::new(&Request::new(subject, Default::default()), Level::Request, clock::now())
}

fn log(path: &std::path::Path, max_bytes: u64) -> Delivery {
    let rotation = Rotation { max_bytes, max_age_days: 0, max_backups: 0, compress: false };
    let file = LogFile::open(path, rotation, clock::system()).unwrap();
    Delivery::Log { log: Arc::new(Mutex::new(Log::File(file))), legacy: false }
}

fn batching(mode: Mode) -> Batching {
    Batching { mode, buffer: 10, size: 1, wait: Duration::ZERO, throttle: None }
}

fn metric(metrics: &AuditMetrics, name: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |number| number.trim().parse().unwrap())
}

const BUFFERED: &str = "apiserver_audit_error_total{plugin=\"buffered\"}";

/// A flood fills the buffer, and costs events, but never time.
#[tokio::test]
#[allow(clippy::await_holding_lock)]
async fn a_flooded_buffer_loses_events_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let metrics = AuditMetrics::default();
    let Delivery::Log { log: file, legacy } = log(&path, 0) else { unreachable!() };
    // The disk does not answer.
    let hangs = file.clone();
    let held = hangs.lock();
    let delivery = Delivery::Log { log: file, legacy };
    let backend = Backend::start(delivery, batching(Mode::Batch), None, metrics.clone());
    for number in 0..100 {
        assert!(backend.process(&event(&format!("/{number}"))).await);
    }
    let lost = metric(&metrics, BUFFERED);
    assert!((88..=90).contains(&lost), "{lost} of 100");
    drop(held);
    backend.stop().await;
    let lines = std::fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines as u64 + lost, 100, "what is not lost is written before the server ends");
}

/// In blocking modes an event is in the file before its request goes on; only the strict one fails
/// requests.
#[tokio::test]
async fn requests_wait_as_long_as_their_mode_says() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, kept) in [(Mode::Blocking, true), (Mode::BlockingStrict, false)] {
        let path = folder.path().join(format!("{mode:?}.log"));
        let metrics = AuditMetrics::default();
        let backend = Backend::start(log(&path, 2_000), batching(mode), None, metrics.clone());
        assert!(backend.process(&event("/a")).await);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"requestURI\":\"/a\""));
        // Nothing of this size can be written.
        assert_eq!(backend.process(&event(&"x".repeat(3_000))).await, kept, "{mode:?}");
        assert_eq!(metric(&metrics, "apiserver_audit_error_total{plugin=\"log\"}"), 1);
        backend.stop().await;
        assert!(backend.process(&event("/late")).await);
    }
}

#[tokio::test]
async fn large_events_lose_their_objects_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let metrics = AuditMetrics::default();
    let truncation = Some(Truncation { event_bytes: 1_000, batch_bytes: 10_000 });
    let backend =
        Backend::start(log(&path, 0), batching(Mode::Blocking), truncation, metrics.clone());
    let mut large = event("/a");
    let object = serde_json::value::to_raw_value(&"x".repeat(2_000)).unwrap();
    large.request_object = Some(object);
    assert!(backend.process(&large).await);
    assert!(backend.process(&event(&"x".repeat(2_000))).await);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("\"annotations\":{\"audit.k8s.io/truncated\":\"true\"}"), "{text}");
    assert_eq!(metric(&metrics, "apiserver_audit_error_total{plugin=\"truncate\"}"), 1);
    backend.stop().await;
}

#[tokio::test(start_paused = true)]
async fn batches_are_throttled() {
    let mut throttle = Throttle::new(10.0, 2);
    let begun = clock::instant();
    for _ in 0..12 {
        throttle.wait().await;
    }
    let took = begun.elapsed();
    assert!((950..1_100).contains(&took.as_millis()), "{took:?}");
}
