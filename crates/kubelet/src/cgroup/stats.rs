//! Resource usage of a cgroup.

use std::fs;
use std::io;
use std::path::Path;

use super::{CgroupError, CgroupPath, CgroupVersion, Cgroups, Result};

/// The usage of a cgroup, including its descendants. A figure whose file is missing is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupStats {
    /// CPU time since the cgroup was created, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory charged, including page cache, in bytes.
    pub memory_usage_bytes: u64,
    /// `memory_usage_bytes` without inactive file cache: what eviction decisions use.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory in bytes.
    pub memory_rss_bytes: u64,
    /// Page faults since the cgroup was created.
    pub page_faults: u64,
    /// Those of them that read from a disk.
    pub major_page_faults: u64,
    /// Memory limit in bytes, if there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads now.
    pub pids: u64,
    /// Processes killed by the OOM killer.
    pub oom_kills: u64,
}

/// v1 writes "no limit" as the largest multiple of the page size; anything this large is no limit.
const V1_NO_LIMIT: u64 = 1 << 62;

impl Cgroups {
    /// Reads the usage of a cgroup; `None` if it does not exist.
    pub fn stats(&self, path: &CgroupPath) -> Result<Option<CgroupStats>> {
        if !self.exists(path) {
            return Ok(None);
        }
        match self.version {
            CgroupVersion::V1 => self.stats_v1(path).map(Some),
            CgroupVersion::V2 => self.stats_v2(path).map(Some),
        }
    }

    fn stats_v1(&self, path: &CgroupPath) -> Result<CgroupStats> {
        let memory = self.directory("memory", path);
        let stat = read(&memory.join("memory.stat"))?;
        let usage = number(&read(&memory.join("memory.usage_in_bytes"))?);
        let limit = number(&read(&memory.join("memory.limit_in_bytes"))?);
        Ok(CgroupStats {
            cpu_usage_ns: number(&read(&self.directory("cpuacct", path).join("cpuacct.usage"))?),
            memory_usage_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(field(&stat, "total_inactive_file")),
            memory_rss_bytes: field(&stat, "total_rss"),
            page_faults: field(&stat, "total_pgfault"),
            major_page_faults: field(&stat, "total_pgmajfault"),
            memory_limit_bytes: (limit > 0 && limit < V1_NO_LIMIT).then_some(limit),
            pids: number(&read(&self.directory("pids", path).join("pids.current"))?),
            oom_kills: field(&read(&memory.join("memory.oom_control"))?, "oom_kill"),
        })
    }

    fn stats_v2(&self, path: &CgroupPath) -> Result<CgroupStats> {
        let directory = self.directory("memory", path);
        let stat = read(&directory.join("memory.stat"))?;
        let usage = match read(&directory.join("memory.current"))? {
            // The root cgroup of the machine has no such file.
            empty if empty.is_empty() => used_memory(&read(Path::new("/proc/meminfo"))?),
            text => number(&text),
        };
        Ok(CgroupStats {
            cpu_usage_ns: field(&read(&directory.join("cpu.stat"))?, "usage_usec")
                .saturating_mul(1_000),
            memory_usage_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(field(&stat, "inactive_file")),
            memory_rss_bytes: field(&stat, "anon"),
            page_faults: field(&stat, "pgfault"),
            major_page_faults: field(&stat, "pgmajfault"),
            memory_limit_bytes: read(&directory.join("memory.max"))?.trim().parse().ok(),
            pids: number(&read(&directory.join("pids.current"))?),
            oom_kills: field(&read(&directory.join("memory.events"))?, "oom_kill"),
        })
    }
}

/// A file's text; empty if it is missing (a disabled controller) or the cgroup has just been
/// removed.
fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {
            Ok(String::new())
        }
        Err(source) => Err(CgroupError::Io { operation: "read", path: path.to_path_buf(), source }),
    }
}

/// Memory used on a machine, in bytes, from `/proc/meminfo` (in kilobytes).
fn used_memory(meminfo: &str) -> u64 {
    let line = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| number(value.trim_start_matches(':').trim_end_matches("kB")))
    };
    line("MemTotal").saturating_sub(line("MemFree")).saturating_mul(1024)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The value of `name` in lines of "name value".
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .map_or(0, |(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::used_memory;

    #[test]
    fn used_memory_is_total_less_free() {
        assert_eq!(
            used_memory("MemTotal:  100 kB\nMemFree:   40 kB\nMemAvailable: 50 kB\n"),
            60 * 1024
        );
        assert_eq!(used_memory(""), 0);
    }
}
