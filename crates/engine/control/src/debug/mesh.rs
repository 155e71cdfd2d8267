//! Pages about the mesh: its configuration, services and endpoints.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use mesh_model::{
    MeshConfig, Service,
    mesh_config::{AccessLogFile, AccessLogFormat, ExportToDefault, ExtensionProvider},
    object::Text,
    service::{Location, Resolution},
    sidecar::OutboundMode,
    workload::{Endpoint, EndpointAddress, Readiness},
};
use serde_json::{Map, Value, json};
use wire_kube::kinds::{KINDS, Support};

use super::pages::Pages;

/// The only cluster.
const CLUSTER: &str = "Kubernetes";

pub(super) async fn clusterz() -> Json<Value> {
    Json(json!([{"id": CLUSTER, "secretName": "", "syncStatus": "synced"}]))
}

/// Objects of Istio's kinds as they were written.
pub(super) async fn configz(State(pages): State<Pages>) -> Json<Value> {
    let objects = pages.objects.borrow().clone();
    Json(objects.iter().map(|object| (**object).clone()).collect())
}

/// The kinds that are watched.
pub(super) async fn resourcesz() -> Json<Value> {
    let watched = KINDS
        .iter()
        .filter(|info| info.support != Support::RuntimeOnly);
    let row = |info: &wire_kube::kinds::KindInfo| {
        let version = info.versions.first().copied().unwrap_or_default();
        json!({"group": info.group, "version": version, "kind": info.kind})
    };
    Json(watched.map(row).collect())
}

/// Services with their ports and addresses.
pub(super) async fn registryz(State(pages): State<Pages>) -> Json<Value> {
    let snapshot = pages.snapshots.borrow().clone();
    let services = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.services.values())
        .flat_map(|declared| declared.iter());
    Json(services.map(|service| service_row(service)).collect())
}

fn service_row(service: &Service) -> Value {
    let ports = service.ports.iter().map(|p| json!({"name": &*p.port.name, "port": p.port.number, "protocol": p.port.protocol.as_str()}));
    let addresses: Vec<String> = service
        .addresses
        .iter()
        .map(|net| match net.prefix_len() == net.max_prefix_len() {
            true => net.addr().to_string(),
            false => net.to_string(),
        })
        .collect();
    // istiod's shows services without an address as this one.
    let default = addresses.first().map_or("0.0.0.0", String::as_str);
    let is_kubernetes = &*service.meta.object.kind == "Service";
    let labels: BTreeMap<&str, &str> = service.meta.labels.iter().collect();
    let selector: Option<BTreeMap<&str, &str>> =
        service.selector.as_ref().map(|s| s.0.iter().collect());
    json!({
        "Attributes": {
            "ServiceRegistry": if is_kubernetes { "Kubernetes" } else { "External" },
            "Name": &*service.name,
            "Namespace": service.namespace(),
            "Labels": labels,
            "LabelSelectors": selector,
            "PublishNotReadyAddresses": service.publish_not_ready,
            "NodeLocal": service.node_local,
        },
        "ports": ports.collect::<Vec<_>>(),
        "hostname": service.host.as_str(),
        "clusterVIPs": {"Addresses": {CLUSTER: addresses}},
        "defaultAddress": default,
        "Resolution": resolution_number(service.resolution),
        "MeshExternal": service.location == Location::MeshExternal,
    })
}

/// Numbers of istiod's `Resolution`.
fn resolution_number(resolution: Resolution) -> u8 {
    match resolution {
        Resolution::ClientSide => 0,
        Resolution::Dns => 1,
        Resolution::Passthrough => 2,
        Resolution::DnsRoundRobin => 3,
        Resolution::DynamicDns => 5,
    }
}

/// Host → namespace → endpoints.
pub(super) async fn endpoint_shards(State(pages): State<Pages>) -> Json<Value> {
    let Some(snapshot) = pages.snapshots.borrow().clone() else {
        return Json(json!({}));
    };
    let mut hosts: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for service in snapshot.services.values().flat_map(|list| list.iter()) {
        let Some(endpoints) = snapshot.endpoints_of(service) else {
            continue;
        };
        let port_name = |number: u16| service.port(number).map(|p| &*p.port.name);
        let mut rows = Vec::new();
        let mut accounts = Map::new();
        for (number, listed) in &endpoints.ports {
            for endpoint in listed.iter() {
                if let Some(identity) = &endpoint.identity {
                    accounts.insert(identity.to_string(), json!({}));
                }
                rows.push(endpoint_row(
                    endpoint,
                    port_name(*number).unwrap_or_default(),
                ));
            }
        }
        let shards =
            json!({"Shards": {format!("{CLUSTER}/{CLUSTER}"): rows}, "ServiceAccounts": accounts});
        hosts
            .entry(service.host.as_str())
            .or_default()
            .insert(service.namespace().to_owned(), shards);
    }
    Json(json!(hosts))
}

