//! Destinations and their weights, the same for HTTP, TLS and TCP routes.

use mesh_model::virtual_service::Destination;
use wire_kube::istio::virtual_service as wire;

use crate::cx::Cx;
use crate::value::text;

pub(super) fn destination(cx: &mut Cx, value: Option<wire::Destination>) -> Option<Destination> {
    let Some(wire::Destination { host, subset, port }) = value else {
        cx.error_at("destination", "is needed");
        return None;
    };
    cx.within("destination", |cx| {
        destination_here(cx, wire::Destination { host, subset, port })
    })
}

pub(super) fn destination_here(cx: &mut Cx, value: wire::Destination) -> Option<Destination> {
    let wire::Destination { host, subset, port } = value;
    if host == "*" {
        cx.error_at("host", "`*` is not a destination: name one host");
        return None;
    }
    if !subset.is_empty() && !is_subset_name(&subset) {
        cx.error_at("subset", format!("{subset:?} is not the name of a subset"));
    }
    let port = match port {
        None => None,
        Some(wire::PortSelector { number }) => Some(cx.within("port", |cx| {
            cx.within("number", |cx| cx.port_number(number))
        })?),
    };
    let host = cx.host_at("host", &host)?;
    if !host.as_str().contains('.') && host.as_str().parse::<std::net::IpAddr>().is_err() {
        cx.error_at("host", format!("{host} is not a host"));
    }
    Some(Destination {
        host,
        subset: text(&subset),
        port,
    })
}

/// Checks the weights of one route; the answer is the weight to take for each destination.
pub(super) fn check_weights(cx: &mut Cx, weights: &[i32]) -> Vec<u32> {
    let several = weights.len() > 1;
    let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
    let out = cx.each("route", weights, |cx, weight| {
        match u32::try_from(*weight) {
            Err(_) => {
                cx.error_at(
                    "weight",
                    format!("route weight {weight}: weights must not be negative"),
                );
                0
            }
            Ok(weight) => weight,
        }
    });
    if several && weights.iter().all(|w| *w == 0) {
        cx.error_at("route", "weights of one route must not all be 0");
    } else if total > i64::from(u32::MAX) {
        cx.error_at(
            "route",
            format!("weights add up to {total}, which is more than {}", u32::MAX),
        );
    } else if several && total > 100 && weights.iter().all(|w| *w >= 0) {
        cx.within("route", |cx| {
            cx.warning(format!(
                "weights add up to {total}: each is taken as its share of {total}"
            ))
        });
    }
    if several {
        out
    } else {
        out.iter().map(|_| 100).collect()
    }
}

/// The names that DestinationRule gives: letters, digits, `-`, `_`, `.`.
fn is_subset_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
