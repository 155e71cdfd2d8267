//! A finished span: Envoy's and Istio's tags, and Zipkin's JSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::SpanContext;
use crate::needs::Needs;
use crate::record::{Address, Record};

/// Which side of the exchange the span describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// An outbound listener: the span of the call that the workload makes.
    Client,
    /// An inbound listener or a gateway.
    Server,
}

/// Where a custom tag's value comes from. Environment variables are resolved into literals by who
/// reads the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTagSource {
    Literal(String),
    /// A request header; `None` default: no tag when it is absent.
    RequestHeader {
        name: String,
        default: Option<String>,
    },
    /// Dynamic metadata of the request.
    Metadata {
        filter: String,
        path: Vec<String>,
        default: Option<String>,
    },
}

/// A tag of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTag {
    pub tag: String,
    pub source: CustomTagSource,
}

/// What is the same for all spans of a listener.
#[derive(Debug, Clone)]
pub struct SpanSettings {
    /// The node's id, tag `node_id`.
    pub node_id: Arc<str>,
    /// Service name of the exporter: `app.namespace`.
    pub service_name: Arc<str>,
    /// The node's cluster name, used where the caller names none in
    /// `x-envoy-downstream-service-cluster`.
    pub zone: Arc<str>,
    /// Tags that every span has: Istio's `istio.canonical_service`, `istio.mesh_id`, … (OBS-062),
    /// unless disabled.
    pub fixed_tags: Vec<(String, String)>,
    pub custom_tags: Vec<CustomTag>,
    /// Longest path in `http.url`, characters (`max_path_tag_length`).
    pub max_path_length: usize,
}

impl Default for SpanSettings {
    fn default() -> Self {
        Self {
            node_id: "".into(),
            service_name: "".into(),
            zone: "".into(),
            fixed_tags: Vec::new(),
            custom_tags: Vec::new(),
            max_path_length: 256,
        }
    }
}

impl SpanSettings {
    /// The request headers that spans read.
    pub fn add_needs(&self, needs: &mut Needs) {
        const ALWAYS: [&str; 6] = [
            "user-agent",
            "x-envoy-downstream-service-cluster",
            "x-client-trace-id",
            "x-envoy-original-path",
            "content-type",
            "grpc-timeout",
        ];
        ALWAYS
            .into_iter()
            .for_each(|name| needs.add_request(Some(name)));
        for tag in &self.custom_tags {
            if let CustomTagSource::RequestHeader { name, .. } = &tag.source {
                needs.add_request(Some(name));
            }
        }
    }
}

/// Istio's tags of a proxy's own workload; empty texts are left out.
pub fn istio_tags(peer: &crate::record::Peer, mesh_id: &str) -> Vec<(String, String)> {
    let tags = [
        ("istio.canonical_revision", &*peer.canonical_revision),
        ("istio.canonical_service", &*peer.canonical_service),
        ("istio.mesh_id", mesh_id),
        ("istio.namespace", &*peer.namespace),
        ("istio.cluster_id", &*peer.cluster),
    ];
    tags.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(tag, value)| (tag.to_string(), value.to_string()))
        .collect()
}

/// A span that is ready to export.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub context: SpanContext,
    pub kind: SpanKind,
    /// Operation: the route decorator's `host:port/path*`, else Envoy's `ingress` / `egress` with
    /// the host.
    pub name: String,
    pub service_name: Arc<str>,
    pub start: SystemTime,
    pub duration: Duration,
    /// In Envoy's order.
    pub tags: Vec<(Cow<'static, str>, String)>,
    pub error: bool,
    /// Our address, when known.
    pub local: Option<Address>,
}

impl Span {
    /// The span of a finished record. `None` when the record has no sampled trace context or no
    /// start.
    pub fn of(
        record: &Record,
        kind: SpanKind,
        operation: Option<&str>,
        settings: &SpanSettings,
    ) -> Option<Self> {
        let context = record.trace.clone().filter(|context| context.sampled)?;
        let name = match operation.filter(|name| !name.is_empty()) {
            Some(name) => name.to_string(),
            None => {
                let direction = if kind == SpanKind::Client {
                    "egress"
                } else {
                    "ingress"
                };
                format!(
                    "{direction} {}",
                    record.request_header(":authority").unwrap_or_default()
                )
            }
        };
        let error = is_error(record);
        Some(Self {
            context,
            kind,
            name,
            service_name: settings.service_name.clone(),
            start: record.start?,
            duration: record.timings.total.unwrap_or_default(),
            tags: tags(record, settings, error),
            error,
            local: record.downstream_local.clone(),
        })
    }
}

