//! What people can open: the published ports of the mesh, and behind a gateway the pages that VirtualServices serve there.

use anyhow::Result;
use serde_json::Value;

use crate::api::{Api, Filter};
use crate::kind::Kind;
use crate::object::{list, name, namespace, text};

/// Pages of one VirtualService that are shown.
const MAX_PAGES: usize = 1;
/// The gateway's own health: of no interest to people.
const STATUS_PORT: u64 = 15_021;

/// An address with what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub url: String,
    pub what: String,
}

/// The objects that pages come from.
#[derive(Debug, Default)]
struct Objects {
    services: Vec<Value>,
    gateways: Vec<Value>,
    virtual_services: Vec<Value>,
}

/// Asks the runtime for the objects behind the ports in its summary.
pub async fn find(api: &Api, summary: &Value) -> Result<Vec<Page>> {
    let (gateways, routes) = (
        Kind::typed("gateways.networking.istio.io")?,
        Kind::typed("vs")?,
    );
    let objects = Objects {
        services: api.list(&Kind::services(), None, Filter::default()).await?,
        gateways: api.list(&gateways, None, Filter::default()).await?,
        virtual_services: api.list(&routes, None, Filter::default()).await?,
    };
    Ok(pages(summary, &objects))
}

fn pages(summary: &Value, objects: &Objects) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    for entry in list(summary, "/urls") {
        let port = entry.get("port").and_then(Value::as_u64).unwrap_or(0);
        if port != STATUS_PORT && text(entry, "/name") != "status-port" {
            pages.extend(of_port(entry, port, objects));
        }
    }
    pages.dedup();
    pages
}

fn of_port(entry: &Value, port: u64, objects: &Objects) -> Vec<Page> {
    let (own, address, port_name) = (
        text(entry, "/service"),
        text(entry, "/address"),
        text(entry, "/name"),
    );
    let service = objects
        .services
        .iter()
        .find(|service| format!("{}/{}", namespace(service), name(service)) == own);
    let plain = || {
        let what = if port_name.is_empty() {
            port.to_string()
        } else {
            port_name.to_owned()
        };
        vec![Page {
            url: format!("{}{address}", scheme(port_name, port)),
            what: format!("Service {own} ({what})"),
        }]
    };
    let Some(service) = service else {
        return plain();
    };
    let gateways: Vec<&Value> = objects
        .gateways
        .iter()
        .filter(|gateway| selects(gateway, service))
        .collect();
    if gateways.is_empty() {
        return plain();
    }
    let target = target_port(service, port);
    let mut pages = Vec::new();
    for gateway in gateways {
        let number = |server: &Value| server.pointer("/port/number").and_then(Value::as_u64);
        for server in list(gateway, "/spec/servers")
            .iter()
            .filter(|server| number(server) == Some(port) || number(server) == target)
        {
            pages.extend(of_server(gateway, server, address, objects));
        }
    }
    // Without a server on this port nobody answers there.
    pages
}

fn of_server(gateway: &Value, server: &Value, address: &str, objects: &Objects) -> Vec<Page> {
    let protocol = text(server, "/port/protocol").to_ascii_uppercase();
    let scheme = match protocol.as_str() {
        "HTTP" | "HTTP2" | "GRPC" => "http://",
        "HTTPS" => "https://",
        _ => "tcp://",
    };
    let what = || format!("Gateway {}/{}", namespace(gateway), name(gateway));
    let mut pages = Vec::new();
    if scheme != "tcp://" {
        for route in objects
            .virtual_services
            .iter()
            .filter(|route| is_bound(route, gateway))
        {
            let host = list(route, "/spec/hosts")
                .iter()
                .filter_map(Value::as_str)
                .find(|host| !host.contains('*'));
            let host = host
                .map(|host| format!(", host {host}"))
                .unwrap_or_default();
            let what = format!("VirtualService {}/{}{host}", namespace(route), name(route));
            let exact = list(route, "/spec/http")
                .iter()
                .flat_map(|rule| list(rule, "/match"))
                .map(|found| text(found, "/uri/exact"))
                .filter(|path| !path.is_empty());
            let found: Vec<Page> = exact
                .take(MAX_PAGES)
                .map(|path| Page {
                    url: format!("{scheme}{address}{path}"),
                    what: what.clone(),
                })
                .collect();
            if found.is_empty() {
                pages.push(Page {
                    url: format!("{scheme}{address}/"),
                    what,
                });
            } else {
                pages.extend(found);
            }
        }
    }
    if pages.is_empty() {
        vec![Page {
            url: format!("{scheme}{address}"),
            what: what(),
        }]
    } else {
        pages
    }
}

