//! The TCP proxy.

use std::{sync::Arc, time::Duration};

use proxy_config::{
    ClusterName,
    hash_policy::{HashPolicy, HashSource},
    tcp_proxy::{TcpProxy, Tunnel, WeightedTcpCluster},
};
use wire_envoy::pb::{
    self,
    kind::hash_policy::PolicySpecifier,
    tcp_proxy::{
        UpstreamConnectMode,
        tcp_proxy::{
            ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
        },
    },
};

use crate::{
    access_log,
    context::Cx,
    judgement::take,
    metadata,
    reject::{Refusal, Within, each},
    scalar,
};

/// Envoy's default.
const IDLE: Duration = Duration::from_secs(3600);

pub(crate) fn tcp_proxy(cx: &mut Cx, value: pb::tcp_proxy::TcpProxy) -> Result<TcpProxy, Refusal> {
    take!(cx, value => pb::tcp_proxy::TcpProxy {
        read {
            stat_prefix, metadata_match, idle_timeout, access_log, max_connect_attempts, hash_policy, tunneling_config,
            max_downstream_connection_duration, upstream_connect_mode, cluster_specifier,
        }
        ignore "the idle time covers both directions" { downstream_idle_timeout, upstream_idle_timeout }
        ignore "attempts follow each other at once" { backoff_options }
        ignore "the duration has no jitter" { max_downstream_connection_duration_jitter_percentage }
        ignore "connections are logged when they end" { access_log_flush_interval, flush_access_log_on_connected, access_log_options }
        ignore "bytes that came early are kept" { max_early_data_bytes }
        ignore "connections end when their listener has drained" { check_drain_close }
        reject "clusters are subscribed to, not asked for" { on_demand }
        reject "TLVs are not sent" { proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy }
    });
    if upstream_connect_mode != UpstreamConnectMode::Immediate as i32 {
        return Err(Refusal::at(
            "upstream_connect_mode",
            "only IMMEDIATE is supported",
        ));
    }
    let max_connect_attempts = scalar::count_or(max_connect_attempts, 1);
    if max_connect_attempts == 0 {
        return Err(Refusal::at("max_connect_attempts", "must be at least 1"));
    }
    let hash_policies: Vec<HashPolicy> = each("hash_policy", hash_policy, self::hash_policy)?;
    Ok(TcpProxy {
        stat_prefix: stat_prefix.into(),
        clusters: clusters(cx, cluster_specifier)?,
        access_logs: access_log::access_logs(cx, "access_log", access_log)?,
        idle_timeout: scalar::limit("idle_timeout", idle_timeout, Some(IDLE))?,
        max_connect_attempts,
        max_downstream_connection_duration: scalar::limit(
            "max_downstream_connection_duration",
            max_downstream_connection_duration,
            None,
        )?,
        hash_policy: hash_policies.into_iter().next(),
        metadata_match: metadata::optional(cx, metadata_match).within("metadata_match")?,
        tunnel: tunneling_config
            .map(|t| tunnel(cx, t))
            .transpose()
            .within("tunneling_config")?,
    })
}

fn clusters(
    cx: &mut Cx,
    value: Option<ClusterSpecifier>,
) -> Result<Arc<[WeightedTcpCluster]>, Refusal> {
    let name = |name: String, field| {
        ClusterName::parse(name).map_err(|e| Refusal::at(field, e.to_string()))
    };
    match value.ok_or_else(|| Refusal::missing("cluster"))? {
        ClusterSpecifier::Cluster(cluster) => Ok(Arc::from([WeightedTcpCluster {
            name: name(cluster, "cluster")?,
            weight: 1,
            metadata_match: None,
        }])),
        ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }) => {
            let clusters: Arc<[_]> = each("clusters", clusters, |value| {
                let ClusterWeight {
                    name: cluster,
                    weight,
                    metadata_match,
                } = value;
                Ok(WeightedTcpCluster {
                    name: name(cluster, "name")?,
                    weight,
                    metadata_match: metadata::optional(cx, metadata_match)
                        .within("metadata_match")?,
                })
            })
            .within("weighted_clusters")?;
            let total: u64 = clusters
                .iter()
                .map(|c: &WeightedTcpCluster| u64::from(c.weight))
                .sum();
            if total == 0 || total > u64::from(u32::MAX) {
                return Err(Refusal::at(
                    "weighted_clusters",
                    "weights must add up to 1 or more, in 32 bits",
                ));
            }
            Ok(clusters)
        }
    }
}

fn hash_policy(value: pb::kind::HashPolicy) -> Result<HashPolicy, Refusal> {
    let source = match value
        .policy_specifier
        .ok_or_else(|| Refusal::missing("policy_specifier"))?
    {
        PolicySpecifier::SourceIp(_) => HashSource::SourceIp,
        PolicySpecifier::FilterState(state) => HashSource::FilterState(state.key.into()),
    };
    Ok(HashPolicy {
        source,
        terminal: false,
    })
}

fn tunnel(cx: &mut Cx, value: TunnelingConfig) -> Result<Tunnel, Refusal> {
    take!(cx, value => TunnelingConfig {
        read { hostname }
        ignore "no supported filter reads what the tunnel answered" { propagate_response_headers, propagate_response_trailers }
        ignore "a tunnel has no request id" { request_id_header, request_id_metadata_key }
        reject "headers of the tunnel are fixed" { headers_to_add, formatters }
        reject "a tunnel has no request id" { request_id_extension }
        reject "tunnels are made by CONNECT" { use_post, post_path }
    });
    if hostname.is_empty() {
        return Err(Refusal::missing("hostname"));
    }
    if hostname.contains('%') {
        return Err(Refusal::at("hostname", "formats are not supported"));
    }
    Ok(Tunnel {
        hostname: hostname.into(),
        use_post: false,
    })
}
