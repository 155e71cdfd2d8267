//! One filter chain in a line: what it matches and where its connections go. Pure.

use serde_json::Value;

use super::dump::{field, list, nothing, number, path, text};
use super::routes;

/// Lists of protocols that istioctl has a name for.
const PROTOCOLS: [(&str, &str); 4] = [
    (
        "http/1.0,http/1.1,h2c,istio-http/1.0,istio-http/1.1,istio-h2",
        "HTTP TLS",
    ),
    (
        "istio,istio-http/1.0,istio-http/1.1,istio-h2",
        "Istio HTTP Plain",
    ),
    ("istio-peer-exchange,istio", "TCP TLS"),
    ("http/1.0,http/1.1,h2c", "HTTP"),
];

/// What a chain matches, as istioctl says it: `Trans: tls; App: istio-http/1.1; Addr: 10.96.0.1:80`.
pub fn matches(chain: &Value) -> String {
    let nothing = nothing();
    let rule = field(chain, "filter_chain_match").unwrap_or(&nothing);
    let mut parts = Vec::new();
    let join = |name: &str| {
        list(rule, name)
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",")
    };
    let names = join("server_names");
    if !names.is_empty() {
        parts.push(format!("SNI: {names}"));
    }
    let transport = text(rule, "transport_protocol");
    if !transport.is_empty() {
        parts.push(format!("Trans: {transport}"));
    }
    let applications = join("application_protocols");
    if !applications.is_empty() {
        let named = PROTOCOLS.iter().find(|(list, _)| *list == applications);
        let shown = named.map_or(applications.as_str(), |(_, name)| name);
        parts.push(format!("App: {shown}"));
    }
    let port = number(rule, "destination_port")
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let ranges: Vec<String> = list(rule, "prefix_ranges").iter().map(range).collect();
    if !ranges.is_empty() || !port.is_empty() {
        let address = if ranges.is_empty() {
            "*".to_owned()
        } else {
            ranges.join(",")
        };
        parts.push(format!("Addr: {address}{port}"));
    }
    if parts.is_empty() {
        "ALL".into()
    } else {
        parts.join("; ")
    }
}

fn range(range: &Value) -> String {
    let address = text(range, "address_prefix");
    // A length of nought is left out by proto3's JSON.
    format!("{address}/{}", number(range, "prefix_len").unwrap_or(0))
}

/// Where connections of a chain go: `Route: 80`, `Cluster: outbound|80||a`, `Inline Route: /*`.
pub fn destination(chain: &Value) -> String {
    for filter in list(chain, "filters") {
        let nothing = nothing();
        let config = field(filter, "typed_config").unwrap_or(&nothing);
        match text(config, "@type").rsplit('.').next().unwrap_or_default() {
            "HttpConnectionManager" => return http(config),
            "TcpProxy" => return tcp(config),
            _ => {}
        }
    }
    "Non-HTTP/Non-TCP".into()
}

fn http(config: &Value) -> String {
    let named = text(config, "rds.route_config_name");
    if !named.is_empty() {
        return format!("Route: {named}");
    }
    let Some(inline) = field(config, "route_config") else {
        return "HTTP without routes".into();
    };
    if let Some(cluster) = only_cluster(inline) {
        return called(cluster);
    }
    let hosts: Vec<String> = list(inline, "virtual_hosts")
        .iter()
        .map(inline_host)
        .collect();
    format!("Inline Route: {}", hosts.join("; "))
}

/// The cluster of a table that sends everything to one.
fn only_cluster(table: &Value) -> Option<&str> {
    let [host] = list(table, "virtual_hosts") else {
        return None;
    };
    let ([domain], [route]) = (list(host, "domains"), list(host, "routes")) else {
        return None;
    };
    let all = domain == "*" && text(route, "match.prefix") == "/";
    Some(text(route, "route.cluster")).filter(|cluster| all && !cluster.is_empty())
}

/// What a virtual host of an inline table matches; its domains where they are not all.
fn inline_host(host: &Value) -> String {
    let domains: Vec<&str> = list(host, "domains")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let rules: Vec<String> = list(host, "routes").iter().map(routes::rule).collect();
    match domains.as_slice() {
        ["*"] => rules.join(", "),
        domains => format!("{} {}", domains.join("/"), rules.join(", ")),
    }
}

/// `Cluster: NAME`; those that Istio makes for all traffic by their name alone.
fn called(cluster: &str) -> String {
    match cluster {
        "PassthroughCluster" | "BlackHoleCluster" | "InboundPassthroughCluster" => {
            cluster.to_owned()
        }
        cluster => format!("Cluster: {cluster}"),
    }
}

fn tcp(config: &Value) -> String {
    let cluster = text(config, "cluster");
    if !cluster.is_empty() {
        return called(cluster);
    }
    let weighted = path(config, "weighted_clusters.clusters")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let names: Vec<String> = weighted
        .iter()
        .map(|entry| {
            format!(
                "{} ({})",
                text(entry, "name"),
                number(entry, "weight").unwrap_or(0)
            )
        })
        .collect();
    format!("Cluster: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chain_is_one_line() {
        let chain = json!({
            "filter_chain_match": {"transport_protocol": "tls", "application_protocols": ["istio"], "prefix_ranges": [{"address_prefix": "10.0.0.1", "prefix_len": 32}], "destination_port": 80},
            "filters": [
                {"name": "istio.metadata_exchange", "typed_config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct"}},
                {"name": "tcp", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "outbound|80||a"}},
            ],
        });
        assert_eq!(
            matches(&chain),
            "Trans: tls; App: istio; Addr: 10.0.0.1/32:80"
        );
        assert_eq!(destination(&chain), "Cluster: outbound|80||a");
        assert_eq!(matches(&json!({})), "ALL");
        assert_eq!(destination(&json!({"filters": []})), "Non-HTTP/Non-TCP");
    }

    #[test]
    fn routes_are_named_or_inline() {
        let manager = |config: Value| {
            let mut config = config;
            config["@type"] = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager".into();
            destination(&json!({"filters": [{"typedConfig": config}]}))
        };
        assert_eq!(
            manager(json!({"rds": {"routeConfigName": "9080"}})),
            "Route: 9080"
        );
        let table = |domain: &str, prefix: &str, cluster: &str| {
            manager(
                json!({"route_config": {"name": "x", "virtual_hosts": [{"domains": [domain], "routes": [{"match": {"prefix": prefix}, "route": {"cluster": cluster}}]}]}}),
            )
        };
        assert_eq!(table("*", "/", "inbound|9080||"), "Cluster: inbound|9080||");
        assert_eq!(
            table("*", "/", "InboundPassthroughCluster"),
            "InboundPassthroughCluster"
        );
        assert_eq!(table("*", "/healthz", "agent"), "Inline Route: /healthz*");
        assert_eq!(table("a", "/", "b"), "Inline Route: a /*");
    }

    #[test]
    fn lists_of_protocols_have_istioctls_names() {
        let app = |protocols: &[&str]| {
            matches(&json!({"filter_chain_match": {"application_protocols": protocols}}))
        };
        assert_eq!(app(&["istio-peer-exchange", "istio"]), "App: TCP TLS");
        assert_eq!(app(&["http/1.0", "http/1.1", "h2c"]), "App: HTTP");
        assert_eq!(app(&["http/1.1", "h2c"]), "App: http/1.1,h2c");
    }
}
