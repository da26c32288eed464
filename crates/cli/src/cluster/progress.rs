//! Progress of `up` and `down`: a line for each completed step, and on a terminal a spinner for the
//! current one.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How fast the spinner turns.
const TICK: Duration = Duration::from_millis(80);

/// The steps of one command, and the time since its start.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// Starts; the spinner is shown when standard error is a terminal.
    pub fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(" {spinner:.cyan} {msg}")
                .expect("the template is well formed");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, started: clock::monotonic() }
    }

    /// Shows the current step.
    pub fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Prints that a step is done.
    pub fn done(&self, what: &str) {
        let sign = console::style("✓").green().for_stderr();
        self.line(&format!(" {sign} {what}"));
    }

    /// Prints a warning.
    pub fn warn(&self, what: &str) {
        let sign = console::style("!").red().for_stderr();
        self.line(&format!(" {sign} {what}"));
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Ends; returns the seconds since the start, with one decimal.
    pub fn finish(self) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        format!("{:.1} s", self.started.elapsed().as_secs_f64())
    }
}