impl Span {
    /// The span of the call to the upstream, where it is one of its own: from the first connection
    /// to the last byte.
    pub fn of_call(
        record: &Record,
        context: &SpanContext,
        name: String,
        settings: &SpanSettings,
    ) -> Option<Self> {
        let times = &record.timings;
        let begun = times
            .upstream_connect_start
            .or(times.first_upstream_tx)
            .unwrap_or_default();
        let ended = times.last_upstream_rx.or(times.total).unwrap_or_default();
        let error = is_error(record);
        Some(Self {
            context: Some(context.clone()).filter(|context| context.sampled)?,
            kind: SpanKind::Client,
            name,
            service_name: settings.service_name.clone(),
            start: record.start? + begun,
            duration: ended.saturating_sub(begun),
            tags: call_tags(record, settings, error),
            error,
            local: record.downstream_local.clone(),
        })
    }
}

fn is_error(record: &Record) -> bool {
    // gRPC: Cancelled, Unknown, DeadlineExceeded, ResourceExhausted, Internal, Unavailable,
    // DataLoss count as failures.
    let grpc_failed = record.is_grpc
        && record
            .grpc_status
            .is_some_and(|status| matches!(status, 1 | 2 | 4 | 8 | 13 | 14 | 15));
    record
        .status
        .is_none_or(|status| status == 0 || status >= 500)
        || grpc_failed
}

type Tags = Vec<(Cow<'static, str>, String)>;

fn tags(record: &Record, settings: &SpanSettings, error: bool) -> Tags {
    let mut tags = Tags::with_capacity(24);
    let known = |text: &'static str, value: &Arc<str>| {
        (!value.is_empty()).then(|| (Cow::Borrowed(text), value.to_string()))
    };
    tags.extend(known("node_id", &settings.node_id));
    tags.extend(known("zone", &settings.zone));
    request_tags(record, settings, &mut tags);
    response_tags(record, &mut tags);
    push(
        &mut tags,
        "response_size",
        Some(Cow::Owned(record.bytes.sent.to_string())),
    );
    common_tags(record, settings, error, &mut tags);
    tags
}

/// Of the request only what the host saw of it; the proxy's own span says the rest.
fn call_tags(record: &Record, settings: &SpanSettings, error: bool) -> Tags {
    let mut tags = Tags::with_capacity(16);
    push(
        &mut tags,
        "http.protocol",
        record
            .protocol
            .map(|protocol| Cow::Borrowed(protocol.as_str())),
    );
    push(
        &mut tags,
        "peer.address",
        record
            .upstream_host
            .as_ref()
            .map(|address| Cow::Owned(address.to_string())),
    );
    response_tags(record, &mut tags);
    if record.is_grpc {
        push(&mut tags, "grpc.status_code", grpc_status(record));
    }
    common_tags(record, settings, error, &mut tags);
    tags
}

fn grpc_status(record: &Record) -> Option<Cow<'static, str>> {
    record
        .grpc_status
        .map(|status| Cow::Owned(status.to_string()))
}

fn common_tags(record: &Record, settings: &SpanSettings, error: bool, tags: &mut Tags) {
    let fixed = |text: &'static str| Some(Cow::Borrowed(text));
    if error {
        push(tags, "error", fixed("true"));
    }
    for (name, value) in &settings.fixed_tags {
        tags.push((Cow::Owned(name.clone()), value.clone()));
    }
    for custom in &settings.custom_tags {
        if let Some(value) = custom_value(&custom.source, record) {
            tags.retain(|(name, _)| *name != custom.tag);
            tags.push((Cow::Owned(custom.tag.clone()), value));
        }
    }
}

fn push(tags: &mut Tags, name: &'static str, value: Option<Cow<'_, str>>) {
    if let Some(value) = value {
        tags.push((Cow::Borrowed(name), value.into_owned()));
    }
}

fn request_tags(record: &Record, settings: &SpanSettings, tags: &mut Tags) {
    let header = |name| record.request_header(name);
    let or_dash = |value: Option<Cow<'static, str>>| value.or(Some(Cow::Borrowed("-")));
    let owned = |name| header(name).map(|text| Cow::Owned(text.into_owned()));
    push(tags, "guid:x-request-id", header("x-request-id"));
    push(
        tags,
        "http.url",
        url(record, settings.max_path_length).map(Cow::Owned),
    );
    push(tags, "http.method", header(":method"));
    push(
        tags,
        "downstream_cluster",
        or_dash(owned("x-envoy-downstream-service-cluster")),
    );
    push(tags, "user_agent", or_dash(owned("user-agent")));
    push(
        tags,
        "http.protocol",
        record
            .protocol
            .map(|protocol| Cow::Borrowed(protocol.as_str())),
    );
    push(
        tags,
        "peer.address",
        record
            .downstream_direct_remote
            .as_ref()
            .map(|address| Cow::Owned(ip(address))),
    );
    push(tags, "guid:x-client-trace-id", header("x-client-trace-id"));
    if record.is_grpc {
        push(tags, "grpc.path", header(":path"));
        push(tags, "grpc.authority", header(":authority"));
        push(tags, "grpc.content_type", header("content-type"));
        push(tags, "grpc.timeout", header("grpc-timeout"));
        push(tags, "grpc.status_code", grpc_status(record));
    }
    push(
        tags,
        "request_size",
        Some(Cow::Owned(record.bytes.received.to_string())),
    );
}

