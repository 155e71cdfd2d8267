//! Which cluster a request goes to.

use std::sync::Arc;

use proxy_config::{
    ClusterName,
    route::{Target, WeightedCluster},
};
use wire_envoy::pb::{
    self,
    route::{
        route_action::ClusterSpecifier,
        weighted_cluster::{
            ClusterWeight, RandomValueSpecifier, cluster_weight::HostRewriteSpecifier,
        },
    },
};

use crate::{
    context::Cx,
    filter::http,
    header::{self, Lists},
    judgement::take,
    metadata,
    reject::{Refusal, Within, each},
    scalar,
};

pub(super) fn target(cx: &mut Cx, value: Option<ClusterSpecifier>) -> Result<Target, Refusal> {
    match value.ok_or_else(|| Refusal::missing("cluster_specifier"))? {
        ClusterSpecifier::Cluster(name) => named("cluster", name),
        ClusterSpecifier::ClusterHeader(name) => {
            scalar::header_name("cluster_header", &name).map(Target::ClusterHeader)
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            weighted(cx, clusters).within("weighted_clusters")
        }
        ClusterSpecifier::ClusterSpecifierPlugin(_)
        | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            Err(Refusal::at("cluster_specifier_plugin", "is not supported"))
        }
    }
}

pub(super) fn named(field: &'static str, name: String) -> Result<Target, Refusal> {
    ClusterName::parse(name)
        .map(Target::Cluster)
        .map_err(|e| Refusal::at(field, e.to_string()))
}

fn weighted(cx: &mut Cx, value: pb::route::WeightedCluster) -> Result<Target, Refusal> {
    take!(cx, value => pb::route::WeightedCluster {
        read { clusters, random_value_specifier }
        ignore "weights are relative to their sum, as in Envoy" { total_weight }
        ignore "there is no runtime layer" { runtime_key_prefix }
    });
    match random_value_specifier {
        None | Some(RandomValueSpecifier::UseHashPolicy(pb::BoolValue { value: false })) => {}
        Some(_) => {
            return Err(Refusal::at(
                "random_value_specifier",
                "clusters are chosen at random",
            ));
        }
    }
    let clusters: Arc<[_]> = each("clusters", clusters, |c| weighted_cluster(cx, c))?;
    let total = clusters
        .iter()
        .try_fold(0_u32, |sum, c: &WeightedCluster| sum.checked_add(c.weight));
    match total {
        Some(total_weight) if total_weight > 0 => Ok(Target::Weighted {
            clusters,
            total_weight,
        }),
        _ => Err(Refusal::at(
            "clusters",
            "weights must add up to 1 or more, in 32 bits",
        )),
    }
}

fn weighted_cluster(cx: &mut Cx, value: ClusterWeight) -> Result<WeightedCluster, Refusal> {
    take!(cx, value => ClusterWeight {
        read {
            name, weight, metadata_match, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier,
        }
        reject "clusters are named" { cluster_header }
    });
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    Ok(WeightedCluster {
        name: ClusterName::parse(name).map_err(|e| Refusal::at("name", e.to_string()))?,
        weight: scalar::count_or(weight, 0),
        headers: header::operations(cx, lists)?,
        metadata_match: metadata::optional(cx, metadata_match).within("metadata_match")?,
        host_rewrite: host_rewrite_specifier
            .map(|HostRewriteSpecifier::HostRewriteLiteral(host)| host.into()),
        filters: http::per_route(cx, typed_per_filter_config)?,
    })
}
