//! `skiff up`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cluster::kubeconfig::{self, Access};
use crate::cluster::layout::Layout;
use crate::cluster::options::{ExtraFlag, Options, Store, UpArgs};
use crate::cluster::processes::{Process, Programs, processes};
use crate::cluster::progress::Progress;
use crate::cluster::supervisor::control::{self, Phase, Request, Status};
use crate::cluster::supervisor::{self, record};
use crate::cluster::{containerd, files, network, pki, preflight};

/// How long the supervisor may take to answer.
const SUPERVISOR_START: Duration = Duration::from_secs(10);
/// Pause between attempts to reach a supervisor that is starting.
const CONNECT_RETRY: Duration = Duration::from_millis(10);
/// How long processes of a supervisor that was killed may take to end.
const TAKE_OVER_GRACE: Duration = Duration::from_secs(5);

/// Runs the command.
pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&args.selection.name, args.selection.data_dir()?);
    let wait = Duration::from_secs(args.wait);
    let user_file = if args.no_kubeconfig { None } else { Some(kubeconfig::user_file()?) };
    let flags = args.selection.flags();
    let options = args.into_options()?;
    let progress = Progress::start();

    let stored = stored_options(&layout)?;
    let mut running = control::request(&layout.run(), &Request::Watch).await?;
    if let Some(stored) = &stored {
        let differences = stored.differences(&options);
        if !differences.is_empty() {
            let state = if running.is_some() { "is running" } else { "exists" };
            bail!(
                "cluster {:?} {state} with other options:\n  {}\nRemove it first (skiff down), \
                 or give the same options",
                options.name,
                differences.join("\n  ")
            );
        }
    }
    if running.is_some() && record::any_replaced(&layout.run())? {
        progress.doing("restarting the processes");
        // Its processes end with the next start; containers keep running.
        record::kill_supervisor(&layout.run()).await?;
        running = None;
        progress.done("the programs have changed, so their processes are restarted");
    }
    let already = running.is_some();
    let connection = match running {
        Some(connection) => {
            check_certificates(&layout, &options, &progress)?;
            connection
        }
        None => start(&layout, &options, &progress).await?,
    };
    follow(connection, &progress, wait).await?;
    crate::cluster::ready::wait_for_nodes(&layout, &options, &progress, wait).await?;
    if let Some(path) = &user_file {
        let access = Access::read(&layout, &options.server(), "admin")?;
        let context = kubeconfig::context_name(&options.name);
        kubeconfig::write_context(path, &context, &access)?;
        progress.done(&format!("context {context:?} in {}", path.display()));
    }
    let elapsed = progress.finish();
    print_next_steps(&layout, &options, &flags, already, &elapsed, user_file.is_some());
    Ok(ExitCode::SUCCESS)
}

fn stored_options(layout: &Layout) -> anyhow::Result<Option<Options>> {
    let path = layout.options_file();
    match files::read_if_there(&path)? {
        Some(text) => serde_json::from_str(&text)
            .with_context(|| {
                format!("{} is damaged; remove the cluster (skiff down)", path.display())
            })
            .map(Some),
        None => Ok(None),
    }
}

/// Checks the machine, creates everything, and starts the supervisor.
async fn start(
    layout: &Layout,
    options: &Options,
    progress: &Progress,
) -> anyhow::Result<control::Connection> {
    progress.doing("checking the machine");
    // Ends what an earlier supervisor of this cluster left behind.
    record::take_over(&layout.run(), TAKE_OVER_GRACE).await?;
    let programs = preflight::check(layout, options).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|p| format!("\n  - {p}")).collect();
        anyhow::anyhow!("this machine is not ready for a cluster:{}", lines.concat())
    })?;
    check_flags(options, &programs)?;
    progress.done("this machine has what a cluster needs");

    progress.doing("creating certificates");
    let list = prepare_files(layout, options, &programs, progress)?;
    progress.doing("creating the network");
    network::ensure(layout, options)?;
    progress.done(&format!(
        "network {} joins {} to this machine",
        options.node_cidr,
        count(options.nodes)
    ));
    progress.doing("starting the processes");
    spawn_supervisor(layout)?;
    let connection = connect(layout).await?;
    progress.done(&format!("supervisor started, {} processes", list.len()));
    Ok(connection)
}

/// Lets the components judge the flags that the user gave them: with `--help` they parse them and do
/// nothing else.
fn check_flags(options: &Options, programs: &Programs) -> anyhow::Result<()> {
    let given = options.extra_config.iter();
    let components: BTreeSet<&str> = given.map(|extra| &*extra.component).collect();
    for component in components {
        let program = programs.own.join(format!("skiff-{component}"));
        let judged = Command::new(&program)
            .args(options.extra_flags(component).map(ExtraFlag::argument))
            .arg("--help")
            .output()
            .with_context(|| format!("run {}", program.display()))?;
        if !judged.status.success() {
            let text = String::from_utf8_lossy(&judged.stderr);
            let why = text.lines().next().unwrap_or_default();
            bail!("--extra-config: {component}: {}", why.trim_start_matches("error: "));
        }
    }
    Ok(())
}

/// Whom certificates are issued to.
fn subjects(options: &Options) -> pki::Subjects {
    let nodes = options.nodes().into_iter();
    let etcd = options.store == Store::Etcd;
    pki::Subjects {
        apiserver_names: vec![options.gateway().to_string()],
        kubernetes_service: options.kubernetes_service(),
        nodes: nodes.map(|node| (node.name, node.address.to_string())).collect(),
        etcd_names: etcd.then(|| options.loopback().to_string()).into_iter().collect(),
    }
}

