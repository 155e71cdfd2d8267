//! `envoy.config.bootstrap.v3.Bootstrap` → `Bootstrap`, as Istio's agent writes it.

use std::{net::SocketAddr, sync::Arc};

use proxy_config::{
    bootstrap::{Bootstrap, Node, StatsInclusion, StatsTag, StatsTags},
    endpoint::EndpointAddress,
};
use wire_envoy::pb::{
    self,
    core::{api_config_source::ApiType, grpc_service::TargetSpecifier},
    envoy::config::metrics::v3::{
        HistogramBucketSettings, StatsConfig, TagSpecifier, stats_matcher, tag_specifier,
    },
};

use crate::{
    address,
    cluster::cluster,
    context::Cx,
    endpoint,
    judgement::{enumerated, take},
    listener::listener,
    matcher, metadata,
    reject::{Refusal, Within, each},
    tracing,
};

pub(crate) fn bootstrap(
    cx: &mut Cx,
    value: pb::bootstrap::Bootstrap,
) -> Result<Bootstrap, Refusal> {
    take!(cx, value => pb::bootstrap::Bootstrap {
        read { node, static_resources, dynamic_resources, stats_config, tracing, admin }
        ignore "there is no runtime layer" { layered_runtime, flags_path }
        ignore "nothing dies by watchdog" { watchdog, watchdogs, fatal_actions }
        ignore "connection and memory limits are the process's own settings" { overload_manager, memory_allocator_manager }
        ignore "the proxy's log has a format of its own" { application_log_config, perf_tracing_file_path }
        ignore "statistics are kept as they are" {
            stats_flush_interval, stats_flush, stats_eviction, deferred_stat_options, enable_dispatcher_stats,
            stats_server_version_override,
        }
        ignore "the resolver of this proxy is used" { use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config }
        ignore "all parts are built in" {
            bootstrap_extensions, default_socket_interface, default_regex_engine, listener_manager, inline_headers,
            grpc_async_client_manager_config, enable_worker_cpu_affinity, cluster_manager,
        }
        ignore "health is not reported by xDS" { hds_config }
        reject "there is one xDS server" { config_sources, default_config_source, node_context_params }
        reject "statistics are scraped" { stats_sinks }
        reject "headers are named x-envoy" { header_prefix }
        reject "certificates come inline or by SDS" { certificate_provider_instances }
        reject "is not supported" { xds_delegate_extension, xds_config_tracker_extension }
    });
    let resources = static_resources.unwrap_or_default();
    take!(cx, resources => pb::bootstrap::bootstrap::StaticResources {
        read { listeners, clusters }
        reject "secrets come by SDS" { secrets }
    });
    let field = "static_resources";
    let static_clusters = cx.within(field, |cx| {
        cx.each("clusters", clusters, |cx, c| cluster(cx, c).map(Arc::new))
    })?;
    let static_listeners = cx.within(field, |cx| {
        cx.each("listeners", listeners, |cx, l| {
            listener(cx, l).map(Arc::new)
        })
    })?;
    let Ads {
        cluster: ads_cluster,
        delta: ads_delta,
    } = ads(cx, dynamic_resources).within("dynamic_resources")?;
    let http_tracer = tracing.and_then(|pb::trace::Tracing { http }| http);
    Ok(Bootstrap {
        node: self::node(cx, node.ok_or_else(|| Refusal::missing("node"))?).within("node")?,
        admin: admin
            .map(|a| self::admin(cx, a))
            .transpose()
            .within("admin")?
            .flatten(),
        static_clusters,
        static_listeners,
        ads_cluster,
        ads_delta,
        tracing: http_tracer
            .map(|h| tracing::provider(cx, h))
            .transpose()
            .within("tracing.http")?
            .flatten()
            .map(Arc::new),
        stats: stats(cx, stats_config.unwrap_or_default()).within("stats_config")?,
    })
}

fn node(cx: &mut Cx, value: pb::core::Node) -> Result<Node, Refusal> {
    take!(cx, value => pb::core::Node {
        read { id, cluster, metadata, locality }
        ignore "is filled in by the proxy itself" {
            user_agent_name, extensions, client_features, listening_addresses, user_agent_version_type, dynamic_parameters,
        }
    });
    if id.is_empty() {
        return Err(Refusal::missing("id"));
    }
    Ok(Node {
        id: id.into(),
        cluster: cluster.into(),
        metadata: metadata::structure(metadata.unwrap_or_default()),
        locality: endpoint::locality(locality),
    })
}

fn admin(cx: &mut Cx, value: pb::bootstrap::Admin) -> Result<Option<SocketAddr>, Refusal> {
    take!(cx, value => pb::bootstrap::Admin {
        read { address }
        ignore "requests to the admin port are not logged" { access_log, access_log_path }
        ignore "there is no CPU profiler" { profile_path }
        ignore "the admin port is not a listener" { ignore_global_conn_limit }
        reject "all admin paths are served" { allow_paths }
        reject "is not supported" { socket_options }
    });
    if address.is_none() {
        return Ok(None);
    }
    match address::literal(cx, address).within("address")? {
        EndpointAddress::Socket(address) => Ok(Some(address)),
        EndpointAddress::Pipe(_) => Err(Refusal::at(
            "address.pipe",
            "the admin port must be a TCP port",
        )),
    }
}

#[derive(Default)]
struct Ads {
    cluster: Option<Arc<str>>,
    delta: bool,
}

