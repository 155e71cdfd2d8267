//! Attributes: what expressions can read of a record (Envoy's attribute documentation, Istio's
//! peers).

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, json};

use super::value::{Undefined, Value};
use crate::needs::Needs;
use crate::record::{Address, Kind, Peer, Record, TlsInfo};

macro_rules! attributes {
    ($($variant:ident $path:literal)*) => {
        /// One attribute.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Attribute { $($variant),* }

        impl Attribute {
            /// Every attribute with its path.
            pub(super) const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $path)),*];
        }
    };
}

attributes! {
    RequestPath "request.path"
    RequestUrlPath "request.url_path"
    RequestQuery "request.query"
    RequestHost "request.host"
    RequestScheme "request.scheme"
    RequestMethod "request.method"
    RequestHeaders "request.headers"
    RequestReferer "request.referer"
    RequestUserAgent "request.useragent"
    RequestId "request.id"
    RequestProtocol "request.protocol"
    RequestTime "request.time"
    RequestDuration "request.duration"
    RequestSize "request.size"
    RequestTotalSize "request.total_size"
    ResponseCode "response.code"
    ResponseCodeDetails "response.code_details"
    ResponseFlags "response.flags"
    ResponseGrpcStatus "response.grpc_status"
    ResponseHeaders "response.headers"
    ResponseTrailers "response.trailers"
    ResponseSize "response.size"
    ResponseTotalSize "response.total_size"
    ResponseBackendLatency "response.backend_latency"
    SourceAddress "source.address"
    SourcePort "source.port"
    DestinationAddress "destination.address"
    DestinationPort "destination.port"
    ConnectionId "connection.id"
    ConnectionMtls "connection.mtls"
    ConnectionServerName "connection.requested_server_name"
    ConnectionTlsVersion "connection.tls_version"
    ConnectionLocalSubject "connection.subject_local_certificate"
    ConnectionPeerSubject "connection.subject_peer_certificate"
    ConnectionLocalDns "connection.dns_san_local_certificate"
    ConnectionPeerDns "connection.dns_san_peer_certificate"
    ConnectionLocalUri "connection.uri_san_local_certificate"
    ConnectionPeerUri "connection.uri_san_peer_certificate"
    ConnectionPeerDigest "connection.sha256_peer_certificate_digest"
    ConnectionFailure "connection.transport_failure_reason"
    ConnectionTermination "connection.termination_details"
    UpstreamAddress "upstream.address"
    UpstreamPort "upstream.port"
    UpstreamLocalAddress "upstream.local_address"
    UpstreamTlsVersion "upstream.tls_version"
    UpstreamLocalSubject "upstream.subject_local_certificate"
    UpstreamPeerSubject "upstream.subject_peer_certificate"
    UpstreamLocalDns "upstream.dns_san_local_certificate"
    UpstreamPeerDns "upstream.dns_san_peer_certificate"
    UpstreamLocalUri "upstream.uri_san_local_certificate"
    UpstreamPeerUri "upstream.uri_san_peer_certificate"
    UpstreamPeerDigest "upstream.sha256_peer_certificate_digest"
    UpstreamFailure "upstream.transport_failure_reason"
    UpstreamAttempts "upstream.request_attempt_count"
    XdsClusterName "xds.cluster_name"
    XdsClusterMetadata "xds.cluster_metadata"
    XdsRouteName "xds.route_name"
    XdsRouteMetadata "xds.route_metadata"
    XdsHostMetadata "xds.upstream_host_metadata"
    XdsListenerMetadata "xds.listener_metadata"
    XdsVirtualHost "xds.virtual_host_name"
    XdsFilterChain "xds.filter_chain_name"
    Metadata "metadata"
    FilterState "filter_state"
    UpstreamPeer "upstream_peer"
    DownstreamPeer "downstream_peer"
}

