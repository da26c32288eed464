//! Reads `/proc` about processes.

use std::fs;
use std::time::Duration;

/// Clock ticks in a second, as `/proc` counts them on every Linux architecture we run on.
const TICKS_PER_SECOND: u64 = 100;

/// From `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub zombie: bool,
    /// Clock ticks from boot to start.
    pub start_time: u64,
    /// Processor time used, user and system.
    pub cpu: Duration,
}

/// The process's state, or `None` when there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name is in parentheses and may itself hold any character.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        start_time: number(19)?,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
    })
}

/// Resident memory in bytes, shared pages included.
pub fn memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// How long a process with this start time has been running.
pub fn age(start_time: u64) -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = text.split_whitespace().next()?.parse().ok()?;
    let started = Duration::from_millis(start_time * 1000 / TICKS_PER_SECOND);
    Some(Duration::from_secs_f64(uptime).saturating_sub(started))
}

/// Every process: its pid and arguments. Kernel threads have none.
pub fn all() -> Vec<(u32, Vec<String>)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments = bytes
                .split(|byte| *byte == 0)
                .filter(|argument| !argument.is_empty())
                .map(|argument| String::from_utf8_lossy(argument).into_owned())
                .collect();
            Some((pid, arguments))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 4242 1 2 3";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat.start_time, 4242);
        assert_eq!(stat.cpu, Duration::from_secs(2));
        assert!(!stat.zombie);
        assert!(parse_stat("garbage").is_none());
    }

    #[test]
    fn this_process_is_alive() {
        let stat = stat(std::process::id()).unwrap();
        assert!(age(stat.start_time).unwrap() < Duration::from_secs(3600));
        assert!(memory(std::process::id()).unwrap() > 0);
    }
}
