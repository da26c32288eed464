//! Levels, versions, and the policy that a namespace's labels ask for
//! (`k8s.io/pod-security-admission/api`).

use std::collections::BTreeMap;
use std::fmt;

use api::status::FieldError;

/// How strict a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn text(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    /// # Errors
    /// Kubernetes' text about a level that does not exist.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let all = [Self::Privileged, Self::Baseline, Self::Restricted];
        let known = all.into_iter().find(|level| level.text() == text);
        known.ok_or("must be one of privileged, baseline, restricted")
    }
}

/// The version of Kubernetes whose checks apply: `v1.N`, or the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    /// # Errors
    /// Kubernetes' text about what is not a version.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const PROBLEM: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(PROBLEM)?;
        let canonical = minor == "0" || !minor.starts_with('0');
        if minor.is_empty() || !canonical || !minor.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PROBLEM);
        }
        minor.parse().map(Self::Minor).map_err(|_| PROBLEM)
    }

    /// Whether checks that came with minor version `minor` are part of this version.
    pub fn includes(self, minor: u32) -> bool {
        match self {
            Self::Latest => true,
            Self::Minor(own) => own >= minor,
        }
    }

    /// For metrics: namespaces can ask for any version, but the number of labels is bounded.
    pub fn label(self) -> String {
        match self {
            Self::Minor(minor) if minor > NEWEST => "future".to_owned(),
            version => version.to_string(),
        }
    }
}

/// The newest minor version that checks are known of.
const NEWEST: u32 = 37;

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// `restricted:latest`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.text(), self.version)
    }
}

/// What becomes of a pod that violates a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    Enforce,
    Audit,
    Warn,
}

pub const MODES: [Mode; 3] = [Mode::Enforce, Mode::Audit, Mode::Warn];

impl Mode {
    pub fn text(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Warn => "warn",
        }
    }

    /// The label with its level.
    pub fn level_label(self) -> String {
        format!("pod-security.kubernetes.io/{}", self.text())
    }

    /// The label with its version.
    pub fn version_label(self) -> String {
        format!("pod-security.kubernetes.io/{}-version", self.text())
    }
}

/// The policy of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Default for Policy {
    fn default() -> Self {
        let nothing = LevelVersion { level: Level::Privileged, version: Version::Latest };
        Self { enforce: nothing, audit: nothing, warn: nothing }
    }
}

impl Policy {
    pub fn of(&self, mode: Mode) -> LevelVersion {
        match mode {
            Mode::Enforce => self.enforce,
            Mode::Audit => self.audit,
            Mode::Warn => self.warn,
        }
    }

    pub fn of_mut(&mut self, mode: Mode) -> &mut LevelVersion {
        match mode {
            Mode::Enforce => &mut self.enforce,
            Mode::Audit => &mut self.audit,
            Mode::Warn => &mut self.warn,
        }
    }

    /// Whether no mode asks for anything.
    pub fn is_privileged(&self) -> bool {
        MODES.iter().all(|mode| self.of(*mode).level == Level::Privileged)
    }

    /// The policy of a namespace's labels, and what is wrong with them. A label that cannot be
    /// understood enforces the strictest level, and audits and warns about nothing.
    pub fn of_labels(
        labels: Option<&BTreeMap<String, String>>,
        defaults: &Self,
    ) -> (Self, Vec<FieldError>) {
        let mut policy = *defaults;
        let mut errors = Vec::new();
        let Some(labels) = labels else {
            return (policy, errors);
        };
        let invalid = |label: &str, value: &str, problem: &str| {
            FieldError::invalid(format!("metadata.labels[{label}]"), value, problem)
        };
        let mut enforces = false;
        for mode in MODES {
            let part = policy.of_mut(mode);
            let label = mode.level_label();
            if let Some(text) = labels.get(&label) {
                match Level::parse(text) {
                    Ok(level) => {
                        part.level = level;
                        enforces |= mode == Mode::Enforce;
                    }
                    Err(problem) => {
                        let strict = mode == Mode::Enforce;
                        part.level = if strict { Level::Restricted } else { Level::Privileged };
                        errors.push(invalid(&label, text, problem));
                    }
                }
            }
            let label = mode.version_label();
            if let Some(text) = labels.get(&label) {
                part.version = Version::parse(text).unwrap_or_else(|problem| {
                    errors.push(invalid(&label, text, problem));
                    Version::Latest
                });
            }
        }
        // Whoever enforces a level wants to hear of templates that violate it.
        let silent = !labels.contains_key(&Mode::Warn.level_label());
        if silent && enforces && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !labels.contains_key(&Mode::Warn.version_label()) {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}