fn ads(
    cx: &mut Cx,
    value: Option<pb::bootstrap::bootstrap::DynamicResources>,
) -> Result<Ads, Refusal> {
    let Some(value) = value else {
        return Ok(Ads::default());
    };
    take!(cx, value => pb::bootstrap::bootstrap::DynamicResources {
        read { ads_config }
        ignore "listeners and clusters are subscribed to whenever there is an ADS server" { lds_config, cds_config }
        reject "resources are named" { lds_resources_locator, cds_resources_locator }
    });
    let Some(config) = ads_config else {
        return Ok(Ads::default());
    };
    take!(cx, config => pb::core::ApiConfigSource {
        read { api_type, grpc_services }
        ignore "only version 3 exists" { transport_api_version }
        ignore "streams do not poll" { refresh_delay, request_timeout }
        ignore "requests follow answers" { rate_limit_settings }
        ignore "the node is sent on the first message" { set_node_on_first_message_only }
        reject "use grpc_services" { cluster_names }
        reject "is not supported" { config_validators }
    });
    let delta = match enumerated!(api_type => ApiType, "ads_config.api_type")? {
        ApiType::Grpc | ApiType::AggregatedGrpc => false,
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => true,
        ApiType::DeprecatedAndUnavailableDoNotUse | ApiType::Rest => {
            return Err(Refusal::at("ads_config.api_type", "only gRPC is supported"));
        }
    };
    let service = grpc_services
        .into_iter()
        .next()
        .and_then(|s| s.target_specifier);
    match service {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => Ok(Ads {
            cluster: Some(grpc.cluster_name.into()),
            delta,
        }),
        _ => Err(Refusal::at(
            "ads_config.grpc_services",
            "one envoy_grpc service is needed",
        )),
    }
}

fn stats(cx: &mut Cx, value: StatsConfig) -> Result<StatsInclusion, Refusal> {
    take!(cx, value => StatsConfig {
        read { stats_matcher, stats_tags, use_all_default_tags, histogram_bucket_settings }
        ignore "the first rule of a name counts" { allow_default_tag_overrides }
    });
    let list = match stats_matcher.and_then(|m| m.stats_matcher) {
        Some(stats_matcher::StatsMatcher::InclusionList(list)) => list.patterns,
        None => Vec::new(),
        Some(_) => {
            cx.note_text(
                "envoy.config.metrics.v3.StatsMatcher",
                "only inclusion lists are obeyed",
            );
            Vec::new()
        }
    };
    let (mut prefixes, mut suffixes, mut regexes) = (Vec::new(), Vec::new(), Vec::new());
    let patterns: Vec<_> = each("patterns", list, matcher::string).within("stats_matcher")?;
    for pattern in patterns {
        use proxy_config::matcher::StringPattern;
        match pattern.pattern {
            StringPattern::Prefix(text) => prefixes.push(text),
            StringPattern::Suffix(text) => suffixes.push(text),
            StringPattern::Regex(regex) => regexes.push(Arc::from(regex.pattern())),
            StringPattern::Exact(text) => regexes.push(Arc::from(regex::escape(&text))),
            StringPattern::Contains(text) => {
                regexes.push(Arc::from(format!(".*{}.*", regex::escape(&text))))
            }
        }
    }
    let tags = StatsTags {
        use_defaults: use_all_default_tags.is_none_or(|wanted| wanted.value),
        rules: each("stats_tags", stats_tags, stats_tag)?,
    };
    Ok(StatsInclusion {
        prefixes: prefixes.into(),
        suffixes: suffixes.into(),
        regexes: regexes.into(),
        tags,
        buckets: each(
            "histogram_bucket_settings",
            histogram_bucket_settings,
            buckets,
        )?,
    })
}

#[cfg(test)]
mod tests;

fn stats_tag(value: TagSpecifier) -> Result<(Arc<str>, StatsTag), Refusal> {
    let TagSpecifier {
        tag_name,
        tag_value,
    } = value;
    let tag = match tag_value {
        Some(tag_specifier::TagValue::Regex(pattern)) => StatsTag::Pattern(pattern.into()),
        Some(tag_specifier::TagValue::FixedValue(text)) => StatsTag::Fixed(text.into()),
        None => {
            return Err(Refusal::new(format!(
                "tag {tag_name} has neither regex nor fixed_value"
            )));
        }
    };
    Ok((tag_name.into(), tag))
}

/// Names by a regular expression, and bounds.
fn buckets(value: HistogramBucketSettings) -> Result<(Arc<str>, Arc<[f64]>), Refusal> {
    use proxy_config::matcher::StringPattern;
    // Bins make Envoy's own sketch finer; ours has its bins.
    let HistogramBucketSettings {
        r#match,
        buckets,
        bins: _,
    } = value;
    let names = r#match.ok_or_else(|| Refusal::missing("match"))?;
    let names = match matcher::string(names).within("match")?.pattern {
        StringPattern::Prefix(text) => format!("{}.*", regex::escape(&text)),
        StringPattern::Suffix(text) => format!(".*{}", regex::escape(&text)),
        StringPattern::Contains(text) => format!(".*{}.*", regex::escape(&text)),
        StringPattern::Exact(text) => regex::escape(&text),
        StringPattern::Regex(regex) => regex.pattern().to_owned(),
    };
    let ascend = buckets.is_sorted_by(|a, b| a < b) && buckets.iter().all(|bound| *bound > 0.0);
    if buckets.is_empty() || !ascend {
        return Err(Refusal::new("buckets must be positive and ascend"));
    }
    Ok((names.into(), buckets.into()))
}
