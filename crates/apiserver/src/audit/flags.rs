//! Flags of audit, named as kube-apiserver's, and what is made of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clock::SharedClock;
use parking_lot::Mutex;

use super::Audit;
use super::backend::{Backend, Batching, Delivery, Mode, Truncation};
use super::log::{Log, LogFile, Rotation};
use super::metrics::AuditMetrics;
use super::policy::Policy;
use super::webhook::Webhook;

const MODES: [&str; 3] = ["batch", "blocking", "blocking-strict"];
const FORMATS: [&str; 2] = ["legacy", "json"];
const VERSION: &str = "audit.k8s.io/v1";

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub struct AuditFlags {
    /// Policy that decides which requests are recorded, and how much of them.
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,

    /// File that events are written to; `-`: standard output.
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<String>,
    /// Days that old files are kept for; 0: forever.
    #[arg(long, default_value_t = 366, value_name = "DAYS", allow_negative_numbers = true)]
    pub audit_log_maxage: i64,
    /// Old files that are kept; 0: all.
    #[arg(long, default_value_t = 100, value_name = "NUMBER", allow_negative_numbers = true)]
    pub audit_log_maxbackup: i64,
    /// Size at which a new file begins; 0: none ever does.
    #[arg(long, default_value_t = 100, value_name = "MIB", allow_negative_numbers = true)]
    pub audit_log_maxsize: i64,
    /// `json`, or `legacy` for one line of text per event.
    #[arg(long, default_value = "json", value_name = "FORMAT")]
    pub audit_log_format: String,
    /// Version of the events in the log.
    #[arg(long, default_value = VERSION, value_name = "VERSION")]
    pub audit_log_version: String,
    /// Whether old files are compressed.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_log_compress: bool,
    /// Whether requests wait until their events are written: `batch`, `blocking`, or
    /// `blocking-strict`, which refuses those whose event cannot be.
    #[arg(long, default_value = "blocking", value_name = "MODE")]
    pub audit_log_mode: String,
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS", allow_negative_numbers = true)]
    pub audit_log_batch_buffer_size: i64,
    #[arg(long, default_value_t = 1, value_name = "EVENTS", allow_negative_numbers = true)]
    pub audit_log_batch_max_size: i64,
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration)]
    pub audit_log_batch_max_wait: Duration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_log_batch_throttle_enable: bool,
    #[arg(long, default_value_t = 0.0, value_name = "RATE", allow_negative_numbers = true)]
    pub audit_log_batch_throttle_qps: f64,
    #[arg(long, default_value_t = 0, value_name = "BATCHES", allow_negative_numbers = true)]
    pub audit_log_batch_throttle_burst: i64,
    /// Whether large events lose the objects in them.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_log_truncate_enabled: bool,
    #[arg(long, default_value_t = 10 << 20, value_name = "BYTES", allow_negative_numbers = true)]
    pub audit_log_truncate_max_batch_size: i64,
    #[arg(long, default_value_t = 100 << 10, value_name = "BYTES", allow_negative_numbers = true)]
    pub audit_log_truncate_max_event_size: i64,

    /// Kubeconfig that says which server events are posted to.
    #[arg(long, value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// How long to wait before events are sent again.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration,
        alias = "audit-webhook-batch-initial-backoff")]
    pub audit_webhook_initial_backoff: Duration,
    /// Version of the events that are posted.
    #[arg(long, default_value = VERSION, value_name = "VERSION")]
    pub audit_webhook_version: String,
    /// As `--audit-log-mode`.
    #[arg(long, default_value = "batch", value_name = "MODE")]
    pub audit_webhook_mode: String,
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS", allow_negative_numbers = true)]
    pub audit_webhook_batch_buffer_size: i64,
    #[arg(long, default_value_t = 400, value_name = "EVENTS", allow_negative_numbers = true)]
    pub audit_webhook_batch_max_size: i64,
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub audit_webhook_batch_max_wait: Duration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_webhook_batch_throttle_enable: bool,
    #[arg(long, default_value_t = 10.0, value_name = "RATE", allow_negative_numbers = true)]
    pub audit_webhook_batch_throttle_qps: f64,
    #[arg(long, default_value_t = 15, value_name = "BATCHES", allow_negative_numbers = true)]
    pub audit_webhook_batch_throttle_burst: i64,
    /// Whether large events lose the objects in them.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_webhook_truncate_enabled: bool,
    #[arg(long, default_value_t = 10 << 20, value_name = "BYTES", allow_negative_numbers = true)]
    pub audit_webhook_truncate_max_batch_size: i64,
    #[arg(long, default_value_t = 100 << 10, value_name = "BYTES", allow_negative_numbers = true)]
    pub audit_webhook_truncate_max_event_size: i64,
}