impl Attribute {
    pub(super) fn by_path(path: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == path)
            .map(|(attribute, _)| *attribute)
    }

    /// Whether some attribute's path goes on after this one.
    pub(super) fn is_prefix(path: &str) -> bool {
        Self::ALL.iter().any(|(_, known)| {
            known
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    fn path(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == self)
            .map_or("", |(_, path)| path)
    }

    /// One element of a header map; `None` when this is not a header map.
    pub(super) fn lookup(self, name: &str, record: &Record) -> Option<Result<Value, Undefined>> {
        let name = name.to_ascii_lowercase();
        let found = match self {
            Self::RequestHeaders => record.request_header(&name),
            Self::ResponseHeaders => record.response_header(&name),
            Self::ResponseTrailers => record.trailer(&name),
            _ => return None,
        };
        Some(
            found
                .map(|text| Value::Text(text.into_owned()))
                .ok_or_else(|| Undefined(format!("no such key: {name}"))),
        )
    }

    pub(super) fn read(self, record: &Record) -> Result<Value, Undefined> {
        if self.path().starts_with("request.") && record.kind == Kind::Tcp {
            return Err(Undefined("no request on a TCP connection".to_string()));
        }
        let value = match self.path().split('.').next().unwrap_or_default() {
            "request" => self.of_request(record),
            "response" => self.of_response(record),
            "connection" => self.of_connection(record),
            "upstream" => self.of_upstream(record),
            _ => self.of_rest(record),
        };
        value.ok_or_else(|| Undefined(format!("no value: {}", self.path())))
    }

    fn of_request(self, record: &Record) -> Option<Value> {
        let header = |name| {
            record
                .request_header(name)
                .map(|text| Value::Text(text.into_owned()))
        };
        match self {
            Self::RequestPath => header(":path"),
            Self::RequestUrlPath => Some(text(record.path.as_ref()?.path())),
            Self::RequestQuery => Some(text(record.path.as_ref()?.query().unwrap_or_default())),
            Self::RequestHost => header(":authority"),
            Self::RequestScheme => record.scheme.map(text),
            Self::RequestMethod => header(":method"),
            Self::RequestHeaders => record.request_headers.as_ref().map(headers),
            Self::RequestReferer => header("referer"),
            Self::RequestUserAgent => header("user-agent"),
            Self::RequestId => header("x-request-id"),
            Self::RequestProtocol => record.protocol.map(|protocol| text(protocol.as_str())),
            Self::RequestTime => record.start.map(Value::Timestamp),
            Self::RequestDuration => record.timings.total.map(Value::Duration),
            Self::RequestSize => int(record.bytes.received),
            _ => int(record.bytes.downstream_wire_received),
        }
    }

    fn of_response(self, record: &Record) -> Option<Value> {
        match self {
            Self::ResponseCode => int(u64::from(record.status?)),
            Self::ResponseCodeDetails => record.response_code_details.as_deref().map(text),
            Self::ResponseFlags => int(u64::from(record.flags.bits())),
            Self::ResponseGrpcStatus => int(u64::from(record.grpc_status?)),
            Self::ResponseHeaders => record.response_headers.as_ref().map(headers),
            Self::ResponseTrailers => record.response_trailers.as_ref().map(headers),
            Self::ResponseSize => int(record.bytes.sent),
            Self::ResponseBackendLatency => backend_latency(record).map(Value::Duration),
            _ => int(record.bytes.downstream_wire_sent),
        }
    }

    fn of_connection(self, record: &Record) -> Option<Value> {
        match self {
            Self::ConnectionId => int(record.connection_id),
            Self::ConnectionMtls => Some(Value::Bool(record.is_mutual_tls())),
            Self::ConnectionServerName => record.requested_server_name.as_deref().map(text),
            Self::ConnectionFailure => record
                .downstream_transport_failure_reason
                .as_deref()
                .map(text),
            Self::ConnectionTermination => {
                record.connection_termination_details.as_deref().map(text)
            }
            Self::ConnectionPeerUri => record.downstream_principal().map(text),
            Self::ConnectionLocalUri => record.downstream_own_principal().map(text),
            Self::ConnectionTlsVersion => of_tls(record.downstream_tls.as_deref()?, "version"),
            Self::ConnectionLocalSubject => {
                of_tls(record.downstream_tls.as_deref()?, "local_subject")
            }
            Self::ConnectionPeerSubject => {
                of_tls(record.downstream_tls.as_deref()?, "peer_subject")
            }
            Self::ConnectionLocalDns => of_tls(record.downstream_tls.as_deref()?, "local_dns"),
            Self::ConnectionPeerDns => of_tls(record.downstream_tls.as_deref()?, "peer_dns"),
            _ => of_tls(record.downstream_tls.as_deref()?, "peer_digest"),
        }
    }

    fn of_upstream(self, record: &Record) -> Option<Value> {
        match self {
            Self::UpstreamAddress => record.upstream_host.as_ref().map(address),
            Self::UpstreamPort => port(record.upstream_host.as_ref()?),
            Self::UpstreamLocalAddress => record.upstream_local.as_ref().map(address),
            Self::UpstreamFailure => record
                .upstream_transport_failure_reason
                .as_deref()
                .map(text),
            Self::UpstreamAttempts => int(u64::from(record.attempts)),
            Self::UpstreamPeerUri => record.upstream_principal().map(text),
            Self::UpstreamLocalUri => record
                .upstream_tls
                .as_ref()?
                .local_uri_sans
                .first()
                .map(|san| text(san)),
            Self::UpstreamTlsVersion => of_tls(record.upstream_tls.as_deref()?, "version"),
            Self::UpstreamLocalSubject => of_tls(record.upstream_tls.as_deref()?, "local_subject"),
            Self::UpstreamPeerSubject => of_tls(record.upstream_tls.as_deref()?, "peer_subject"),
            Self::UpstreamLocalDns => of_tls(record.upstream_tls.as_deref()?, "local_dns"),
            Self::UpstreamPeerDns => of_tls(record.upstream_tls.as_deref()?, "peer_dns"),
            _ => of_tls(record.upstream_tls.as_deref()?, "peer_digest"),
        }
    }

    fn of_rest(self, record: &Record) -> Option<Value> {
        match self {
            Self::SourceAddress => record.downstream_remote.as_ref().map(address),
            Self::SourcePort => port(record.downstream_remote.as_ref()?),
            Self::DestinationAddress => record.downstream_local.as_ref().map(address),
            Self::DestinationPort => port(record.downstream_local.as_ref()?),
            Self::XdsClusterName => record.upstream_cluster.as_deref().map(text),
            Self::XdsRouteName => record.route_name.as_deref().map(text),
            Self::XdsVirtualHost => record.virtual_host.as_deref().map(text),
            Self::XdsFilterChain => record.filter_chain_name.as_deref().map(text),
            Self::XdsClusterMetadata => record.cluster_metadata.as_deref().map(filter_metadata),
            Self::XdsRouteMetadata => record.route_metadata.as_deref().map(filter_metadata),
            Self::XdsHostMetadata => record.host_metadata.as_deref().map(filter_metadata),
            Self::XdsListenerMetadata => record.listener_metadata.as_deref().map(filter_metadata),
            Self::Metadata => Some(filter_metadata(
                record.dynamic_metadata.as_deref().unwrap_or(&Map::new()),
            )),
            Self::FilterState => Some(Value::Map(
                record.filter_state.as_deref().cloned().unwrap_or_default(),
            )),
            Self::UpstreamPeer => record.upstream_peer.as_deref().map(peer),
            Self::DownstreamPeer => record.downstream_peer.as_deref().map(peer),
            _ => None,
        }
    }

    /// `key`: the one element that is read, when known.
    pub(super) fn add_needs(self, key: Option<&str>, needs: &mut Needs) {
        match (self, key) {
            (Self::RequestHeaders, key) => needs.add_request(key),
            (Self::ResponseHeaders, key) => needs.add_response(key),
            (Self::ResponseTrailers, key) => needs.add_trailer(key),
            (Self::RequestReferer, _) => needs.add_request(Some("referer")),
            (Self::RequestUserAgent, _) => needs.add_request(Some("user-agent")),
            (
                Self::XdsClusterMetadata
                | Self::XdsRouteMetadata
                | Self::XdsHostMetadata
                | Self::XdsListenerMetadata,
                _,
            ) => needs.metadata = true,
            _ => {}
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_string())
}

fn int(number: u64) -> Option<Value> {
    i64::try_from(number).ok().map(Value::Int)
}

fn address(address: &Address) -> Value {
    Value::Text(address.to_string())
}

fn port(address: &Address) -> Option<Value> {
    match address {
        Address::Socket(socket) => Some(Value::Int(i64::from(socket.port()))),
        Address::Pipe(_) | Address::Internal(_) => None,
    }
}

fn backend_latency(record: &Record) -> Option<Duration> {
    record
        .timings
        .last_upstream_rx?
        .checked_sub(record.timings.first_upstream_tx?)
}

fn headers(map: &HeaderMap) -> Value {
    let mut all = Map::new();
    for name in map.keys() {
        let values: Vec<_> = map
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        all.insert(name.as_str().to_string(), values.join(",").into());
    }
    Value::Map(all)
}

fn filter_metadata(metadata: &Map<String, serde_json::Value>) -> Value {
    Value::Map(Map::from_iter([(
        "filter_metadata".to_string(),
        serde_json::Value::Object(metadata.clone()),
    )]))
}

fn of_tls(tls: &TlsInfo, field: &str) -> Option<Value> {
    match field {
        "version" => tls.version.map(text),
        "local_subject" => tls.local_subject.as_deref().map(text),
        "peer_subject" => tls.peer_subject.as_deref().map(text),
        "local_dns" => tls.local_dns_sans.first().map(|san| text(san)),
        "peer_dns" => tls.peer_dns_sans.first().map(|san| text(san)),
        _ => tls.peer_fingerprint_256.as_deref().map(text),
    }
}

/// Under the names of Istio's workload metadata object.
fn peer(peer: &Peer) -> Value {
    let map = json!({
        "workload": &*peer.workload, "namespace": &*peer.namespace, "app": &*peer.app, "version": &*peer.version,
        "service": &*peer.canonical_service, "revision": &*peer.canonical_revision, "cluster": &*peer.cluster,
        "type": &*peer.workload_type, "name": &*peer.instance, "identity": &*peer.identity,
    });
    Value::from_json(&map)
}
