//! One filter chain in a line: what it matches and where its connections go. Pure.

use serde_json::Value;

use super::dump::{field, list, number, path, text};

/// What a chain matches, as istioctl says it: `Trans: tls; App: istio-http/1.1; Addr: 10.96.0.1:80`.
pub fn matches(chain: &Value) -> String {
    let nothing = super::nothing();
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
        parts.push(format!("App: {applications}"));
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
    let whole = if address.contains(':') { 128 } else { 32 };
    // A length of nought is left out by proto3's JSON.
    match number(range, "prefix_len").unwrap_or(0) {
        length if length == whole => address.to_owned(),
        length => format!("{address}/{length}"),
    }
}

/// Where connections of a chain go: `Route: 80`, `Cluster: outbound|80||a`, `Inline Route: /*`.
pub fn destination(chain: &Value) -> String {
    for filter in list(chain, "filters") {
        let nothing = super::nothing();
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
    let clusters = clusters_of(inline);
    match clusters.as_slice() {
        [] => format!("Inline Route: {}", text(inline, "name")),
        [one] if one.starts_with("inbound|") => format!("Cluster: {one}"),
        all => format!("Inline Route: {}", all.join(", ")),
    }
}

fn clusters_of(table: &Value) -> Vec<String> {
    let routes = list(table, "virtual_hosts")
        .iter()
        .flat_map(|host| list(host, "routes"));
    let mut clusters: Vec<String> = routes
        .map(|route| text(route, "route.cluster"))
        .filter(|cluster| !cluster.is_empty())
        .map(str::to_owned)
        .collect();
    clusters.sort();
    clusters.dedup();
    clusters
}

fn tcp(config: &Value) -> String {
    let cluster = text(config, "cluster");
    if !cluster.is_empty() {
        return match cluster {
            "PassthroughCluster" | "BlackHoleCluster" | "InboundPassthroughCluster" => {
                cluster.to_owned()
            }
            cluster => format!("Cluster: {cluster}"),
        };
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
        assert_eq!(matches(&chain), "Trans: tls; App: istio; Addr: 10.0.0.1:80");
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
        let inline = json!({"route_config": {"name": "inbound|9080||", "virtual_hosts": [{"routes": [{"route": {"cluster": "inbound|9080||"}}]}]}});
        assert_eq!(manager(inline), "Cluster: inbound|9080||");
    }
}
