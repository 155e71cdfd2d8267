//! Network filters of a chain.

use std::sync::Arc;

use proxy_config::{
    HttpConnectionManager,
    filter::{NetworkFilter, TcpTerminal},
};
use wire_envoy::pb::{
    self,
    listener::filter::ConfigType,
    network_filters::{
        local_ratelimit::v3::LocalRateLimit, rbac::v3::Rbac, sni_cluster::v3::SniCluster,
    },
};

use super::{istio_stats, local_rate_limit, peer_metadata, rbac};
use crate::{
    context::Cx, extension::Extension, http_connection_manager, judgement::take, reject::Refusal,
    tcp_proxy,
};

/// What it costs when a filter cannot be read.
const CLOSES: &str = "connections of its chain are closed";

/// A filter before the last, or one of those that end a chain.
pub(crate) enum Network {
    Before(NetworkFilter),
    Http(Arc<HttpConnectionManager>),
    Tcp(Arc<TcpTerminal>),
}

/// A filter that cannot be read closes the connections that come to it.
pub(crate) fn network(cx: &mut Cx, value: pb::listener::Filter) -> Result<Network, Refusal> {
    let pb::listener::Filter { name, config_type } = value;
    Ok(configured(cx, config_type).unwrap_or_else(|refusal| {
        Network::Before(NetworkFilter::Refused(cx.refuse(&name, refusal, CLOSES)))
    }))
}

fn configured(cx: &mut Cx, config_type: Option<ConfigType>) -> Result<Network, Refusal> {
    match config_type {
        Some(ConfigType::TypedConfig(any)) => cx.within("typed_config", |cx| {
            Extension::open(&any).and_then(|e| opened(cx, &e))
        }),
        Some(ConfigType::ConfigDiscovery(_)) => Err(Refusal::at(
            "config_discovery",
            "filters by reference are not supported",
        )),
        None => Err(Refusal::missing("typed_config")),
    }
}

fn opened(cx: &mut Cx, extension: &Extension) -> Result<Network, Refusal> {
    let before = |filter| Ok(Network::Before(filter));
    if extension.is::<pb::hcm::HttpConnectionManager>() {
        let message = extension.message(cx)?;
        let manager = match http_connection_manager::manager(cx, message) {
            Ok(manager) => manager,
            Err(refusal) => {
                let message = extension.message(cx)?;
                http_connection_manager::refusing(cx, message, refusal)?
            }
        };
        Ok(Network::Http(Arc::new(manager)))
    } else if extension.is::<pb::tcp_proxy::TcpProxy>() {
        let message = extension.message(cx)?;
        tcp_proxy::tcp_proxy(cx, message).map(|proxy| Network::Tcp(Arc::new(TcpTerminal { proxy })))
    } else if extension.is::<pb::istio::metadata_exchange::MetadataExchange>() {
        peer_metadata::exchange(cx, extension)?;
        before(NetworkFilter::MetadataExchange)
    } else if extension.is::<pb::istio::stats::PluginConfig>() {
        let message = extension.message(cx)?;
        before(NetworkFilter::IstioStats(Arc::new(istio_stats::stats(
            cx, message,
        )?)))
    } else if extension.is::<Rbac>() {
        let message = extension.message(cx)?;
        before(NetworkFilter::Rbac(Arc::new(rbac::network(cx, message)?)))
    } else if extension.is::<LocalRateLimit>() {
        let message = extension.message(cx)?;
        before(NetworkFilter::LocalRateLimit(Arc::new(
            local_rate_limit::network(cx, message)?,
        )))
    } else if extension.is::<SniCluster>() {
        let message: SniCluster = extension.message(cx)?;
        take!(cx, message => SniCluster {});
        before(NetworkFilter::SniCluster)
    } else {
        Err(extension.unknown("as a network filter"))
    }
}
