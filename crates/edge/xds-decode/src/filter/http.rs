//! HTTP filters of a connection manager, and what routes change of them.

use std::{collections::HashMap, sync::Arc};

use proxy_config::{
    HttpFilter, Refused,
    filter::{HttpFilterKind, PerRouteConfig, PerRouteFilter, RouterOptions},
};
use wire_envoy::pb::{
    self, Any,
    hcm::http_filter::ConfigType,
    http_filters::{
        cors::v3::{Cors, CorsPolicy},
        fault::v3::HttpFault,
        grpc_stats::v3::FilterConfig as GrpcStats,
        local_ratelimit::v3::LocalRateLimit,
        rbac::v3::{Rbac, RbacPerRoute},
        router::v3::Router,
    },
};

use super::{alpn, cors, fault, istio_stats, local_rate_limit, peer_metadata, rbac};
use crate::{
    context::Cx,
    extension::Extension,
    judgement::take,
    left_out::left_out,
    reject::{Refusal, Within},
    scalar,
};

/// What it costs when a filter cannot be read.
const ANSWERS: &str = "requests that come to it are answered 503";

/// In order; the last must be the router, and nothing else may be. A filter that cannot be read
/// answers the requests that come to it.
pub(crate) fn http_filters(
    cx: &mut Cx,
    values: Vec<pb::hcm::HttpFilter>,
) -> Result<Arc<[HttpFilter]>, Refusal> {
    let found: Vec<Option<HttpFilter>> = cx.each("http_filters", values, |cx, value| {
        let (name, disabled) = (value.name.clone(), value.disabled);
        Ok(http_filter(cx, value).unwrap_or_else(|refusal| {
            Some(HttpFilter {
                kind: HttpFilterKind::Refused(cx.refuse(&name, refusal, ANSWERS)),
                name: name.into(),
                disabled,
            })
        }))
    })?;
    let filters: Vec<HttpFilter> = found.into_iter().flatten().collect();
    let routers = filters
        .iter()
        .filter(|f: &&HttpFilter| matches!(f.kind, HttpFilterKind::Router(_)))
        .count();
    if let Some(HttpFilterKind::Refused(_)) = filters.last().map(|f| &f.kind)
        && routers == 0
    {
        // It may have been the router; it answers all requests.
        return Ok(with_router(filters));
    }
    match filters.last().map(|f| &f.kind) {
        Some(HttpFilterKind::Router(_)) if routers == 1 => Ok(filters.into()),
        _ => Err(Refusal::at(
            "http_filters",
            "the last filter, and only that, must be the router",
        )),
    }
}

/// One filter that answers all requests, and the router that Envoy wants behind it.
pub(crate) fn refusing(refused: Arc<Refused>) -> Arc<[HttpFilter]> {
    with_router(vec![HttpFilter {
        name: refused.name.clone(),
        kind: HttpFilterKind::Refused(refused),
        disabled: false,
    }])
}

fn with_router(mut filters: Vec<HttpFilter>) -> Arc<[HttpFilter]> {
    filters.push(HttpFilter {
        name: "envoy.filters.http.router".into(),
        kind: HttpFilterKind::Router(RouterOptions::default()),
        disabled: false,
    });
    filters.into()
}

/// `None` for a filter that is left out.
fn http_filter(cx: &mut Cx, value: pb::hcm::HttpFilter) -> Result<Option<HttpFilter>, Refusal> {
    take!(cx, value => pb::hcm::HttpFilter { read { name, is_optional, disabled, config_type } });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(Refusal::at(
                "config_discovery",
                "filters by reference are not supported",
            ));
        }
        None => return Err(Refusal::missing("typed_config")),
    };
    let extension = Extension::open(&any).within("typed_config")?;
    if let Some(lost) = left_out(&extension.name) {
        cx.note_text(extension.name, lost);
        return Ok(None);
    }
    match kind(cx, &extension).within("typed_config")? {
        Some(kind) => Ok(Some(HttpFilter {
            name: name.into(),
            kind,
            disabled,
        })),
        None if is_optional => {
            cx.note_text(extension.name, "left out: is_optional");
            Ok(None)
        }
        None => Err(extension.unknown("as an HTTP filter").under("typed_config")),
    }
}

