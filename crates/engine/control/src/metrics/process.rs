//! The process itself, under the names of Prometheus' client libraries, from `/proc` (Linux). What
//! the kernel does not tell is left out.

use std::{fmt::Write as _, fs};

/// `sysconf(_SC_CLK_TCK)` of every Linux architecture.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

pub(super) fn append(text: &mut String) {
    let mut sample = |kind: &str, name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name may hold anything, spaces and parentheses included.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    // Numbers as in proc_pid_stat(5); the third field comes first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    sample(
        "counter",
        "process_cpu_seconds_total",
        "CPU seconds of the process, in user mode and in the kernel",
        ticks.map(|ticks| ticks / TICKS_PER_SECOND),
    );
    sample(
        "gauge",
        "process_virtual_memory_bytes",
        "Bytes of address space",
        field(23),
    );
    sample(
        "gauge",
        "process_resident_memory_bytes",
        "Bytes of memory in use",
        field(24).map(|pages| pages * PAGE_BYTES as f64),
    );
    sample(
        "gauge",
        "process_start_time_seconds",
        "When the process began, in seconds since 1970",
        field(22)
            .zip(boot_time())
            .map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND),
    );
    sample(
        "gauge",
        "process_open_fds",
        "Descriptors that are open",
        fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count() as f64),
    );
    sample(
        "gauge",
        "process_max_fds",
        "Descriptors that may be open",
        descriptor_limit(),
    );
}

/// Seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn descriptor_limit() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
