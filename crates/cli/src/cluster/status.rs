//! `skiff status`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::cluster::layout::Layout;
use crate::cluster::network::namespace;
use crate::cluster::options::{Options, Selection};
use crate::cluster::supervisor::control::{self, Phase, Request, Status};
use crate::cluster::supervisor::record;
use crate::cluster::{files, proc};

/// How long a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest response that is read.
const HEALTH_ANSWER_MAX: u64 = 16 << 10;

/// Flags of `skiff status`.
#[derive(clap::Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    selection: Selection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One process, as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    status: Status,
    healthy: Option<bool>,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
    age_seconds: Option<u64>,
}

/// The message when no supervisor answers, and this many of the processes it started are still
/// alive.
fn unsupervised(cluster: &str, alive: usize) -> String {
    if alive == 0 {
        return format!("Cluster {cluster:?} is not running; `skiff up` starts it.");
    }
    format!(
        "Cluster {cluster:?} runs without its supervisor: {alive} processes, which are not restarted when they end.\n\
         `skiff up` takes them over; containers keep running."
    )
}

/// Runs the command; the exit code is 1 when a process is not ready or not healthy.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&args.selection.name, args.selection.data_dir()?);
    let Some(text) = files::read_if_there(&layout.options_file())? else {
        println!("There is no cluster {:?} in {}.", layout.name(), layout.root().display());
        return Ok(ExitCode::FAILURE);
    };
    let options: Options = serde_json::from_str(&text).context("cluster.json is damaged")?;
    let Some(mut connection) = control::request(&layout.run(), &Request::Status).await? else {
        let records = record::read_all(&layout.run())?;
        let alive = records.iter().filter(|(_, record)| record.alive()).count();
        println!("{}", unsupervised(layout.name(), alive));
        return Ok(ExitCode::FAILURE);
    };
    let states = connection.states().await?.context("the supervisor has ended")?;
    let rows: Vec<Row> = states.into_iter().map(inspect).collect();
    let good = rows.iter().all(Row::is_healthy);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!(
            "Cluster {:?}, apiserver {}, data {}\n",
            layout.name(),
            options.server(),
            layout.root().display()
        );
        println!("{}", table(&rows));
        println!("\nLogs: {}", layout.logs().display());
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Row {
    fn is_healthy(&self) -> bool {
        self.status.phase == Phase::Ready && self.healthy != Some(false)
    }
}

fn inspect(status: Status) -> Row {
    let stat = status.pid.and_then(proc::stat);
    let healthy = status.health.as_ref().filter(|_| status.pid.is_some()).map(|address| {
        let ask = || check_health(address).map_err(anyhow::Error::from);
        let answer = match &status.namespace {
            Some(path) => namespace::within(path, ask),
            None => ask(),
        };
        answer.unwrap_or(false)
    });
    Row {
        healthy,
        memory_bytes: status.pid.and_then(proc::memory),
        cpu_seconds: stat.map(|stat| stat.cpu.as_secs_f64()),
        age_seconds: stat.and_then(|stat| proc::age(stat.start_time)).map(|age| age.as_secs()),
        status,
    }
}

/// Whether `/healthz` reports success.
fn check_health(address: &str) -> std::io::Result<bool> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(HEALTH_ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).split_whitespace().nth(1) == Some("200"))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "PROCESS", "STATE", "HEALTH", "PID", "RESTARTS", "AGE", "MEMORY", "CPU", "LOG",
    ]);
    for row in rows {
        let status = &row.status;
        let dash = || "-".to_owned();
        table.add_row([
            status.name.clone(),
            format!("{:?}", status.phase),
            row.healthy.map_or_else(dash, |good| if good { "ok" } else { "failing" }.to_owned()),
            status.pid.map_or_else(dash, |pid| pid.to_string()),
            status.restarts.to_string(),
            row.age_seconds.map_or_else(dash, age),
            row.memory_bytes.map_or_else(dash, |bytes| format!("{:.1} MB", bytes as f64 / 1e6)),
            row.cpu_seconds.map_or_else(dash, |seconds| format!("{seconds:.2} s")),
            status.log.file_name().map_or_else(dash, |name| name.to_string_lossy().into_owned()),
        ]);
    }
    table
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