/// Warns when certificates of a running cluster expire soon.
fn check_certificates(
    layout: &Layout,
    options: &Options,
    progress: &Progress,
) -> anyhow::Result<()> {
    let now = clock::system().now().into();
    let certificates = pki::certificates(&subjects(options));
    let old = pki::expiring_soon(&layout.pki(), &certificates, now)?;
    if old > 0 {
        progress.warn(&format!(
            "{old} certificates expire soon; run skiff down --keep-data, then skiff up, to renew them"
        ));
    }
    Ok(())
}

/// Writes every file that the processes read.
fn prepare_files(
    layout: &Layout,
    options: &Options,
    programs: &Programs,
    progress: &Progress,
) -> anyhow::Result<Vec<Process>> {
    for folder in [layout.root().to_owned(), layout.logs(), layout.run()] {
        files::make_private_dir(&folder)?;
    }
    let json = serde_json::to_vec_pretty(options)?;
    files::replace_if_changed(&layout.options_file(), &json, 0o600)?;
    if let Some(text) = &options.scheduler_config {
        files::replace_if_changed(&layout.scheduler_config(), text.as_bytes(), 0o600)?;
    }

    let now = clock::system().now().into();
    let made = pki::ensure(&layout.pki(), &pki::certificates(&subjects(options)), now)?;
    progress.done(&match made.len() {
        0 => "certificates are valid".to_owned(),
        number => format!("certificates: {number} made"),
    });
    let names: Vec<String> = options.nodes().into_iter().map(|node| node.name).collect();
    kubeconfig::write_components(layout, &options.server(), &names)?;
    for node in &names {
        files::make_private_dir(&layout.kubelet(node))?;
        files::make_private_dir(&layout.manifests(node))?;
        let config = containerd::config(layout, node);
        files::replace_if_changed(&layout.containerd_config(node), config.as_bytes(), 0o644)?;
        let containerd = layout.containerd(node);
        let folders = containerd.ancestors().take_while(|path| path.starts_with(layout.root()));
        folders.into_iter().try_for_each(files::make_passable)?;
    }
    let list = processes(layout, options, programs);
    let json = serde_json::to_vec_pretty(&list)?;
    files::replace(&supervisor::processes_file(&layout.run()), &json, 0o600)?;
    Ok(list)
}

/// Starts the supervisor so that it outlives this command and its terminal.
fn spawn_supervisor(layout: &Layout) -> anyhow::Result<()> {
    let path = layout.log("supervisor");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Command::new(own_program()?)
        .args(["supervise", "--name", layout.name(), "--data-dir"])
        .arg(layout.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the supervisor")?;
    Ok(())
}

fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot determine the path of this program")
}

async fn connect(layout: &Layout) -> anyhow::Result<control::Connection> {
    let attempts = async {
        loop {
            if let Some(connection) = control::request(&layout.run(), &Request::Watch).await? {
                return Ok(connection);
            }
            tokio::time::sleep(CONNECT_RETRY).await;
        }
    };
    match tokio::time::timeout(SUPERVISOR_START, attempts).await {
        Ok(connection) => connection,
        Err(_) => {
            bail!("the supervisor does not answer; see {}", layout.log("supervisor").display())
        }
    }
}

/// Shows processes becoming ready, until all are.
async fn follow(
    mut connection: control::Connection,
    progress: &Progress,
    wait: Duration,
) -> anyhow::Result<()> {
    let mut shown = BTreeSet::new();
    let mut last = Vec::new();
    let all_ready = async {
        while let Some(states) = connection.states().await? {
            for state in states.iter().filter(|state| state.phase == Phase::Ready) {
                if shown.insert(state.name.clone()) {
                    progress.done(&format!("{} is ready", state.name));
                }
            }
            for state in &states {
                let before = last.iter().find(|s: &&Status| s.name == state.name);
                if before.is_some_and(|before| before.restarts < state.restarts) {
                    progress.warn(&problem(state));
                }
            }
            let waiting: Vec<&str> = states
                .iter()
                .filter(|state| !matches!(state.phase, Phase::Ready | Phase::Stopped))
                .map(|state| state.name.as_str())
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            progress.doing(&format!("waiting for {}", waiting.join(", ")));
            last = states;
        }
        bail!("the supervisor has ended")
    };
    match tokio::time::timeout(wait, all_ready).await {
        Ok(result) => result,
        Err(_) => {
            let late = last.iter().filter(|s| s.phase != Phase::Ready).map(problem);
            bail!(
                "not ready after {} s:\n  {}",
                wait.as_secs(),
                late.collect::<Vec<_>>().join("\n  ")
            )
        }
    }
}

fn problem(state: &Status) -> String {
    let what = match (&state.phase, state.message.as_str()) {
        (Phase::Waiting, _) => "is waiting for other processes".to_owned(),
        (_, "") => "is running, but not ready".to_owned(),
        (_, message) => message.to_owned(),
    };
    format!("{}: {what}; its log is {}", state.name, state.log.display())
}

fn count(nodes: u8) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

fn print_next_steps(
    layout: &Layout,
    options: &Options,
    flags: &str,
    already: bool,
    elapsed: &str,
    has_context: bool,
) {
    let name = &options.name;
    if already {
        println!("Cluster {name:?} is up already, with {}.", count(options.nodes));
    } else {
        println!("Cluster {name:?} is up with {}, after {elapsed}.", count(options.nodes));
    }
    if !has_context {
        println!("Its kubeconfig: {}", layout.kubeconfig("admin").display());
    }
    println!(
        "\nTry next:\n  skiff get nodes\n  skiff get pods -A\n  skiff apply -f FILE\n  \
         skiff status{flags}\n  skiff down{flags}"
    );
}