fn endpoint_row(endpoint: &Endpoint, port_name: &str) -> Value {
    let Endpoint {
        address,
        port,
        ready,
        labels,
        locality,
        weight,
        mesh_tls,
        identity,
        namespace,
        workload_name,
        canonical_name: _,
        canonical_revision: _,
        network,
        cluster,
        node,
        hostname,
    } = endpoint;
    let address = match address {
        EndpointAddress::Ip(ip) => ip.to_string(),
        EndpointAddress::Name(name) => name.to_string(),
        EndpointAddress::Unix(path) => path.to_string(),
    };
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let locality = parts.map(|part| part.as_deref().unwrap_or_default());
    // istiod's numbers of health.
    let health = match ready {
        Readiness::Ready => 1,
        Readiness::NotReady => 2,
        Readiness::Draining => 3,
    };
    let labels: BTreeMap<&str, &str> = labels.iter().collect();
    json!({
        "Labels": labels,
        "Addresses": [address],
        "ServicePortName": port_name,
        "ServiceAccount": identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        "Network": &**network,
        "Locality": {"Label": locality.join("/"), "ClusterID": &**cluster},
        "EndpointPort": port,
        "LbWeight": weight,
        "TLSMode": if *mesh_tls { "istio" } else { "disabled" },
        "Namespace": &**namespace,
        "WorkloadName": &**workload_name,
        "HostName": hostname.as_deref().unwrap_or_default(),
        "HealthStatus": health,
        "NodeName": &**node,
    })
}

/// The mesh configuration in force, under MeshConfig's names; what is at its default because nobody
/// set it is shown too.
pub(super) async fn mesh(State(pages): State<Pages>) -> Json<Value> {
    let snapshot = pages.snapshots.borrow().clone();
    Json(snapshot.map_or_else(|| json!({}), |snapshot| mesh_json(&snapshot.mesh)))
}

fn mesh_json(mesh: &MeshConfig) -> Value {
    let aliases: Vec<&str> = mesh
        .trust_domain_aliases
        .iter()
        .map(|d| d.as_str())
        .collect();
    let mut page = json!({
        "proxyListenPort": mesh.proxy_listen_port,
        "proxyInboundListenPort": mesh.proxy_inbound_listen_port,
        "connectTimeout": seconds(mesh.connect_timeout),
        "protocolDetectionTimeout": seconds(mesh.protocol_detection_timeout.unwrap_or_default()),
        "enableTracing": mesh.enable_tracing,
        "defaultConfig": {
            "drainDuration": seconds(mesh.drain),
            "terminationDrainDuration": seconds(mesh.termination_drain),
            "tracing": {"sampling": f64::from(mesh.tracing_sampling.value()) / 10_000.0},
            "gatewayTopology": {"numTrustedProxies": mesh.gateway_trusted_proxies},
        },
        "outboundTrafficPolicy": {"mode": match mesh.outbound {
            OutboundMode::AllowAny => "ALLOW_ANY",
            OutboundMode::RegistryOnly => "REGISTRY_ONLY",
        }},
        "enableAutoMtls": mesh.auto_mtls,
        "trustDomain": mesh.trust_domain.as_str(),
        "trustDomainAliases": aliases,
        "rootNamespace": &*mesh.root_namespace,
        "defaultServiceExportTo": export(&mesh.default_service_export_to),
        "defaultVirtualServiceExportTo": export(&mesh.default_virtual_service_export_to),
        "defaultDestinationRuleExportTo": export(&mesh.default_destination_rule_export_to),
        "dnsRefreshRate": seconds(mesh.dns_refresh_rate),
        "enablePrometheusMerge": mesh.enable_prometheus_merge,
        "disableEnvoyListenerLog": mesh.disable_listener_log,
        "localityLbSetting": {"enabled": mesh.locality_lb.enabled.unwrap_or(true)},
        "extensionProviders": mesh.extension_providers.iter().map(|provider| {
            let ExtensionProvider { name, kind: _ } = provider;
            json!({"name": &**name})
        }).collect::<Vec<_>>(),
        "defaultProviders": {
            "accessLogging": names(&mesh.default_providers.access_logging),
            "tracing": names(&mesh.default_providers.tracing),
            "metrics": names(&mesh.default_providers.metrics),
        },
    });
    if let (Some(log), Some(page)) = (&mesh.access_log, page.as_object_mut()) {
        let AccessLogFile { path, format, json } = log;
        page.insert("accessLogFile".into(), json!(&**path));
        page.insert(
            "accessLogEncoding".into(),
            json!(if *json { "JSON" } else { "TEXT" }),
        );
        if let Some(AccessLogFormat::Text(text) | AccessLogFormat::Json(text)) = format {
            page.insert("accessLogFormat".into(), json!(&**text));
        }
    }
    page
}

fn names(list: &[Text]) -> Vec<&str> {
    list.iter().map(|name| &**name).collect()
}

fn export(default: &ExportToDefault) -> Vec<String> {
    match default {
        ExportToDefault::All => vec!["*".into()],
        ExportToDefault::Own => vec![".".into()],
        ExportToDefault::None => vec!["~".into()],
        ExportToDefault::Namespaces(names) => names.iter().map(|n| n.to_string()).collect(),
    }
}

/// As proto3 JSON writes durations: `10s`, `0.500s`.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    }
}