fn duration(text: &str) -> Result<Duration, String> {
    api::duration::parse(text).map_err(|error| error.to_string())
}

/// The flags of one backend about collecting events.
struct Collecting<'a> {
    plugin: &'static str,
    mode: &'a str,
    buffer: i64,
    size: i64,
    wait: Duration,
    throttle: bool,
    rate: f64,
    burst: i64,
}

impl Collecting<'_> {
    fn batching(&self) -> anyhow::Result<Batching> {
        let Self { plugin, mode, buffer, size, rate, burst, .. } = *self;
        let mode = match mode {
            "batch" => Mode::Batch,
            "blocking" => Mode::Blocking,
            "blocking-strict" => Mode::BlockingStrict,
            other => bail!(
                "invalid audit {plugin} mode {other}, allowed modes are {:?}",
                MODES.join(",")
            ),
        };
        let number = |what: &str, number: i64| {
            let positive = usize::try_from(number).ok().filter(|number| *number > 0);
            positive.with_context(|| {
                format!("invalid audit batch {plugin} {what} {number}, must be a positive number")
            })
        };
        if mode != Mode::Batch {
            // What is not used is not checked.
            return Ok(Batching { mode, buffer: 1, size: 1, wait: Duration::ZERO, throttle: None });
        }
        let (buffer, size) = (number("buffer size", buffer)?, number("max batch size", size)?);
        let mut throttle = None;
        if self.throttle {
            ensure!(
                rate > 0.0,
                "invalid audit batch {plugin} throttle QPS {rate}, must be a positive number"
            );
            let burst = u32::try_from(number("throttle burst", burst)?)?;
            throttle = Some((rate, burst));
        }
        Ok(Batching { mode, buffer, size, wait: self.wait, throttle })
    }
}

fn truncation(
    plugin: &str,
    enabled: bool,
    event: i64,
    batch: i64,
) -> anyhow::Result<Option<Truncation>> {
    ensure!(
        event > 0,
        "invalid audit truncate {plugin} max event size {event}, must be a positive number"
    );
    ensure!(
        batch >= event,
        "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})"
    );
    let truncation =
        Truncation { event_bytes: usize::try_from(event)?, batch_bytes: usize::try_from(batch)? };
    Ok(enabled.then_some(truncation))
}

fn version(version: &str) -> anyhow::Result<()> {
    ensure!(version == VERSION, "invalid group version, allowed versions are [\"{VERSION}\"]");
    Ok(())
}

