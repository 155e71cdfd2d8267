//! Service → the mesh's service. Its protocol comes from `appProtocol`, then from the port's name (reference row TM-110).

use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::Host;
use mesh_model::object::{ExportTo, Selector, Text};
use mesh_model::port::{Port, Protocol};
use mesh_model::service::{Location, Resolution, Service, ServicePort, TargetPort};
use wire_kube::kubernetes::service as wire;
use wire_kube::read::IntOrText;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{export_to, labels, parse_network, protocol};

/// Lists the namespaces that see a Service.
pub const EXPORT_TO_ANNOTATION: &str = "networking.istio.io/exportTo";

pub fn parse(cx: &mut Cx, value: wire::Service) -> Option<Service> {
    let wire::Service {
        metadata: _,
        spec,
        status: _,
    } = value;
    let export_to = exports(cx);
    cx.within("spec", |cx| {
        #[rustfmt::skip]
        let wire::ServiceSpec {
            r#type, ports, selector, cluster_ip, cluster_ips,
            // Addresses that the cluster's own network takes care of.
            external_ips: _, external_name, publish_not_ready_addresses, session_affinity,
            internal_traffic_policy, traffic_distribution,
        } = spec;
        cx.unsupported("trafficDistribution", !traffic_distribution.is_empty());
        let (name, namespace) = (cx.meta.name(), cx.meta.namespace());
        let host = Host::parse(&format!(
            "{name}.{namespace}.svc.{}",
            cx.mesh.cluster_domain
        ))
        .ok()?;
        let ports = cx.collect("ports", ports, service_port);
        let headless = cluster_ip == "None";
        let addresses: Vec<IpNet> = if cluster_ips.is_empty() {
            std::slice::from_ref(&cluster_ip)
        } else {
            &cluster_ips
        }
        .iter()
        .filter_map(|ip| parse_network(ip))
        .collect();
        let alias_of = (r#type == "ExternalName")
            .then(|| cx.host_at("externalName", &external_name))
            .flatten();
        Some(Service {
            meta: cx.meta.clone(),
            host,
            name: cx.meta.object.name.clone(),
            ports: ports.into(),
            addresses: addresses.into(),
            resolution: if headless {
                Resolution::Passthrough
            } else {
                Resolution::ClientSide
            },
            location: Location::MeshInternal,
            export_to,
            publish_not_ready: publish_not_ready_addresses,
            selector: (!selector.is_empty()).then(|| Selector(labels(&selector))),
            subject_alt_names: Arc::new([]),
            alias_of,
            node_local: internal_traffic_policy == "Local",
            session_affinity_client_ip: session_affinity == "ClientIP",
        })
    })
}

/// The namespaces that its annotation lists.
fn exports(cx: &mut Cx) -> ExportTo {
    let list = cx.meta.annotations.value(EXPORT_TO_ANNOTATION);
    let names = list.into_iter().flat_map(|list| list.split(','));
    let names: Vec<String> = names.map(|n| n.trim().to_owned()).collect();
    let default = &cx.mesh.default_service_export_to;
    cx.within("metadata", |cx| {
        cx.within("annotations", |cx| {
            export_to(cx, EXPORT_TO_ANNOTATION, &names, default)
        })
    })
}

fn service_port(cx: &mut Cx, value: wire::ServicePort) -> Option<ServicePort> {
    let wire::ServicePort {
        name,
        protocol: transport,
        app_protocol,
        port,
        target_port,
        node_port,
    } = value;
    let number = cx.within("port", |cx| cx.port_number(port))?;
    let protocol = protocol(&app_protocol, &name, number, &transport);
    if protocol == Protocol::Auto {
        let message = format!(
            "port {number} does not say its protocol: it is found out from the traffic; name it http-…, tcp-…, grpc-…, or set appProtocol"
        );
        cx.within("name", |cx| {
            cx.report(Severity::Info, code::PORT_NAME, message)
        });
    }
    let target = match target_port {
        None | Some(IntOrText::Int(0)) => TargetPort::Number(number),
        Some(IntOrText::Int(target)) => TargetPort::Number(cx.within("targetPort", |cx| {
            cx.port_number(u32::try_from(target).unwrap_or(0))
        })?),
        Some(IntOrText::Text(text)) => match text.parse::<u16>() {
            Ok(target) => TargetPort::Number(target),
            Err(_) => TargetPort::Named(text.into()),
        },
    };
    let node_port = node_port
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0);
    Some(ServicePort {
        port: Port {
            number,
            name: Text::from(name),
            protocol,
        },
        target,
        node_port,
    })
}
