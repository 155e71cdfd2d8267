//! Sidecar: what a workload's proxy needs to know and listens on (reference row TM-097).

use mesh_model::Host;
use mesh_model::Sidecar;
use mesh_model::sidecar::{
    CaptureMode, Egress, EgressHost, Ingress, NamespacePattern, OutboundMode,
};
use wire_kube::istio::selector::LabelSelector;
use wire_kube::istio::sidecar as wire;

use crate::cx::Cx;
use crate::traffic_policy::connection_pool;
use crate::value::{checked_labels, declared_port, is_dns_label, text};

pub fn parse(cx: &mut Cx, spec: wire::Sidecar) -> Option<Sidecar> {
    let wire::Sidecar {
        workload_selector,
        ingress,
        egress,
        inbound_connection_pool,
        outbound_traffic_policy,
    } = spec;
    let workload_selector = cx.optional("workloadSelector", workload_selector, |cx, selector| {
        let LabelSelector { labels } = selector;
        cx.within("labels", |cx| checked_labels(cx, &labels))
    });
    let in_root = cx.meta.namespace() == &*cx.mesh.root_namespace;
    if in_root && workload_selector.is_some() {
        cx.within("workloadSelector", |cx| cx.warning("a Sidecar of the root namespace with a selector holds for workloads of the root namespace only"));
    }
    if ingress.is_empty()
        && egress.is_empty()
        && inbound_connection_pool.is_none()
        && outbound_traffic_policy.is_none()
    {
        cx.error("at least one of ingress, egress, inboundConnectionPool and outboundTrafficPolicy is needed");
    }
    let ingress = cx.collect("ingress", ingress, ingress_listener);
    for (index, listener) in ingress.iter().enumerate() {
        if ingress
            .iter()
            .take(index)
            .any(|before| before.port.number == listener.port.number)
        {
            cx.error_at(
                "ingress",
                format!("port {} has two listeners", listener.port.number),
            );
        }
    }
    let egress = egress_listeners(cx, egress);
    let outbound = cx.optional(
        "outboundTrafficPolicy",
        outbound_traffic_policy,
        |cx, policy| {
            let wire::OutboundTrafficPolicy { mode, egress_proxy } = policy;
            cx.unsupported("egressProxy", egress_proxy.is_some());
            Some(match mode {
                wire::OutboundMode::RegistryOnly => OutboundMode::RegistryOnly,
                wire::OutboundMode::AllowAny => OutboundMode::AllowAny,
            })
        },
    );
    let inbound_connection_pool = cx.optional(
        "inboundConnectionPool",
        inbound_connection_pool,
        connection_pool,
    );
    Some(Sidecar {
        meta: cx.meta.clone(),
        workload_selector,
        ingress: ingress.into(),
        egress: egress.into(),
        outbound,
        inbound_connection_pool,
    })
}

fn ingress_listener(cx: &mut Cx, value: wire::IngressListener) -> Option<Ingress> {
    let wire::IngressListener {
        port,
        bind,
        capture_mode,
        default_endpoint,
        tls,
        connection_pool: pool,
    } = value;
    cx.unsupported("tls", tls.is_some());
    let Some(port) = port else {
        cx.error_at("port", "is needed");
        return None;
    };
    let port = sidecar_port(cx, port);
    if !default_endpoint.is_empty() {
        let is_unix = default_endpoint.starts_with("unix:///");
        let local = ["127.0.0.1:", "[::1]:", "0.0.0.0:", "[::]:"];
        let port_text = local
            .iter()
            .find_map(|prefix| default_endpoint.strip_prefix(prefix));
        let is_local = port_text.is_some_and(|text| text.parse::<u16>().is_ok_and(|port| port > 0));
        if !is_unix && !is_local {
            cx.error_at("defaultEndpoint", format!("{default_endpoint:?}: write 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix:///path"));
        }
    }
    let connection_pool = cx.optional("connectionPool", pool, connection_pool);
    Some(Ingress {
        port: port?,
        bind: text(&bind),
        capture: capture(capture_mode),
        default_endpoint: text(&default_endpoint),
        connection_pool,
    })
}

fn sidecar_port(cx: &mut Cx, port: wire::SidecarPort) -> Option<mesh_model::Port> {
    let wire::SidecarPort {
        number,
        protocol,
        name,
        target_port,
    } = port;
    cx.within("port", |cx| {
        cx.unsupported("targetPort", target_port != 0);
        declared_port(cx, number, &protocol, &name)
    })
}

fn capture(mode: wire::CaptureMode) -> CaptureMode {
    match mode {
        wire::CaptureMode::Default => CaptureMode::Default,
        wire::CaptureMode::Iptables => CaptureMode::Iptables,
        wire::CaptureMode::None => CaptureMode::None,
    }
}

fn egress_listeners(cx: &mut Cx, egress: Vec<wire::EgressListener>) -> Vec<Egress> {
    let last = egress.len().saturating_sub(1);
    let catch_all = egress.iter().position(|listener| listener.port.is_none());
    if catch_all.is_some_and(|index| index != last) {
        cx.error_at(
            "egress",
            "a listener without a port takes every port, so it must be the last one",
        );
    }
    cx.collect("egress", egress, |cx, listener| {
        let wire::EgressListener {
            port,
            bind,
            capture_mode,
            hosts,
        } = listener;
        if hosts.is_empty() {
            cx.error_at("hosts", "at least one host is needed");
        }
        let port = match port {
            None => None,
            Some(port) => Some(sidecar_port(cx, port)?),
        };
        if port.is_none() && !bind.is_empty() {
            cx.error_at("bind", "needs a port");
        }
        let hosts = cx.collect("hosts", &hosts, |cx, host| egress_host(cx, host));
        Some(Egress {
            port,
            bind: text(&bind),
            capture: capture(capture_mode),
            hosts: hosts.into(),
        })
    })
}

/// `namespace/host`, where the namespace may be `*`, `.` or `~`.
fn egress_host(cx: &mut Cx, written: &str) -> Option<EgressHost> {
    let Some((namespace, host)) = written.split_once('/') else {
        cx.error(format!(
            "{written:?}: write namespace/host, such as ./*, */* or istio-system/*"
        ));
        return None;
    };
    let namespace = match namespace {
        "*" => NamespacePattern::Any,
        "." => NamespacePattern::Own,
        "~" => NamespacePattern::None,
        name if is_dns_label(name) => NamespacePattern::Named(name.into()),
        other => {
            cx.error(format!(
                "{other:?} is neither a namespace nor one of `*`, `.`, `~`"
            ));
            return None;
        }
    };
    match Host::parse(host) {
        Ok(host) => Some(EgressHost { namespace, host }),
        Err(e) => {
            cx.error(e.to_string());
            None
        }
    }
}
