//! The status codes of gRPC, by name and by number.

/// The status codes of gRPC by name.
pub(super) fn grpc_status(name: &str) -> Option<u8> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = NAMES.iter().position(|n| {
        n.eq_ignore_ascii_case(name) || name.eq_ignore_ascii_case("CANCELED") && *n == "CANCELLED"
    });
    let code = by_name.or_else(|| name.parse().ok().filter(|code| *code < NAMES.len()))?;
    u8::try_from(code).ok()
}
