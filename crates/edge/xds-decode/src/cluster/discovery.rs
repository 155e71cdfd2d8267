//! Where a cluster's endpoints come from.

use std::{sync::Arc, time::Duration};

use proxy_config::cluster::{Discovery, DnsEndpoints, DnsFamily, DnsRefresh};
use wire_envoy::pb::{
    self,
    cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig},
    envoy::extensions::{clusters, common::dynamic_forward_proxy::v3::DnsCacheConfig},
};

use crate::{
    config_source,
    context::Cx,
    endpoint,
    extension::Extension,
    judgement::{enumerated, take},
    reject::{Refusal, Within},
    scalar,
};

/// Envoy's default.
const DNS_REFRESH: Duration = Duration::from_secs(5);
/// Of the dynamic forward proxy.
const FORWARD_REFRESH: Duration = Duration::from_secs(60);

pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Option<ClusterDiscoveryType>,
    pub(super) eds: Option<pb::cluster::cluster::EdsClusterConfig>,
    pub(super) load_assignment: Option<pb::endpoint::ClusterLoadAssignment>,
    pub(super) dns: DnsRefresh,
    pub(super) lb_config: Option<LbConfig>,
}

pub(super) fn discovery(cx: &mut Cx, parts: Parts<'_>) -> Result<Discovery, Refusal> {
    let Parts {
        name,
        kind,
        eds,
        load_assignment,
        dns,
        lb_config,
    } = parts;
    let kind = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(number)) => enumerated!(number => DiscoveryType, "type")?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return custom_type(cx, custom, load_assignment).within("cluster_type");
        }
    };
    match kind {
        DiscoveryType::Static => {
            // Istio's BlackHoleCluster: no endpoints, on purpose.
            let none = pb::endpoint::ClusterLoadAssignment {
                cluster_name: name.to_owned(),
                ..Default::default()
            };
            let assignment = load_assignment.unwrap_or(none);
            cx.within("load_assignment", |cx| endpoint::endpoints(cx, assignment))
                .map(|e| Discovery::Static(e.into()))
        }
        DiscoveryType::StrictDns => Ok(Discovery::StrictDns {
            endpoints: named_hosts(cx, load_assignment)?,
            refresh: dns,
        }),
        DiscoveryType::LogicalDns => Ok(Discovery::LogicalDns {
            endpoints: named_hosts(cx, load_assignment)?,
            refresh: dns,
        }),
        DiscoveryType::Eds => {
            let eds = eds.ok_or_else(|| Refusal::missing("eds_cluster_config"))?;
            take!(cx, eds => pb::cluster::cluster::EdsClusterConfig { read { eds_config, service_name } });
            config_source::subscribed(cx, eds_config).within("eds_cluster_config.eds_config")?;
            Ok(Discovery::Eds {
                // An empty service name stands for the cluster's own (Envoy's documentation of
                // `EdsClusterConfig`).
                service_name: if service_name.is_empty() {
                    name.into()
                } else {
                    service_name.into()
                },
            })
        }
        DiscoveryType::OriginalDst => match lb_config {
            Some(LbConfig::OriginalDstLbConfig(config)) => {
                original_dst(cx, config).within("original_dst_lb_config")
            }
            _ => Ok(Discovery::OriginalDst {
                http_header: None,
                port_override: None,
            }),
        },
    }
}

fn original_dst(
    cx: &mut Cx,
    value: pb::cluster::cluster::OriginalDstLbConfig,
) -> Result<Discovery, Refusal> {
    take!(cx, value => pb::cluster::cluster::OriginalDstLbConfig {
        read { use_http_header, http_header_name, upstream_port_override }
        reject "the destination is not read from metadata" { metadata_key }
    });
    let name = if http_header_name.is_empty() {
        "x-envoy-original-dst-host"
    } else {
        &http_header_name
    };
    Ok(Discovery::OriginalDst {
        http_header: use_http_header
            .then(|| scalar::header_name("http_header_name", name))
            .transpose()?,
        port_override: scalar::count(upstream_port_override)
            .map(|p| scalar::port("upstream_port_override", p))
            .transpose()?,
    })
}

fn named_hosts(
    cx: &mut Cx,
    value: Option<pb::endpoint::ClusterLoadAssignment>,
) -> Result<Arc<[DnsEndpoints]>, Refusal> {
    let assignment = value.ok_or_else(|| Refusal::missing("load_assignment"))?;
    cx.within("load_assignment", |cx| {
        endpoint::dns_endpoints(cx, assignment)
    })
}

