//! Sessions with containers: terminals, standard input and its end, exit codes, copies, logs, debug
//! containers.

use anyhow::{Context, bail, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use testkit::suite::Fixture;
use testkit::{manifest, wait};
use tests::pods;

use super::Tool;

/// How long a program may take to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a text may take to appear.
const TEXT_TIMEOUT: Duration = Duration::from_secs(30);

/// A program with a terminal of its own; dropping it kills the program.
struct Terminal {
    child: Child,
    terminal: OwnedFd,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts a program in a terminal of 33 rows and 101 columns.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        let child = command
            .stdin(pty.slave.try_clone()?)
            .stdout(pty.slave.try_clone()?)
            .stderr(pty.slave.try_clone()?)
            .spawn()?;
        let keyboard = File::from(pty.master.try_clone()?);
        let mut output = File::from(pty.master);
        let (sender, screen) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, terminal: pty.slave, keyboard, screen, seen: String::new() })
    }

    fn type_in(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Waits until a text appears on the screen, after the one that was last waited for.
    fn expect(&mut self, text: &str) -> anyhow::Result<()> {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            let piece = self.screen.recv_timeout(TEXT_TIMEOUT);
            let piece = piece.with_context(|| format!("{text:?} is not in {:?}", self.seen))?;
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    fn resize(&mut self, rows: u16, columns: u16) -> anyhow::Result<()> {
        let done = Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(self.terminal.try_clone()?)
            .status()?;
        ensure!(done.success(), "stty");
        // It is not the program's controlling terminal, so the kernel does not signal the change.
        let pid = i32::try_from(self.child.id())?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGWINCH)?)
    }

    /// Waits until it exits; returns its exit code.
    async fn finish(&mut self) -> anyhow::Result<Option<i32>> {
        let pid = self.child.id();
        let ended = bounded(pid, move || {
            let pid = Pid::from_raw(i32::try_from(pid).expect("a pid has 31 bits"));
            // It remains to be reaped by `wait`.
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        });
        ended.await??;
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub async fn skiff_holds_sessions(fixture: &Fixture) -> anyhow::Result<()> {
    holds_sessions(fixture, Tool::Skiff).await
}

pub async fn kubectl_holds_sessions(fixture: &Fixture) -> anyhow::Result<()> {
    holds_sessions(fixture, Tool::Kubectl).await
}

async fn holds_sessions(fixture: &Fixture, tool: Tool) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, PODS).await?;
    for pod in ["plain", "console", "reader"] {
        pods::ready(fixture, pod).await?;
    }

    let mut shell = Terminal::start(tool.command(fixture, &["exec", "-it", "plain", "--", "sh"]))?;
    shell.type_in("stty size\n")?;
    shell.expect("33 101")?;
    shell.resize(40, 120)?;
    shell.type_in("sleep 1; stty size\n")?;
    shell.expect("40 120")?;
    // The shell reads keys itself until a command runs.
    shell.type_in("sh -c 'echo $((40 + 2)); exec cat'\n")?;
    shell.expect("42\r\n")?;
    // The signal discards what was typed with it.
    shell.type_in("\x03")?;
    shell.expect("/ #")?;
    shell.type_in("echo code $?\n")?;
    shell.expect("code 130")?;
    shell.type_in("exit 5\n")?;
    ensure!(shell.finish().await? == Some(5), "{}", shell.seen);

    let mut attached = Terminal::start(tool.command(fixture, &["attach", "-it", "console"]))?;
    // At first, kubectl sends a size that is one too large, so that programs redraw.
    attached.type_in("echo hel''lo\n")?;
    attached.expect("hello\r\n")?;
    attached.resize(41, 121)?;
    attached.type_in("sleep 1; stty size\n")?;
    attached.expect("41 121")?;
    attached.type_in("exit 4\n")?;
    ensure!(attached.finish().await? == Some(0), "{}", attached.seen);
    pods::one(fixture, "console", "the shell is restarted", |pod| pods::restarts(pod, "main") == 1)
        .await?;

    // The end of the input ends the command, which has received all of it.
    let input = vec![b'x'; 3_000_000];
    let output =
        piped(tool.command(fixture, &["exec", "-i", "plain", "--", "wc", "-c"]), input).await?;
    ensure!(output.stdout.trim_ascii() == b"3000000", "{output:?}");
    // A command need not read all of its input.
    let head = ["exec", "-i", "plain", "--", "head", "-c", "3"];
    let output = piped(tool.command(fixture, &head), vec![b'x'; 10_000_000]).await?;
    ensure!(output.stdout == b"xxx" && output.status.success(), "{output:?}");
    let missing = tool.attempt(fixture, &["exec", "plain", "--", "nope"])?;
    ensure!(
        missing.stderr.starts_with("error: Internal error occurred: error executing command")
            && missing.stderr.contains("\"nope\": executable file not found in $PATH"),
        "{}",
        missing.stderr
    );
    // A command whose client has disconnected is killed.
    let mut left = tool.command(fixture, &["exec", "plain", "--", "sleep", "4321"]).spawn()?;
    let runs = |expected: bool| async move {
        let list = tool.run(fixture, &["exec", "plain", "--", "ps", "-o", "args"])?;
        ensure!(list.contains("sleep 4321") == expected, "{list}");
        Ok(())
    };
    wait::eventually("the command runs", || runs(true)).await?;
    left.kill()?;
    left.wait()?;
    wait::eventually("the command has ended", || runs(false)).await?;
    // Output has to be read while input is being sent.
    let input = vec![b'x'; 10_000_000];
    let output = piped(tool.command(fixture, &["exec", "-i", "plain", "--", "cat"]), input).await?;
    ensure!(output.stdout.len() == 10_000_000, "{} bytes", output.stdout.len());
    let output =
        piped(tool.command(fixture, &["attach", "-i", "reader"]), b"words\n".to_vec()).await?;
    ensure!(output.stdout == b"read words\n", "{output:?}");
    let output = piped(
        tool.command(fixture, &["exec", "plain", "--", "head", "-c", "5000000", "/dev/zero"]),
        Vec::new(),
    )
    .await?;
    ensure!(output.stdout.len() == 5_000_000, "{} bytes", output.stdout.len());
    Ok(())
}

