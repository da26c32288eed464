//! A suite: one cluster, and scenarios that run on it one after the other.
//!
//! A suite is a test target with `harness = false` whose `main` calls [`run`]. It accepts the
//! arguments and prints the lines of the standard test harness, so that cargo's filters and tools
//! that count results work as with any other test.

use crate::children::{self, Child};
use crate::{Cluster, Options, wait};
use anyhow::{Context, anyhow};
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// How long one scenario may take.
pub const SCENARIO_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a cancelled test may take to reach the next point where it waits.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to look for the programs of a cancelled test.
const CANCEL_INTERVAL: Duration = Duration::from_millis(200);
/// The exit code of an interrupted program.
const INTERRUPTED: i32 = 130;

/// The function of a scenario.
pub type Body =
    for<'a> fn(&'a Fixture) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    pub body: Body,
}

/// What a scenario runs with.
pub struct Fixture {
    pub cluster: std::sync::Arc<Cluster>,
    /// A namespace that no other scenario uses.
    pub namespace: String,
}

/// A list of scenarios that are named after their functions: `scenarios![a, b]`.
#[macro_export]
macro_rules! scenarios {
    ($($function:ident),* $(,)?) => {
        &[$($crate::suite::Scenario {
            name: stringify!($function),
            body: |fixture| Box::pin($function(fixture)),
        }),*]
    };
}

/// The command line.
#[derive(Default)]
struct Arguments {
    list: bool,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

/// Runs the scenarios that the arguments select on one cluster.
pub fn run(options: Options, images: &[&str], scenarios: &[Scenario]) -> ExitCode {
    let arguments = parse(std::env::args().skip(1));
    let selected: Vec<&Scenario> =
        scenarios.iter().filter(|scenario| arguments.select(scenario.name)).collect();
    if arguments.list {
        selected.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", selected.len());
    let started = clock::monotonic();
    let mut failures: Vec<(&str, String)> = Vec::new();
    if !selected.is_empty() {
        failures = run_all(options, images, &selected);
    }
    for (name, message) in &failures {
        println!("\n---- {name} ----\n{message}");
    }
    let (passed, failed) = (selected.len() - failures.len(), failures.len());
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        scenarios.len() - selected.len(),
        started.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Arguments {
    fn select(&self, name: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact { name == filter } else { name.contains(filter.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(matches)
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Arguments {
    let mut parsed = Arguments::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => parsed.list = true,
            "--exact" => parsed.exact = true,
            "--skip" => parsed.skip.extend(arguments.next()),
            "--format" | "--test-threads" | "--color" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            filter => parsed.filters.push(filter.to_owned()),
        }
    }
    parsed
}

fn run_all<'a>(
    options: Options,
    images: &[&str],
    selected: &[&'a Scenario],
) -> Vec<(&'a str, String)> {
    runtime::init("warn");
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    let cluster = match threads.block_on(prepare(options, images)) {
        Ok(cluster) => std::sync::Arc::new(cluster),
        Err(error) => {
            // No scenario can run: all have failed.
            return selected.iter().map(|s| (s.name, format!("no cluster: {error:#}"))).collect();
        }
    };
    threads.spawn(stop_when_interrupted(cluster.clone()));
    let mut failures = Vec::new();
    for scenario in selected {
        let started = clock::monotonic();
        let outcome = threads.block_on(run_one(cluster.clone(), scenario));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {} ... {word} ({:.1} s)", scenario.name, elapsed(started));
        if let Err(error) = outcome {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            failures.push((scenario.name, causes.join("\n")));
        }
    }
    if !failures.is_empty() {
        println!("logs: {}", cluster.keep_logs().display());
    }
    // A scenario that could not be cancelled may still hold the cluster.
    if let Err(error) = cluster.stop() {
        failures.push(("removal of the cluster", format!("{error:#}")));
    }
    threads.shutdown_background();
    failures
}

/// Removes the cluster and exits when the suite is interrupted.
async fn stop_when_interrupted(cluster: std::sync::Arc<Cluster>) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be handled");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let stopped = tokio::task::spawn_blocking(move || cluster.stop()).await;
    if let Ok(Err(error)) = stopped {
        eprintln!("{error:#}");
    }
    std::process::exit(INTERRUPTED);
}

fn elapsed(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

async fn prepare(options: Options, images: &[&str]) -> anyhow::Result<Cluster> {
    let started = clock::monotonic();
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(options)).await??;
    for image in images {
        cluster.load_image(image).await?;
    }
    println!("cluster {} up after {:.1} s", cluster.name(), elapsed(started));
    Ok(cluster)
}

async fn run_one(cluster: std::sync::Arc<Cluster>, scenario: &Scenario) -> anyhow::Result<()> {
    let namespace = scenario.name.replace('_', "-");
    let fixture = Fixture { cluster: cluster.clone(), namespace: namespace.clone() };
    let yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    crate::manifest::create(cluster.client(), "", &yaml).await?;
    let body = scenario.body;
    let outcome = within(SCENARIO_TIMEOUT, async move { body(&fixture).await }).await;
    outcome.with_context(|| events(&cluster, &namespace))
}

/// Runs a test, which may block. When it takes longer than `limit`, it is cancelled, the programs
/// that it has started are killed, and the error says what it was waiting for.
///
/// # Errors
/// The test's own, its panic, or that it took too long.
pub async fn within(
    limit: Duration,
    test: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<()> {
    let before = children::running();
    let mut task = tokio::spawn(test);
    match tokio::time::timeout(limit, &mut task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            let payload = panic.into_panic();
            let text = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(anyhow!(text.unwrap_or_else(|| "panicked".to_owned())))
        }
        Err(_) => {
            let mut pending = wait::pending();
            pending.extend(cancel(task, &before).await.into_iter().map(|child| child.command));
            let limit = limit.as_secs_f64();
            Err(anyhow!("timed out after {limit} s while waiting for: {}", pending.join("; ")))
        }
    }
}

/// Cancels a test and kills the programs that it waits for; returns them.
async fn cancel(mut task: JoinHandle<anyhow::Result<()>>, before: &[Child]) -> Vec<Child> {
    task.abort();
    let mut killed = Vec::new();
    let cancelling = async {
        loop {
            killed.extend(children::kill_others(before));
            if tokio::time::timeout(CANCEL_INTERVAL, &mut task).await.is_ok() {
                return;
            }
        }
    };
    if tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await.is_err() {
        eprintln!("a cancelled test does not end");
    }
    killed
}

/// The pods and events of the namespace, for the report of a failure.
fn events(cluster: &Cluster, namespace: &str) -> String {
    let ask = |arguments: &[&str]| match cluster.try_skiff(arguments) {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => error.to_string(),
    };
    format!(
        "in namespace {namespace}:\n{}\n{}",
        ask(&["get", "pods", "-n", namespace, "-o", "wide"]),
        ask(&["get", "events", "-n", namespace])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_test_that_hangs_is_ended_and_says_what_it_waits_for() {
        let limit = Duration::from_millis(500);
        let hanging = async {
            wait::eventually("the moon rises", async || {
                let status = std::process::Command::new("sleep").arg("4712").status()?;
                Err::<(), _>(anyhow!("{status}"))
            })
            .await
        };
        let error = within(limit, hanging).await.unwrap_err().to_string();
        assert!(error.starts_with("timed out after 0.5 s while waiting for: the moon rises; "));
        assert!(error.contains("sleep 4712"), "{error}");
        within(limit, async { Ok(()) }).await.unwrap();
        let panicked = within(limit, async { panic!("no moon") }).await.unwrap_err();
        assert_eq!(panicked.to_string(), "no moon");
    }
}
