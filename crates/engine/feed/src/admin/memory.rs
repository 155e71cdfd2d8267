//! `/memory`: what the kernel says of this process's memory.

pub(super) struct MemoryBytes {
    pub(super) resident: u64,
    pub(super) data: u64,
}

/// From the kernel; zeros where it tells nothing.
pub(super) fn memory_bytes() -> MemoryBytes {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let bytes = |key: &str| kib(key).unwrap_or(0) * 1024;
    MemoryBytes {
        resident: bytes("VmRSS:"),
        data: bytes("VmData:"),
    }
}

pub(super) fn memory() -> serde_json::Value {
    let MemoryBytes { resident, data } = memory_bytes();
    serde_json::json!({
        "allocated": resident.to_string(),
        "heap_size": data.to_string(),
        "total_physical_bytes": resident.to_string(),
    })
}