fn response_tags(record: &Record, tags: &mut Tags) {
    push(tags, "component", Some(Cow::Borrowed("proxy")));
    push(
        tags,
        "upstream_cluster",
        record.upstream_cluster.as_deref().map(Cow::Borrowed),
    );
    let observed = record
        .upstream_cluster_observed
        .as_deref()
        .or(record.upstream_cluster.as_deref());
    push(tags, "upstream_cluster.name", observed.map(Cow::Borrowed));
    push(
        tags,
        "upstream_address",
        record
            .upstream_host
            .as_ref()
            .map(|address| Cow::Owned(address.to_string())),
    );
    push(
        tags,
        "http.status_code",
        Some(Cow::Owned(record.status.unwrap_or(0).to_string())),
    );
    push(
        tags,
        "response_flags",
        Some(Cow::Owned(record.flags.to_string())),
    );
    if record.attempts > 1 {
        push(
            tags,
            "retry.count",
            Some(Cow::Owned((record.attempts - 1).to_string())),
        );
    }
}

fn custom_value(source: &CustomTagSource, record: &Record) -> Option<String> {
    match source {
        CustomTagSource::Literal(text) => Some(text.clone()),
        CustomTagSource::RequestHeader { name, default } => record
            .request_header(&name.to_ascii_lowercase())
            .map(Cow::into_owned)
            .or_else(|| default.clone()),
        CustomTagSource::Metadata {
            filter,
            path,
            default,
        } => match crate::access_log::metadata(record.dynamic_metadata.as_deref(), filter, path) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => default.clone(),
            Some(other) => Some(other.to_string()),
        },
    }
}

fn url(record: &Record, max_path: usize) -> Option<String> {
    let path = record
        .request_header("x-envoy-original-path")
        .or_else(|| record.request_header(":path"))?;
    let path: String = path.chars().take(max_path).collect();
    let host = record.request_header(":authority").unwrap_or_default();
    Some(format!(
        "{}://{host}{path}",
        record.scheme.unwrap_or("http")
    ))
}

fn ip(address: &Address) -> String {
    match address {
        Address::Socket(socket) => socket.ip().to_string(),
        other => other.to_string(),
    }
}

/// The body of a POST to Zipkin's `/api/v2/spans`. `shared_context`: a server span has the id of
/// the client's (Zipkin's
/// `shared_span_context`), marked as shared.
pub fn zipkin_json(spans: &[Span], shared_context: bool) -> String {
    let spans: Vec<Value> = spans
        .iter()
        .map(|span| zipkin(span, shared_context))
        .collect();
    Value::Array(spans).to_string()
}

fn zipkin(span: &Span, shared_context: bool) -> Value {
    let mut endpoint = Map::from_iter([("serviceName".to_string(), json!(&*span.service_name))]);
    if let Some(Address::Socket(socket)) = &span.local {
        let family = if socket.is_ipv4() { "ipv4" } else { "ipv6" };
        endpoint.insert(family.to_string(), socket.ip().to_string().into());
        endpoint.insert("port".to_string(), socket.port().into());
    }
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut all = json!({
        "traceId": span.context.trace_id_hex().to_string(),
        "name": span.name,
        "id": span.context.span_id_hex().to_string(),
        "kind": if span.kind == SpanKind::Client { "CLIENT" } else { "SERVER" },
        "timestamp": micros(span.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
        "duration": micros(span.duration).max(1),
        "localEndpoint": endpoint,
        "tags": span.tags.iter().map(|(name, value)| (name.to_string(), json!(value))).collect::<Map<_, _>>(),
    });
    if let Some(all) = all.as_object_mut() {
        if let Some(parent) = span.context.parent_id {
            all.insert("parentId".to_string(), format!("{parent:016x}").into());
        }
        if shared_context && span.kind == SpanKind::Server && span.context.parent_id.is_some() {
            all.insert("shared".to_string(), true.into());
        }
    }
    all
}
