//! `envoy.config.cluster.v3.Cluster` → `Cluster`.

use std::time::Duration;

use proxy_config::{
    Cluster, ClusterName,
    cluster::{TcpKeepalive, UpstreamBind},
};
use wire_envoy::pb;

use crate::{
    address,
    context::Cx,
    extension::Extension,
    filter::peer_metadata,
    judgement::take,
    metadata,
    reject::{Refusal, Within, each},
    scalar,
};

mod balancer;
mod circuit_breakers;
mod discovery;
mod http_options;
mod outlier;
mod transport;

/// Envoy's defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `SOL_SOCKET`, `SO_MARK`, `SOL_IP`, `IP_TRANSPARENT` on Linux.
const SOL_SOCKET: i64 = 1;
const SO_MARK: i64 = 36;
const SOL_IP: i64 = 0;
const IP_TRANSPARENT: i64 = 19;

pub(crate) fn cluster(cx: &mut Cx, value: pb::cluster::Cluster) -> Result<Cluster, Refusal> {
    take!(cx, value => pb::cluster::Cluster {
        read {
            transport_socket_matches, name, alt_stat_name, eds_cluster_config, connect_timeout,
            lb_policy, load_assignment, max_requests_per_connection, circuit_breakers,
            upstream_http_protocol_options, common_http_protocol_options, http_protocol_options, http2_protocol_options,
            typed_extension_protocol_options, dns_refresh_rate, respect_dns_ttl, dns_lookup_family, outlier_detection,
            upstream_bind_config, lb_subset_config, common_lb_config, transport_socket, metadata, protocol_selection,
            upstream_connection_options, filters, load_balancing_policy, cluster_discovery_type,
            lb_config,
        }
        ignore "the resolver of this proxy is used; its own settings follow the machine's" {
            dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config,
        }
        ignore "retry times of the resolver are its own" { dns_jitter, dns_failure_refresh_rate }
        ignore "hosts that are gone get no traffic at once: there are no active health checks" { ignore_health_on_host_removal }
        ignore "bodies pass a window at a time, whatever their size" { per_connection_buffer_limit_bytes }
        ignore "statistics only" { stats_matcher, track_cluster_stats, track_timeout_budgets }
        ignore "requests avoid an unhealthy host; its open connections end with what they carry" { close_connections_on_host_health_failure }
        ignore "clusters are warmed before they are used, whatever this says" { wait_for_warm_on_init }
        ignore "hosts that nobody uses go within a second" { cleanup_interval }
        ignore "load reports are not sent" { lrs_server, lrs_report_endpoint_metrics }
        ignore "connections are opened on demand; opening ahead only saves time" { preconnect_policy }
        ignore "buffers above the limit stop reading, without a time limit" { per_connection_buffer_high_watermark_timeout }
        leave "active health checks are not supported" { health_checks }
        leave "pending requests are served in order" { queuing_policies }
        reject "choose transports by transport_socket_matches" { transport_socket_matcher }
        reject "custom upstreams are not supported" { upstream_config }
        reject "upstream connections are pooled per worker" { connection_pool_per_downstream_connection }
    });
    let name = ClusterName::parse(name).map_err(|e| Refusal::at("name", e.to_string()))?;
    let (http, error_statuses) = http_options::upstream(
        cx,
        http_options::Parts {
            typed: typed_extension_protocol_options,
            upstream: upstream_http_protocol_options,
            common: common_http_protocol_options,
            http1: http_protocol_options,
            http2: http2_protocol_options,
            selection: protocol_selection,
            max_requests_per_connection,
        },
    )?;
    let dns = discovery::refresh(dns_refresh_rate, respect_dns_ttl, dns_lookup_family)?;
    let common = balancer::common(cx, common_lb_config)?;
    let balancer::Chosen {
        balancer,
        locality,
        subsets: listed_subsets,
    } = balancer::balancer(
        cx,
        lb_policy,
        lb_config.clone(),
        load_balancing_policy,
        common.use_hostname,
    )?;
    let discovery = discovery::discovery(
        cx,
        discovery::Parts {
            name: name.as_str(),
            kind: cluster_discovery_type,
            eds: eds_cluster_config,
            load_assignment,
            dns,
            lb_config,
        },
    )?;
    let mut common_lb = common.lb;
    if let Some(locality) = locality {
        common_lb.locality = locality;
    }
    Ok(Cluster {
        name,
        alt_stat_name: scalar::text(alt_stat_name),
        discovery,
        connect_timeout: scalar::duration_or("connect_timeout", connect_timeout, CONNECT_TIMEOUT)?,
        balancer,
        subsets: match listed_subsets {
            Some(subsets) => Some(subsets),
            None => lb_subset_config
                .map(|s| balancer::subsets(cx, s))
                .transpose()
                .within("lb_subset_config")?
                .flatten(),
        },
        common_lb,
        circuit_breakers: circuit_breakers::circuit_breakers(cx, circuit_breakers)
            .within("circuit_breakers")?,
        outlier_detection: outlier_detection
            .map(|o| outlier::outlier(cx, o, error_statuses))
            .transpose()
            .within("outlier_detection")?
            .map(Into::into),
        http,
        transport: transport::socket(cx, transport_socket),
        transport_matches: transport::matches(cx, transport_socket_matches)?,
        bind: upstream_bind_config
            .map(|b| bind(cx, b))
            .transpose()
            .within("upstream_bind_config")?
            .unwrap_or_default(),
        tcp_keepalive: upstream_connection_options
            .map(|o| keepalive(cx, o))
            .transpose()
            .within("upstream_connection_options")?
            .flatten(),
        peer_metadata_exchange: upstream_filters(cx, filters)?,
        metadata: metadata::metadata(cx, metadata).within("metadata")?,
    })
}