/// `None` for a type that is not known.
fn kind(cx: &mut Cx, extension: &Extension) -> Result<Option<HttpFilterKind>, Refusal> {
    Ok(Some(
        if extension.is::<pb::istio::peer_metadata::Config>() {
            HttpFilterKind::PeerMetadata(Arc::new(peer_metadata::peer_metadata(cx, extension)?))
        } else if extension.is::<pb::istio::stats::PluginConfig>() {
            let message = extension.message(cx)?;
            HttpFilterKind::IstioStats(Arc::new(istio_stats::stats(cx, message)?))
        } else if extension.is::<pb::istio::alpn::FilterConfig>() {
            let message = extension.message(cx)?;
            HttpFilterKind::Alpn(Arc::new(alpn::alpn(cx, message)?))
        } else if extension.is::<Rbac>() {
            let message = extension.message(cx)?;
            HttpFilterKind::Rbac(Arc::new(rbac::http(cx, message)?))
        } else if extension.is::<HttpFault>() {
            let message = extension.message(cx)?;
            HttpFilterKind::Fault(Arc::new(fault::fault(cx, message)?))
        } else if extension.is::<Cors>() {
            let message: Cors = extension.message(cx)?;
            take!(cx, message => Cors {});
            HttpFilterKind::Cors
        } else if extension.is::<LocalRateLimit>() {
            let message = extension.message(cx)?;
            HttpFilterKind::LocalRateLimit(Arc::new(local_rate_limit::http(cx, message)?))
        } else if extension.is::<GrpcStats>() {
            let message: GrpcStats = extension.message(cx)?;
            take!(cx, message => GrpcStats {
                ignore "nothing reads this filter's state" { emit_filter_state }
                ignore "statistics only" { enable_upstream_stats, replace_dots_in_grpc_service_name, per_method_stat_specifier }
            });
            HttpFilterKind::GrpcStats
        } else if extension.is::<Router>() {
            let message = extension.message(cx)?;
            HttpFilterKind::Router(router(cx, message)?)
        } else {
            return Ok(None);
        },
    ))
}

fn router(cx: &mut Cx, value: Router) -> Result<RouterOptions, Refusal> {
    take!(cx, value => Router {
        read { suppress_envoy_headers }
        ignore "statistics only" { dynamic_stats, suppress_grpc_request_failure_code_stats }
        ignore "one span stands for a request and its upstream's part of it" { start_child_span }
        ignore "the route's time limit holds, whatever the caller expects" { respect_expected_rq_timeout }
        ignore "a log line of each attempt is not written" { upstream_log, upstream_log_options }
        ignore "data before the tunnel stands is held back" { reject_connect_request_early_data }
        reject "headers are not checked strictly" { strict_check_headers }
        reject "upstream HTTP filters are not supported" { upstream_http_filters }
    });
    Ok(RouterOptions {
        suppress_envoy_headers,
    })
}

/// `typed_per_filter_config`, in the order of names.
pub(crate) fn per_route(
    cx: &mut Cx,
    values: HashMap<String, Any>,
) -> Result<Arc<[PerRouteFilter]>, Refusal> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    let mut filters = Vec::new();
    for (name, any) in values {
        if let Some(config) = route_config(cx, &any).within_key("typed_per_filter_config", &name)? {
            filters.push(PerRouteFilter {
                name: name.into(),
                config,
            });
        }
    }
    Ok(filters.into())
}

/// `None` for a configuration that says nothing.
fn route_config(cx: &mut Cx, any: &Any) -> Result<Option<PerRouteConfig>, Refusal> {
    let extension = Extension::open(any)?;
    if extension.is::<pb::route::FilterConfig>() {
        let message: pb::route::FilterConfig = extension.message(cx)?;
        take!(cx, message => pb::route::FilterConfig { read { config, is_optional, disabled } });
        if disabled {
            return Ok(Some(PerRouteConfig::Disabled));
        }
        return match config {
            None => Ok(None),
            Some(inner) => match route_config(cx, &inner) {
                Err(_) if is_optional => {
                    cx.note_text(inner.type_url, "left out on a route: is_optional");
                    Ok(None)
                }
                other => other.within("config"),
            },
        };
    }
    Ok(Some(if extension.is::<HttpFault>() {
        let message = extension.message(cx)?;
        PerRouteConfig::Fault(Arc::new(fault::fault(cx, message)?))
    } else if extension.is::<CorsPolicy>() {
        let message = extension.message(cx)?;
        PerRouteConfig::Cors(Arc::new(cors::policy(cx, message)?))
    } else if extension.is::<RbacPerRoute>() {
        let message: RbacPerRoute = extension.message(cx)?;
        take!(cx, message => RbacPerRoute { read { rbac } });
        PerRouteConfig::Rbac(
            rbac.map(|r| super::rbac::http(cx, r).map(Arc::new))
                .transpose()
                .within("rbac")?,
        )
    } else if extension.is::<LocalRateLimit>() {
        let message = extension.message(cx)?;
        PerRouteConfig::LocalRateLimit(Arc::new(local_rate_limit::http(cx, message)?))
    } else {
        return Err(extension.unknown("on a route"));
    }))
}

/// Istio sends WebSocket upgrades with no filters of their own.
pub(crate) fn upgrade(
    value: pb::hcm::http_connection_manager::UpgradeConfig,
) -> Result<proxy_config::upgrade::Upgrade, Refusal> {
    let pb::hcm::http_connection_manager::UpgradeConfig {
        upgrade_type,
        filters,
        enabled,
    } = value;
    if !filters.is_empty() {
        return Err(Refusal::at(
            "filters",
            "filters of an upgrade are not supported",
        ));
    }
    Ok(proxy_config::upgrade::Upgrade {
        kind: upgrade_kind(&upgrade_type)?,
        enabled: scalar::flag_or(enabled, true),
    })
}

pub(crate) fn upgrade_kind(kind: &str) -> Result<Arc<str>, Refusal> {
    if kind.is_empty() {
        return Err(Refusal::missing("upgrade_type"));
    }
    Ok(if kind.eq_ignore_ascii_case("connect") {
        "CONNECT".into()
    } else {
        kind.to_ascii_lowercase().into()
    })
}
