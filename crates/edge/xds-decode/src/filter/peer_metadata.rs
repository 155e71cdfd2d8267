//! Istio's peer metadata, over HTTP headers and over TCP. Istio sends both as `TypedStruct`, so
//! they are read from the Struct without loading descriptors.

use proxy_config::filter::peer_metadata::PeerMetadata;
use serde_json::Value as Json;
use wire_envoy::{
    pb::istio::{
        metadata_exchange::MetadataExchange,
        peer_metadata::{
            Config,
            config::{
                Baggage, DiscoveryMethod, IstioHeaders, PropagationMethod, WorkloadDiscovery,
                discovery_method::MethodSpecifier as Discovery,
                propagation_method::MethodSpecifier as Propagation,
            },
        },
    },
    structs,
};

use crate::{
    context::Cx,
    extension::Extension,
    judgement::take,
    reject::{Refusal, Within, each},
};

/// The one ALPN value that Istio's exchange answers to.
const PROTOCOL: &str = "istio-peer-exchange";

pub(crate) fn peer_metadata(cx: &mut Cx, extension: &Extension) -> Result<PeerMetadata, Refusal> {
    let value = match extension.structure() {
        Some(fields) => config_of(&structs::to_json(fields)).within("value")?,
        None => extension.message(cx)?,
    };
    take!(cx, value => Config {
        read { downstream_discovery, upstream_discovery, downstream_propagation, upstream_propagation }
        ignore "there are no internal upstreams to share with" { shared_with_upstream }
        reject "labels of one's own are not supported" { additional_labels }
    });
    let mut found = PeerMetadata::default();
    for method in downstream_discovery {
        match method.method_specifier {
            Some(Discovery::IstioHeaders(_)) => found.discover_downstream = true,
            Some(Discovery::Baggage(Baggage {})) => cx.note_text(
                <Config as prost::Name>::full_name(),
                "baggage of requests is not read; peers are known by their metadata",
            ),
            // Answered by the workload metadata xDS, which istiod leaves out for proxies with
            // METADATA_DISCOVERY=false.
            Some(Discovery::WorkloadDiscovery(WorkloadDiscovery {})) | None => {}
        }
    }
    for method in upstream_discovery {
        match method.method_specifier {
            Some(Discovery::IstioHeaders(_)) => found.discover_upstream = true,
            Some(Discovery::Baggage(_)) => {
                return Err(Refusal::at(
                    "upstream_discovery",
                    "baggage of answers is not read",
                ));
            }
            Some(Discovery::WorkloadDiscovery(_)) | None => {}
        }
    }
    found.propagate_downstream = !downstream_propagation.is_empty();
    found.propagate_upstream = !upstream_propagation.is_empty();
    found.skip_external_clusters = upstream_propagation.iter().any(|method| {
        matches!(
            method.method_specifier,
            Some(Propagation::IstioHeaders(IstioHeaders {
                skip_external_clusters: true
            }))
        )
    });
    Ok(found)
}

fn config_of(json: &Json) -> Result<Config, Refusal> {
    let mut config = Config::default();
    for (name, value) in json.as_object().into_iter().flatten() {
        match name.as_str() {
            "downstream_discovery" | "downstreamDiscovery" => {
                config.downstream_discovery = discovery("downstream_discovery", value)?
            }
            "upstream_discovery" | "upstreamDiscovery" => {
                config.upstream_discovery = discovery("upstream_discovery", value)?
            }
            "downstream_propagation" | "downstreamPropagation" => {
                config.downstream_propagation = propagation("downstream_propagation", value)?;
            }
            "upstream_propagation" | "upstreamPropagation" => {
                config.upstream_propagation = propagation("upstream_propagation", value)?
            }
            "shared_with_upstream" | "sharedWithUpstream" => {
                config.shared_with_upstream = value.as_bool().unwrap_or_default()
            }
            "additional_labels" | "additionalLabels" => {
                config.additional_labels = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect();
            }
            other => return Err(Refusal::new(format!("unknown field {other}"))),
        }
    }
    Ok(config)
}

fn discovery(field: &'static str, list: &Json) -> Result<Vec<DiscoveryMethod>, Refusal> {
    methods(field, list, |name, body| {
        Some(DiscoveryMethod {
            method_specifier: Some(match name {
                "baggage" => Discovery::Baggage(Baggage {}),
                "workload_discovery" | "workloadDiscovery" => {
                    Discovery::WorkloadDiscovery(WorkloadDiscovery {})
                }
                "istio_headers" | "istioHeaders" => Discovery::IstioHeaders(headers(body)),
                _ => return None,
            }),
        })
    })
}

fn propagation(field: &'static str, list: &Json) -> Result<Vec<PropagationMethod>, Refusal> {
    methods(field, list, |name, body| {
        matches!(name, "istio_headers" | "istioHeaders").then(|| PropagationMethod {
            method_specifier: Some(Propagation::IstioHeaders(headers(body))),
        })
    })
}

fn headers(body: &Json) -> IstioHeaders {
    let flag = body
        .get("skip_external_clusters")
        .or_else(|| body.get("skipExternalClusters"));
    IstioHeaders {
        skip_external_clusters: flag.and_then(Json::as_bool).unwrap_or_default(),
    }
}

/// A list of objects with one key each.
fn methods<T>(
    field: &'static str,
    list: &Json,
    method: impl Fn(&str, &Json) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    let list = list
        .as_array()
        .ok_or_else(|| Refusal::at(field, "is no list"))?;
    each(field, list, |item| {
        let mut keys = item.as_object().into_iter().flatten();
        match (keys.next(), keys.next()) {
            (Some((name, body)), None) => {
                method(name, body).ok_or_else(|| Refusal::new(format!("unknown method {name}")))
            }
            _ => Err(Refusal::new("is no single method")),
        }
    })
}

/// The TCP exchange: known only with Istio's own protocol name.
pub(crate) fn exchange(cx: &mut Cx, extension: &Extension) -> Result<(), Refusal> {
    if !extension.is::<MetadataExchange>() {
        return Err(extension.unknown("as a network filter here"));
    }
    let value = match extension.structure() {
        None => extension.message(cx)?,
        Some(fields) => {
            let json = structs::to_json(fields);
            let mut value = MetadataExchange::default();
            for (name, field) in json.as_object().into_iter().flatten() {
                match name.as_str() {
                    "protocol" => value.protocol = field.as_str().unwrap_or_default().to_owned(),
                    "enable_discovery" | "enableDiscovery" => {
                        value.enable_discovery = field.as_bool().unwrap_or_default()
                    }
                    "additional_labels" | "additionalLabels"
                        if field.as_array().is_some_and(Vec::is_empty) => {}
                    other => {
                        return Err(Refusal::at(
                            "value",
                            format!("field {other} is not supported"),
                        ));
                    }
                }
            }
            value
        }
    };
    take!(cx, value => MetadataExchange {
        read { protocol }
        ignore "workload discovery needs an xDS type that istiod sends to ambient proxies only" { enable_discovery }
        reject "labels of one's own are not supported" { additional_labels }
    });
    if protocol == PROTOCOL {
        Ok(())
    } else {
        Err(Refusal::at(
            "protocol",
            format!("{protocol:?} is not {PROTOCOL}"),
        ))
    }
}