/// Whether Istio's metadata exchange is among the upstream network filters; no other filter is
/// known there.
fn upstream_filters(cx: &mut Cx, filters: Vec<pb::cluster::Filter>) -> Result<bool, Refusal> {
    let found: Vec<()> = each("filters", filters, |filter| {
        take!(cx, filter => pb::cluster::Filter {
            read { typed_config }
            ignore "the type of the configuration decides" { name }
            reject "filters by reference (ECDS) are not supported in clusters" { config_discovery }
        });
        let extension = Extension::open_required(typed_config).within("typed_config")?;
        peer_metadata::exchange(cx, &extension).within("typed_config")
    })?;
    Ok(!found.is_empty())
}

fn bind(cx: &mut Cx, value: pb::core::BindConfig) -> Result<UpstreamBind, Refusal> {
    take!(cx, value => pb::core::BindConfig {
        read { source_address, socket_options }
        ignore "binding does not need the address to be configured already" { freebind }
        ignore "the operating system chooses the other family's address" { extra_source_addresses, additional_source_addresses }
        ignore "without other source addresses there is nothing to select" { local_address_selector }
        ignore "no network namespaces are used" { validate_network_namespaces }
    });
    let mut bind = UpstreamBind {
        source: source_address
            .map(|a| address::socket(cx, a))
            .transpose()
            .within("source_address")?,
        ..UpstreamBind::default()
    };
    for option in socket_options {
        let pb::core::SocketOption {
            description: _,
            level,
            name,
            state: _,
            r#type: _,
            ip_version: _,
            value,
        } = option;
        match (level, name, value) {
            (SOL_SOCKET, SO_MARK, Some(pb::core::socket_option::Value::IntValue(mark))) => {
                bind.mark =
                    Some(u32::try_from(mark).map_err(|_| {
                        Refusal::at("socket_options", format!("{mark} is no mark"))
                    })?);
            }
            (SOL_IP, IP_TRANSPARENT, Some(pb::core::socket_option::Value::IntValue(on))) => {
                bind.transparent = on != 0
            }
            (level, name, _) => {
                return Err(Refusal::at(
                    "socket_options",
                    format!("socket option {name} of level {level} is not supported"),
                ));
            }
        }
    }
    Ok(bind)
}

fn keepalive(
    cx: &mut Cx,
    value: pb::cluster::UpstreamConnectionOptions,
) -> Result<Option<TcpKeepalive>, Refusal> {
    take!(cx, value => pb::cluster::UpstreamConnectionOptions {
        read { tcp_keepalive }
        ignore "statistics only" { set_local_interface_name_on_upstream_connections }
        ignore "one address of a name is used at a time" { happy_eyeballs_config }
    });
    Ok(tcp_keepalive.map(|value| {
        let pb::core::TcpKeepalive {
            keepalive_probes,
            keepalive_time,
            keepalive_interval,
        } = value;
        let seconds = |v| scalar::count(v).map(|s| Duration::from_secs(s.into()));
        TcpKeepalive {
            probes: scalar::count(keepalive_probes),
            time: seconds(keepalive_time),
            interval: seconds(keepalive_interval),
        }
    }))
}

#[cfg(test)]
mod tests;
