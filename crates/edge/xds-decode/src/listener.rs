//! `envoy.config.listener.v3.Listener` → `Listener`.

use std::{sync::Arc, time::Duration};

use proxy_config::{
    Listener, ListenerName,
    endpoint::EndpointAddress,
    listener::{ListenAddress, TrafficDirection},
};
use wire_envoy::pb::{self, core::TrafficDirection as Direction};

use crate::{
    access_log, address,
    context::Cx,
    judgement::{enumerated, take},
    metadata,
    reject::{Refusal, Within, each},
    scalar,
};

mod chain;
mod filters;

/// Envoy's defaults.
const FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's default of `per_connection_buffer_limit_bytes`.
const BUFFER_LIMIT_BYTES: u32 = 1 << 20;
/// What it costs when no chain of a listener can be trusted.
const CLOSES: &str = "its connections are closed";

/// A listener of which nothing but its addresses can be read takes connections and closes them: an
/// older version of it may let pass what this one was to stop.
pub(crate) fn listener(cx: &mut Cx, value: pb::listener::Listener) -> Result<Listener, Refusal> {
    let bare = pb::listener::Listener {
        name: value.name.clone(),
        address: value.address.clone(),
        additional_addresses: value.additional_addresses.clone(),
        bind_to_port: value.bind_to_port,
        deprecated_v1: value.deprecated_v1,
        use_original_dst: value.use_original_dst,
        transparent: value.transparent,
        traffic_direction: value.traffic_direction,
        stat_prefix: value.stat_prefix.clone(),
        default_filter_chain: Some(pb::listener::FilterChain::default()),
        ..Default::default()
    };
    match whole(cx, value) {
        Err(refusal) if !bare.name.is_empty() => {
            let Ok(bare) = whole(&mut Cx::default(), bare) else {
                return Err(refusal);
            };
            let refused = cx.refuse(bare.name.as_str(), refusal, CLOSES);
            Ok(bare.refusing(refused))
        }
        decoded => decoded,
    }
}

fn whole(cx: &mut Cx, value: pb::listener::Listener) -> Result<Listener, Refusal> {
    take!(cx, value => pb::listener::Listener {
        read {
            name, address, additional_addresses, stat_prefix, filter_chains, use_original_dst, default_filter_chain,
            per_connection_buffer_limit_bytes, metadata, deprecated_v1, listener_filters, listener_filters_timeout,
            continue_on_listener_filters_timeout, transparent, traffic_direction, access_log, tcp_backlog_size, bind_to_port,
        }
        ignore "statistics only" { stats_matcher }
        ignore "chains drain in the same way" { drain_type }
        ignore "buffers above the limit stop reading, without a time limit" { per_connection_buffer_high_watermark_timeout }
        ignore "every worker listens with SO_REUSEPORT" { reuse_port, enable_reuse_port, connection_balance_config }
        ignore "only speeds up connections" { tcp_fast_open_queue_length, max_connections_to_accept_per_socket_event, enable_mptcp }
        ignore "connection limits are the process's own" { ignore_global_conn_limit, bypass_overload_manager }
        ignore "the operating system's keepalive holds towards clients" { tcp_keepalive }
        ignore "the address is bound when it is there" { freebind }
        reject "chains come with their listener" { fcds_config }
        reject "chains are matched by filter_chain_match" { filter_chain_matcher }
        reject "socket options of listeners are not supported" { socket_options }
        reject "UDP and QUIC are not supported" { udp_listener_config }
        reject "API listeners are for gRPC clients" { api_listener }
        reject "internal listeners are not supported" { listener_specifier }
    });
    let name = ListenerName::parse(name).map_err(|e| Refusal::at("name", e.to_string()))?;
    let deprecated_bind = deprecated_v1
        .and_then(|pb::listener::listener::DeprecatedV1 { bind_to_port }| bind_to_port);
    let chains: Arc<[_]> = cx.each("filter_chains", filter_chains, |cx, c| {
        chain::chain(cx, c).map(Arc::new)
    })?;
    let default_chain = default_filter_chain
        .map(|c| {
            cx.within("default_filter_chain", |cx| {
                chain::chain(cx, c).map(Arc::new)
            })
        })
        .transpose()?;
    if chains.is_empty() && default_chain.is_none() {
        return Err(Refusal::missing("filter_chains"));
    }
    Ok(Listener {
        name,
        addresses: addresses(cx, address, additional_addresses)?,
        bind_to_port: scalar::flag_or(bind_to_port.or(deprecated_bind), true),
        use_original_dst: scalar::flag_or(use_original_dst, false),
        transparent: scalar::flag_or(transparent, false),
        listener_filters: each::<_, _, Vec<_>>("listener_filters", listener_filters, |f| {
            filters::listener_filter(cx, f)
        })?
        .into_iter()
        .flatten()
        .collect(),
        listener_filters_timeout: scalar::limit(
            "listener_filters_timeout",
            listener_filters_timeout,
            Some(FILTERS_TIMEOUT),
        )?,
        continue_on_listener_filters_timeout,
        chains,
        default_chain,
        direction: direction(traffic_direction)?,
        access_logs: access_log::access_logs(cx, "access_log", access_log)?,
        per_connection_buffer_limit_bytes: scalar::count_or(
            per_connection_buffer_limit_bytes,
            BUFFER_LIMIT_BYTES,
        ),
        tcp_backlog: scalar::count(tcp_backlog_size),
        stat_prefix: scalar::text(stat_prefix),
        metadata: metadata::metadata(cx, metadata).within("metadata")?,
    })
}

fn direction(number: i32) -> Result<TrafficDirection, Refusal> {
    Ok(
        match enumerated!(number => Direction, "traffic_direction")? {
            Direction::Unspecified => TrafficDirection::Unspecified,
            Direction::Inbound => TrafficDirection::Inbound,
            Direction::Outbound => TrafficDirection::Outbound,
        },
    )
}

fn addresses(
    cx: &mut Cx,
    first: Option<pb::core::Address>,
    others: Vec<pb::listener::AdditionalAddress>,
) -> Result<Arc<[ListenAddress]>, Refusal> {
    let mut addresses = vec![listen_address(cx, first).within("address")?];
    addresses.extend(each::<_, _, Vec<_>>(
        "additional_addresses",
        others,
        |value| {
            take!(cx, value => pb::listener::AdditionalAddress {
                read { address }
                ignore "the operating system's keepalive holds towards clients" { tcp_keepalive }
                reject "socket options of listeners are not supported" { socket_options }
            });
            listen_address(cx, address).within("address")
        },
    )?);
    Ok(addresses.into())
}

fn listen_address(cx: &mut Cx, value: Option<pb::core::Address>) -> Result<ListenAddress, Refusal> {
    Ok(match address::literal(cx, value)? {
        EndpointAddress::Socket(address) => ListenAddress::Socket(address),
        EndpointAddress::Pipe(path) => ListenAddress::Pipe(path),
    })
}

#[cfg(test)]
mod tests;
