//! EndpointSlice: the addresses behind a Service.

use std::net::IpAddr;

use mesh_model::object::{Meta, Text};
use mesh_model::workload::Readiness;
use wire_kube::kubernetes::endpoint_slice as wire;

use crate::cx::Cx;
use crate::value::text;

/// The label that names a slice's Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A slice of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub meta: Meta,
    /// Name of the Service, of the same namespace.
    pub service: Text,
    pub ports: Vec<(Text, u16)>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SliceEndpoint {
    pub addresses: Vec<IpAddr>,
    pub readiness: Readiness,
    pub hostname: Option<Text>,
    pub node: Text,
    pub zone: Option<Text>,
    /// Name of the pod.
    pub pod: Option<Text>,
}

pub fn parse(cx: &mut Cx, value: wire::EndpointSlice) -> Option<Slice> {
    let wire::EndpointSlice {
        metadata: _,
        address_type,
        endpoints,
        ports,
    } = value;
    let service = text(cx.meta.labels.value(SERVICE_LABEL).unwrap_or_default())?;
    if address_type == "FQDN" {
        cx.within("addressType", |cx| {
            cx.warning("slices of names are not supported; these endpoints are left out")
        });
        return None;
    }
    let ports = cx.collect("ports", ports, |cx, port| {
        let wire::EndpointPort {
            name,
            protocol: _,
            port,
            app_protocol: _,
        } = port;
        // A port without a number stands for every port, which a proxy cannot offer.
        Some((
            Text::from(name),
            cx.within("port", |cx| cx.port_number(port?))?,
        ))
    });
    let endpoints = cx.collect("endpoints", endpoints, endpoint);
    Some(Slice {
        meta: cx.meta.clone(),
        service,
        ports,
        endpoints,
    })
}

fn endpoint(cx: &mut Cx, value: wire::Endpoint) -> Option<SliceEndpoint> {
    let wire::Endpoint {
        addresses,
        conditions,
        hostname,
        node_name,
        zone,
        target_ref,
    } = value;
    let addresses = cx.collect("addresses", &addresses, |cx, address| {
        match address.parse::<IpAddr>() {
            Ok(ip) => Some(ip),
            Err(_) => {
                cx.error(format!("{address:?} is not an IP address"));
                None
            }
        }
    });
    let wire::EndpointConditions {
        ready,
        serving,
        terminating,
    } = conditions;
    let readiness = match (
        ready.unwrap_or(true),
        serving.or(ready).unwrap_or(true),
        terminating.unwrap_or(false),
    ) {
        (_, true, true) => Readiness::Draining,
        (true, _, false) => Readiness::Ready,
        _ => Readiness::NotReady,
    };
    let pod = target_ref
        .filter(|r| r.kind == "Pod")
        .and_then(|r| text(&r.name));
    Some(SliceEndpoint {
        addresses,
        readiness,
        hostname: text(&hostname),
        node: node_name.into(),
        zone: text(&zone),
        pod,
    })
}
