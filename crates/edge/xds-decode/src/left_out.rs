//! Extensions that are left out of what is decoded, without refusing the resource.
//!
//! The rule: what decides about traffic is refused when it is not known; what only reports about
//! it, only saves bytes, or leaves the traffic itself as it is, is left out, noted by the decoder
//! and published in the support matrix.

/// Message name → what is lost.
pub(crate) const LEFT_OUT: [(&str, &str); 12] = [
    (
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        "answers are sent uncompressed",
    ),
    (
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
        "gRPC-Web calls pass as they are, not turned into gRPC",
    ),
    (
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
        "connections to the application come from the proxy's own address",
    ),
    (
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "requests are not logged to this service",
    ),
    (
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
        "connections are not logged to this service",
    ),
    (
        "envoy.extensions.access_loggers.fluentd.v3.FluentdAccessLogConfig",
        "requests are not logged to this service",
    ),
    (
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        "requests are not logged to this service",
    ),
    (
        "envoy.config.trace.v3.DatadogConfig",
        "spans are not sent; trace context is passed on",
    ),
    (
        "envoy.config.trace.v3.SkyWalkingConfig",
        "spans are not sent; trace context is passed on",
    ),
    (
        "envoy.config.trace.v3.LightstepConfig",
        "spans are not sent; trace context is passed on",
    ),
    (
        "envoy.config.trace.v3.XRayConfig",
        "spans are not sent; trace context is passed on",
    ),
    (
        "envoy.config.trace.v3.OpenCensusConfig",
        "spans are not sent; trace context is passed on",
    ),
];

pub(crate) fn left_out(name: &str) -> Option<&'static str> {
    LEFT_OUT
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, lost)| *lost)
}