/// Does a Gateway's selector choose the pods behind a Service? Both select labels of the same pods.
fn selects(gateway: &Value, service: &Value) -> bool {
    let wanted = gateway.pointer("/spec/selector").and_then(Value::as_object);
    let own = service.pointer("/spec/selector");
    wanted.is_some_and(|wanted| {
        !wanted.is_empty()
            && wanted
                .iter()
                .all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    })
}

fn is_bound(route: &Value, gateway: &Value) -> bool {
    let full = format!("{}/{}", namespace(gateway), name(gateway));
    let names = list(route, "/spec/gateways")
        .iter()
        .filter_map(Value::as_str);
    names
        .into_iter()
        .any(|own| own == full || (own == name(gateway) && namespace(route) == namespace(gateway)))
}

fn target_port(service: &Value, port: u64) -> Option<u64> {
    let found = list(service, "/spec/ports")
        .iter()
        .find(|entry| entry.get("port").and_then(Value::as_u64) == Some(port))?;
    found.get("targetPort").and_then(Value::as_u64)
}

fn scheme(name: &str, port: u64) -> &'static str {
    match (name.split('-').next().unwrap_or_default(), port) {
        ("https", _) | (_, 443) => "https://",
        ("http" | "http2" | "grpc", _) | (_, 80 | 8080) => "http://",
        _ => "tcp://",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn urls(objects: &Objects) -> Vec<String> {
        let entry = |port: u64, name: &str| json!({"service": "n/ingress", "port": port, "name": name, "address": format!("127.0.0.1:{}", 8_000 + port)});
        let summary = json!({"urls": [entry(15_021, "status-port"), entry(80, "http2"), entry(443, "https")]});
        pages(&summary, objects)
            .into_iter()
            .map(|page| page.url)
            .collect()
    }

    #[test]
    fn ports_without_a_gateway_are_shown_as_they_are() {
        assert_eq!(
            urls(&Objects::default()),
            ["http://127.0.0.1:8080", "https://127.0.0.1:8443"]
        );
    }

    #[test]
    fn behind_a_gateway_only_its_servers_and_their_pages_are_shown() {
        let mut objects = Objects {
            services: vec![
                json!({"metadata": {"name": "ingress", "namespace": "n"}, "spec": {"selector": {"app": "g", "istio": "ingressgateway"}, "ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}}),
            ],
            gateways: vec![
                json!({"metadata": {"name": "g", "namespace": "default"}, "spec": {"selector": {"istio": "ingressgateway"}, "servers": [{"port": {"number": 8080, "protocol": "HTTP"}, "hosts": ["*"]}]}}),
            ],
            virtual_services: Vec::new(),
        };
        assert_eq!(urls(&objects), ["http://127.0.0.1:8080"]);
        let rules = json!([{"match": [{"uri": {"exact": "/productpage"}}, {"uri": {"prefix": "/static"}}, {"uri": {"exact": "/login"}}]}]);
        objects.virtual_services.push(json!({"metadata": {"name": "b", "namespace": "default"}, "spec": {"hosts": ["*"], "gateways": ["g"], "http": rules}}));
        assert_eq!(urls(&objects), ["http://127.0.0.1:8080/productpage"]);
    }
}
