//! The HTTP connection manager, and the order of HTTP filters (row SEC-058).

use mesh_model::{mesh_config::PathNormalization, port::Protocol};
use prost::{Message, Name};
use serde_json::json;
use wire_envoy::pb::{
    Any, core,
    envoy::extensions::{
        filters::{
            http::{
                cors::v3::Cors, fault::v3::HttpFault, grpc_stats::v3 as grpc_stats,
                grpc_web::v3::GrpcWeb, router::v3::Router,
            },
            network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction,
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
    hcm::{
        HttpConnectionManager, HttpFilter, Rds, RequestIdExtension,
        http_connection_manager::{
            ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
        },
        http_filter,
    },
    istio::alpn,
    listener::{Filter, filter},
    route::RouteConfiguration,
};

use super::ListenerInputs;
use crate::{packed, rbac, telemetry::Side, wire};

/// Where routes come from.
pub(super) enum Table {
    /// By name, from RDS.
    Named(String),
    Inline(Box<RouteConfiguration>),
}

/// What one connection manager is for.
pub(super) struct Manager {
    pub side: Side,
    pub stat_prefix: String,
    pub table: Table,
    pub protocol: Protocol,
}

pub(super) fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    network_filter_of(name, packed(config))
}

pub(super) fn network_filter_of(name: &str, config: Any) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    }
}

/// The network filter.
pub(super) fn connection_manager(inputs: &ListenerInputs, manager: Manager) -> Filter {
    let reports = inputs.reports(manager.side);
    let http_filters = http_filters(inputs, &manager);
    let Manager {
        side,
        stat_prefix,
        table,
        ..
    } = manager;
    let request_id = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(wire::boolean(reports.samples_by_request_id())),
        ..Default::default()
    };
    let mut config = HttpConnectionManager {
        stat_prefix: crate::names::stat_name(&stat_prefix),
        http_filters,
        tracing: reports.tracing(),
        access_log: reports.access_logs(),
        stream_idle_timeout: Some(Default::default()),
        use_remote_address: Some(wire::boolean(side == Side::Gateway)),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(packed(&request_id)),
        }),
        route_specifier: Some(match table {
            Table::Named(route_config_name) => RouteSpecifier::Rds(Rds {
                config_source: Some(wire::ads()),
                route_config_name,
            }),
            Table::Inline(config) => RouteSpecifier::RouteConfig(*config),
        }),
        ..Default::default()
    };
    normalize_paths(inputs.mesh.path_normalization, &mut config);
    match side {
        Side::Outbound => {}
        Side::Inbound => serve(ForwardClientCertDetails::AppendForward, false, &mut config),
        Side::Gateway => {
            serve(ForwardClientCertDetails::SanitizeSet, true, &mut config);
            config.http_protocol_options = Some(core::Http1ProtocolOptions::default());
            config.xff_num_trusted_hops = inputs.mesh.gateway_trusted_proxies;
        }
    }
    network_filter("envoy.filters.network.http_connection_manager", &config)
}

/// What the side that answers does: its name, and what it says upstream about the client's certificate.
fn serve(
    details: ForwardClientCertDetails,
    with_certificate: bool,
    config: &mut HttpConnectionManager,
) {
    config.server_name = "istio-envoy".to_owned();
    config.forward_client_cert_details = details.into();
    config.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
        subject: Some(wire::boolean(true)),
        cert: with_certificate,
        dns: true,
        uri: true,
        ..Default::default()
    });
}

fn normalize_paths(how: PathNormalization, config: &mut HttpConnectionManager) {
    config.normalize_path = Some(wire::boolean(how != PathNormalization::None));
    config.merge_slashes = matches!(
        how,
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes
    );
    let escaped = match how {
        PathNormalization::DecodeAndMergeSlashes => {
            PathWithEscapedSlashesAction::UnescapeAndForward
        }
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    };
    config.path_with_escaped_slashes_action = escaped.into();
}

fn http_filters(inputs: &ListenerInputs, manager: &Manager) -> Vec<HttpFilter> {
    let has_istio_filters = !inputs.client.is_envoy_without_istio_filters;
    let is_served = manager.side != Side::Outbound;
    let mut found = Vec::new();
    if has_istio_filters {
        found.push(http_filter_of(
            "istio.metadata_exchange",
            metadata_exchange(manager.side),
        ));
    }
    if is_served {
        found.extend(rbac::http_filters(&inputs.policies, &inputs.mesh));
    }
    if manager.protocol == Protocol::GrpcWeb {
        found.push(http_filter("envoy.filters.http.grpc_web", &GrpcWeb {}));
    }
    found.push(grpc_statistics());
    if has_istio_filters && manager.side != Side::Inbound {
        found.push(http_filter("istio.alpn", &alpn_override()));
    }
    found.push(http_filter(
        "envoy.filters.http.fault",
        &HttpFault::default(),
    ));
    found.push(http_filter("envoy.filters.http.cors", &Cors {}));
    found.extend(
        inputs
            .reports(manager.side)
            .metrics()
            .map(|config| http_filter("istio.stats", &config)),
    );
    found.push(http_filter("envoy.filters.http.router", &Router::default()));
    found
}

fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    http_filter_of(name, packed(config))
}

fn http_filter_of(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// Tells the other side who speaks, and learns it from the other side.
fn metadata_exchange(side: Side) -> Any {
    let discovery = json!([{"istio_headers": {}}, {"workload_discovery": {}}]);
    let propagation = json!([{"istio_headers": {}}]);
    let config = match side {
        Side::Inbound => {
            json!({"downstream_discovery": discovery, "downstream_propagation": propagation})
        }
        Side::Outbound | Side::Gateway => {
            json!({"upstream_discovery": discovery, "upstream_propagation": propagation})
        }
    };
    wire::typed_struct("io.istio.http.peer_metadata.Config", &config)
}

fn grpc_statistics() -> HttpFilter {
    let config = grpc_stats::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(
            grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(wire::boolean(
                false,
            )),
        ),
        ..Default::default()
    };
    http_filter("envoy.filters.http.grpc_stats", &config)
}

/// Replaces the ALPN of mutual TLS by the HTTP version of the request, which selects the HTTP chain at the other side.
fn alpn_override() -> alpn::FilterConfig {
    use alpn::filter_config::{AlpnOverride, Protocol};
    let entry = |protocol: Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol.into(),
        alpn_override: names.map(str::to_owned).to_vec(),
    };
    alpn::FilterConfig {
        alpn_override: vec![
            entry(Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            entry(Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            entry(Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    }
}