impl AuditFlags {
    /// What the flags configure; `None`: nothing is recorded.
    ///
    /// # Errors
    /// When a flag or a file is wrong.
    pub fn start(
        &self,
        metrics: &AuditMetrics,
        clock: &SharedClock,
    ) -> anyhow::Result<Option<Arc<Audit>>> {
        let log = self.log_settings()?;
        let webhook = self.webhook_settings()?;
        let policy = self.audit_policy_file.as_deref().map(Policy::load).transpose();
        let policy = policy.map_err(|why| anyhow::anyhow!("loading audit policy file: {why}"))?;
        let mut backends = Vec::new();
        let mut add = |delivery, (batching, truncation)| {
            backends.push(Backend::start(delivery, batching, truncation, metrics.clone()));
        };
        if let (Some(path), Some(settings)) = (&self.audit_log_path, log) {
            let log = self.open_log(path, clock)?;
            if policy.is_some() {
                let legacy = self.audit_log_format == "legacy";
                add(Delivery::Log { log: Arc::new(Mutex::new(log)), legacy }, settings);
            }
        }
        if let (Some(path), Some(settings), Some(_)) =
            (&self.audit_webhook_config_file, webhook, &policy)
        {
            let webhook = Webhook::load(path, self.audit_webhook_initial_backoff)
                .context("initializing audit webhook")?;
            add(Delivery::Webhook(Arc::new(webhook)), settings);
        }
        let Some(policy) = policy.filter(|_| !backends.is_empty()) else { return Ok(None) };
        let (metrics, clock) = (metrics.clone(), clock.clone());
        Ok(Some(Arc::new(Audit { policy, backends, metrics, clock })))
    }

    fn open_log(&self, path: &str, clock: &SharedClock) -> anyhow::Result<Log> {
        if path == "-" {
            return Ok(Log::Stdout);
        }
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let rotation = Rotation {
            max_bytes: number(self.audit_log_maxsize) << 20,
            max_age_days: number(self.audit_log_maxage),
            max_backups: usize::try_from(self.audit_log_maxbackup).unwrap_or_default(),
            compress: self.audit_log_compress,
        };
        let file = LogFile::open(path.as_ref(), rotation, clock.clone())
            .with_context(|| format!("ensureLogFile: open {path}"))?;
        Ok(Log::File(file))
    }

    fn log_settings(&self) -> anyhow::Result<Option<(Batching, Option<Truncation>)>> {
        if self.audit_log_path.is_none() {
            return Ok(None);
        }
        let collecting = Collecting {
            plugin: "log",
            mode: &self.audit_log_mode,
            buffer: self.audit_log_batch_buffer_size,
            size: self.audit_log_batch_max_size,
            wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable,
            rate: self.audit_log_batch_throttle_qps,
            burst: self.audit_log_batch_throttle_burst,
        };
        let batching = collecting.batching()?;
        let truncation = truncation(
            "log",
            self.audit_log_truncate_enabled,
            self.audit_log_truncate_max_event_size,
            self.audit_log_truncate_max_batch_size,
        )?;
        version(&self.audit_log_version)?;
        let format = &self.audit_log_format;
        ensure!(
            FORMATS.contains(&format.as_str()),
            "invalid audit log format {format}, allowed formats are {:?}",
            FORMATS.join(",")
        );
        for (flag, number) in [
            ("--audit-log-maxage", self.audit_log_maxage),
            ("--audit-log-maxbackup", self.audit_log_maxbackup),
            ("--audit-log-maxsize", self.audit_log_maxsize),
        ] {
            ensure!(number >= 0, "{flag} {number} can't be a negative number");
        }
        Ok(Some((batching, truncation)))
    }

    fn webhook_settings(&self) -> anyhow::Result<Option<(Batching, Option<Truncation>)>> {
        if self.audit_webhook_config_file.is_none() {
            return Ok(None);
        }
        let collecting = Collecting {
            plugin: "webhook",
            mode: &self.audit_webhook_mode,
            buffer: self.audit_webhook_batch_buffer_size,
            size: self.audit_webhook_batch_max_size,
            wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable,
            rate: self.audit_webhook_batch_throttle_qps,
            burst: self.audit_webhook_batch_throttle_burst,
        };
        let batching = collecting.batching()?;
        let truncation = truncation(
            "webhook",
            self.audit_webhook_truncate_enabled,
            self.audit_webhook_truncate_max_event_size,
            self.audit_webhook_truncate_max_batch_size,
        )?;
        version(&self.audit_webhook_version)?;
        Ok(Some((batching, truncation)))
    }
}