/// Waits for a program; kills it if that takes too long, so that nothing hangs.
async fn bounded<T: Send + 'static>(
    pid: u32,
    wait: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let waiting = tokio::task::spawn_blocking(wait);
    match tokio::time::timeout(EXIT_TIMEOUT, waiting).await {
        Ok(waited) => Ok(waited?),
        Err(_) => {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            bail!("the program has not exited after {} s", EXIT_TIMEOUT.as_secs())
        }
    }
}

/// Runs a command with this standard input.
async fn piped(mut command: Command, input: Vec<u8>) -> anyhow::Result<std::process::Output> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = bounded(child.id(), || child.wait_with_output()).await??;
    // The command need not read all of its input.
    writing.join().ok();
    Ok(output)
}

pub async fn kubectl_runs_copies_and_debugs(fixture: &Fixture) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, PODS).await?;
    pods::ready(fixture, "plain").await?;
    let kubectl = |arguments: &[&str]| Tool::Kubectl.command(fixture, arguments);
    let image = "--image=skiff.test/busybox:1";

    let run = ["run", "once", "-it", "--rm", "--restart=Never", image, "--", "sh"];
    let mut once = Terminal::start(kubectl(&run))?;
    once.expect("/ #")?;
    once.type_in("echo h''i; exit 3\n")?;
    once.expect("hi")?;
    ensure!(once.finish().await? == Some(3), "{}", once.seen);
    let run = ["run", "twice", "-i", "--rm", "--restart=Never", image, "--", "wc", "-c"];
    let output = piped(kubectl(&run), vec![b'x'; 300_000]).await?;
    ensure!(output.stdout.starts_with(b"300000\n"), "{output:?}");

    let folder = fixture.cluster.folder().join(&fixture.namespace);
    std::fs::create_dir_all(folder.join("out/sub"))?;
    std::fs::write(folder.join("out/sub/small"), "small\n")?;
    std::fs::write(folder.join("out/large"), vec![b'y'; 5_000_000])?;
    let local = |name: &str| folder.join(name).to_string_lossy().into_owned();
    Tool::Kubectl.run(fixture, &["cp", &local("out"), "plain:/tmp/copy"])?;
    Tool::Kubectl.run(fixture, &["cp", "plain:/tmp/copy", &local("back")])?;
    ensure!(std::fs::read(folder.join("back/sub/small"))? == b"small\n");
    ensure!(std::fs::read(folder.join("back/large"))?.len() == 5_000_000);

    // Older versions of kubectl send a kind that Kubernetes has removed.
    if fixture.cluster.kubectl_minor()? >= 23 {
        debugs(fixture, Tool::Kubectl).await?;
    }
    debugs(fixture, Tool::Skiff).await
}