fn custom_type(
    cx: &mut Cx,
    custom: pb::cluster::cluster::CustomClusterType,
    load_assignment: Option<pb::endpoint::ClusterLoadAssignment>,
) -> Result<Discovery, Refusal> {
    take!(cx, custom => pb::cluster::cluster::CustomClusterType {
        read { typed_config }
        ignore "the type of the configuration decides" { name }
    });
    let extension = Extension::open_required(typed_config).within("typed_config")?;
    if extension.is::<clusters::dynamic_forward_proxy::v3::ClusterConfig>() {
        let message = extension.message(cx).within("typed_config")?;
        return dynamic_forward(cx, message).within("typed_config");
    }
    if extension.is::<clusters::dns::v3::DnsCluster>() {
        let message = extension.message(cx).within("typed_config")?;
        let endpoints = named_hosts(cx, load_assignment)?;
        return dns_cluster(cx, message, endpoints).within("typed_config");
    }
    Err(extension.unknown("as a cluster type").under("typed_config"))
}

fn dns_cluster(
    cx: &mut Cx,
    value: clusters::dns::v3::DnsCluster,
    endpoints: Arc<[DnsEndpoints]>,
) -> Result<Discovery, Refusal> {
    use pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as Family;
    take!(cx, value => clusters::dns::v3::DnsCluster {
        read { dns_refresh_rate, respect_dns_ttl, dns_lookup_family, all_addresses_in_single_endpoint }
        ignore "retry times of the resolver are its own" { dns_failure_refresh_rate, dns_jitter, dns_min_refresh_rate }
        ignore "the resolver of this proxy is used" { typed_dns_resolver_config }
    });
    let family = match enumerated!(dns_lookup_family => Family, "dns_lookup_family")? {
        Family::Unspecified | Family::Auto => DnsFamily::Auto,
        Family::V4Only => DnsFamily::V4Only,
        Family::V6Only => DnsFamily::V6Only,
        Family::V4Preferred => DnsFamily::V4Preferred,
        Family::All => DnsFamily::All,
    };
    let rate = scalar::duration_or("dns_refresh_rate", dns_refresh_rate, DNS_REFRESH)?;
    let refresh = DnsRefresh {
        rate,
        respect_ttl: respect_dns_ttl,
        family,
    };
    Ok(if all_addresses_in_single_endpoint {
        Discovery::LogicalDns { endpoints, refresh }
    } else {
        Discovery::StrictDns { endpoints, refresh }
    })
}

fn dynamic_forward(
    cx: &mut Cx,
    value: clusters::dynamic_forward_proxy::v3::ClusterConfig,
) -> Result<Discovery, Refusal> {
    use clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
    take!(cx, value => clusters::dynamic_forward_proxy::v3::ClusterConfig {
        read { cluster_implementation_specifier }
        ignore "names are verified by the transport socket" { allow_insecure_cluster_options }
        ignore "connections of different names are not shared" { allow_coalesced_connections }
    });
    let cache = match cluster_implementation_specifier {
        Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)) => cache,
        Some(ClusterImplementationSpecifier::SubClustersConfig(_)) => {
            return Err(Refusal::at("sub_clusters_config", "is not supported"));
        }
        None => return Err(Refusal::missing("dns_cache_config")),
    };
    take!(cx, cache => DnsCacheConfig {
        read { dns_lookup_family, dns_refresh_rate }
        ignore "each cluster has its own cache" { name }
        ignore "the cache's sizes and times are the resolver's" {
            dns_min_refresh_rate, host_ttl, max_hosts, disable_dns_refresh_on_failure, dns_failure_refresh_rate,
            dns_cache_circuit_breaker, dns_query_timeout, key_value_config, preresolve_hostnames,
        }
        ignore "the resolver of this proxy is used" { use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config }
        reject "resolved addresses are not filtered" { resolved_address_filter }
    });
    let family = family(dns_lookup_family)?;
    let rate = scalar::duration_or("dns_refresh_rate", dns_refresh_rate, FORWARD_REFRESH)?;
    Ok(Discovery::DynamicForward {
        refresh: DnsRefresh {
            rate,
            respect_ttl: false,
            family,
        },
    })
}

pub(super) fn refresh(
    rate: Option<pb::Duration>,
    respect_ttl: bool,
    lookup_family: i32,
) -> Result<DnsRefresh, Refusal> {
    let rate = scalar::duration_or("dns_refresh_rate", rate, DNS_REFRESH)?;
    Ok(DnsRefresh {
        rate,
        respect_ttl,
        family: family(lookup_family)?,
    })
}

fn family(number: i32) -> Result<DnsFamily, Refusal> {
    Ok(
        match enumerated!(number => DnsLookupFamily, "dns_lookup_family")? {
            DnsLookupFamily::Auto => DnsFamily::Auto,
            DnsLookupFamily::V4Only => DnsFamily::V4Only,
            DnsLookupFamily::V6Only => DnsFamily::V6Only,
            DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            DnsLookupFamily::All => DnsFamily::All,
        },
    )
}