async fn debugs(fixture: &Fixture, tool: Tool) -> anyhow::Result<()> {
    let image = "--image=skiff.test/busybox:1";
    let debug = ["debug", "-it", "plain", "--target=main", image, "--", "sh"];
    let mut debugger = Terminal::start(tool.command(fixture, &debug))?;
    debugger.expect("/ #")?;
    debugger.type_in("ps; hostname\n")?;
    debugger.expect("sleep 1000")?;
    debugger.expect("plain")?;
    debugger.type_in("exit\n")?;
    ensure!(debugger.finish().await? == Some(0), "{}", debugger.seen);
    Ok(())
}

pub async fn skiff_prints_logs(fixture: &Fixture) -> anyhow::Result<()> {
    prints_logs(fixture, Tool::Skiff).await
}

pub async fn kubectl_prints_logs(fixture: &Fixture) -> anyhow::Result<()> {
    prints_logs(fixture, Tool::Kubectl).await
}

async fn prints_logs(fixture: &Fixture, tool: Tool) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, TALKER).await?;
    pods::one(fixture, "talker", "b has been restarted", |pod| {
        pods::restarts(pod, "b") == 1 && pods::is_ready(pod)
    })
    .await?;
    let table: [(&[&str], &str); 7] = [
        (&["-c", "a"], "a 1\na 2\na 3\n"),
        (&["-c", "a", "--tail=2"], "a 2\na 3\n"),
        (&["-c", "a", "--limit-bytes=5"], "a 1\na"),
        (&["-c", "init"], "from init\n"),
        (&["-c", "b", "--previous"], "first run\n"),
        (&["-c", "b"], "second run\n"),
        (&["-c", "a", "--since-time=2100-01-01T00:00:00Z"], ""),
    ];
    for (flags, expected) in table {
        let output = tool.run(fixture, &[&["logs", "talker"], flags].concat())?;
        ensure!(output == expected, "{flags:?}: {output:?}");
    }
    // kubectl requests the containers in no particular order.
    let all = tool.run(fixture, &["logs", "talker", "--all-containers", "--tail=1"])?;
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["a 3", "from init", "second run"], "{all:?}");
    let stamped = tool.run(fixture, &["logs", "talker", "-c", "a", "--timestamps", "--tail=1"])?;
    ensure!(stamped.starts_with("20") && stamped.ends_with("Z a 3\n"), "{stamped:?}");
    let wrong = tool.attempt(fixture, &["logs", "talker", "-c", "none"])?;
    ensure!(wrong.stderr.contains("container none is not valid for pod talker"));

    // Later output arrives too, and the command ends with the container.
    let mut follower = tool
        .command(fixture, &["logs", "-f", "talker", "-c", "b"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    tool.run(fixture, &["exec", "talker", "-c", "b", "--", "touch", "/x/end"])?;
    let mut followed = String::new();
    let mut output = follower.stdout.take().context("its output is piped")?;
    output.read_to_string(&mut followed)?;
    follower.wait()?;
    ensure!(followed == "second run\nthe end\n", "{followed:?}");
    Ok(())
}

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'skiff.test/busybox:1', command: [sleep, '1000']}]
---
apiVersion: v1
kind: Pod
metadata: {name: console}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'skiff.test/busybox:1', command: [sh], stdin: true, tty: true}]
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - {name: main, image: 'skiff.test/busybox:1', stdin: true, command: [sh, -c, 'read word; echo read $word']}
";

const TALKER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: init, image: 'skiff.test/busybox:1', command: [sh, -c, echo from init]}
  containers:
  - name: a
    image: skiff.test/busybox:1
    command: [sh, -c, echo a 1; echo a 2; echo a 3; exec sleep 1000]
  - name: b
    image: skiff.test/busybox:1
    command:
    - sh
    - -c
    - |
      if mkdir /x/first 2>/dev/null; then echo first run; exit 1; fi
      echo second run
      until [ -e /x/end ]; do sleep 0.1; done
      echo the end
    volumeMounts: [{name: x, mountPath: /x}]
  volumes: [{name: x, emptyDir: {}}]
";
