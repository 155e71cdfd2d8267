//! The static configuration that both proxies get, with a log of every operator in five forms at each listener.

use serde_json::{Value, json};

use super::operators::OPERATORS;

/// What the parts of the configuration are named by.
pub struct Ports {
    pub admin: u16,
    pub http: u16,
    pub https: u16,
    pub tcp: u16,
    pub tcp_refused: u16,
    pub tcp_tls: u16,
    pub tls_upstream: u16,
    pub upstream: u16,
    pub upstream_tcp: u16,
    pub refusing: u16,
}

/// PEM texts.
pub struct Certificates {
    pub root: String,
    pub server: (String, String),
    pub client: (String, String),
}

/// The forms in which everything is logged.
pub const FORMS: [&str; 4] = ["json", "omit", "mixed", "text"];

/// Between the values of a text line.
pub const SEPARATOR: char = '\u{1f}';

fn any(name: &str, mut body: Value) -> Value {
    body["@type"] = json!(format!("type.googleapis.com/envoy.{name}"));
    body
}

fn logs(folder: &str, listener: &str) -> Value {
    let keyed = |prefix: &str, suffix: &str| -> Value {
        OPERATORS
            .iter()
            .map(|(operator, _)| {
                (
                    (*operator).to_owned(),
                    json!(format!("{prefix}%{operator}%{suffix}")),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let line: Vec<String> = OPERATORS
        .iter()
        .map(|(operator, _)| format!("%{operator}%"))
        .collect();
    let line = line.join(&SEPARATOR.to_string()) + "\n";
    let format = |form: &str| match form {
        "json" => json!({"json_format": keyed("", "")}),
        "omit" => json!({"json_format": keyed("", ""), "omit_empty_values": true}),
        "mixed" => json!({"json_format": keyed("<", ">")}),
        _ => json!({"text_format_source": {"inline_string": line}}),
    };
    FORMS
        .iter()
        .map(|form| {
            let config = json!({"path": format!("{folder}/{listener}.{form}"), "log_format": format(form)});
            json!({"name": "file", "typed_config": any("extensions.access_loggers.file.v3.FileAccessLog", config)})
        })
        .collect()
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn cluster(name: &str, port: Option<u16>, more: Value) -> Value {
    let endpoint = port.map(|port| {
        json!({"endpoint": {"hostname": "up.example", "address": address(port)},
            "metadata": {"filter_metadata": {"my.host": {"key": "of the host"}}}})
    });
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "metadata": {"filter_metadata": {"my.meta": {"key": "v", "object": {"inner": "x", "n": 1}, "number": 3.5, "flag": true, "list": [1, "two", null]}}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoint.into_iter().collect::<Vec<_>>()}]},
    });
    if let (Some(cluster), Value::Object(more)) = (cluster.as_object_mut(), more) {
        cluster.extend(more);
    }
    cluster
}

fn fault(body: Value) -> Value {
    json!({"envoy.filters.http.fault": any("extensions.filters.http.fault.v3.HTTPFault", body)})
}

fn routes() -> Value {
    let all = json!({"numerator": 100});
    let retry = json!({"retry_on": "5xx,reset,connect-failure", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}});
    let to = |prefix: &str, cluster: &str| json!({"name": prefix.trim_matches('/'), "match": {"prefix": prefix}, "route": {"cluster": cluster}});
    let with = |prefix: &str, field: &str, value: Value| {
        let mut route = to(prefix, "up");
        route["route"][field] = value;
        route
    };
    let mut retry_refused = to("/retryconn", "refused");
    retry_refused["route"]["retry_policy"] = retry.clone();
    let mut per_try = to("/pertry", "up");
    per_try["route"]["timeout"] = json!("5s");
    per_try["route"]["retry_policy"] =
        json!({"retry_on": "5xx", "num_retries": 0, "per_try_timeout": "0.2s"});
    let mut abort = to("/abort", "up");
    abort["typed_per_filter_config"] =
        fault(json!({"abort": {"http_status": 503, "percentage": all}}));
    let mut delay = to("/delay", "up");
    delay["typed_per_filter_config"] =
        fault(json!({"delay": {"fixed_delay": "0.02s", "percentage": all}}));
    let mut limited = to("/limited", "up");
    limited["typed_per_filter_config"] = json!({"envoy.filters.http.local_ratelimit": any(
        "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        json!({"stat_prefix": "limit", "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": {"default_value": all}, "filter_enforced": {"default_value": all}}),
    )});
    let mut rest = to("/", "up");
    rest["name"] = json!("main");
    rest["metadata"] = json!({"filter_metadata": {"my.route": {"key": "of the route"}}});
    json!([
        with("/rewrite", "prefix_rewrite", json!("/new")),
        with("/timeout", "timeout", json!("0.2s")),
        with("/retry/", "retry_policy", retry),
        retry_refused,
        per_try,
        to("/refused", "refused"),
        to("/empty", "empty"),
        to("/none", "no such cluster"),
        to("/full", "full"),
        to("/tlsup", "tlsup"),
        {"name": "direct", "match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "teapot"}}},
        {"name": "redirect", "match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/elsewhere"}},
        abort, delay, limited, to("/denied", "up"), rest,
    ])
}

fn http_filters() -> Value {
    let policy = json!({"permissions": [{"url_path": {"path": {"prefix": "/denied"}}}], "principals": [{"any": true}]});
    let filter = |name: &str, config: &str, body: Value| json!({"name": format!("envoy.filters.http.{name}"), "typed_config": any(&format!("extensions.filters.http.{config}"), body)});
    json!([
        filter(
            "rbac",
            "rbac.v3.RBAC",
            json!({"rules": {"action": "DENY", "policies": {"ns[default]-policy[x]-rule[0]": policy}}})
        ),
        filter(
            "local_ratelimit",
            "local_ratelimit.v3.LocalRateLimit",
            json!({"stat_prefix": "limit"})
        ),
        filter("fault", "fault.v3.HTTPFault", json!({})),
        filter("router", "router.v3.Router", json!({})),
    ])
}

fn manager(folder: &str, name: &str) -> Value {
    let hosts = json!([
        {"name": "everything", "domains": ["*"], "routes": routes(), "metadata": {"filter_metadata": {"my.vhost": {"key": "of the host"}}}},
        {"name": "nothing", "domains": ["nothing.example"], "routes": []},
    ]);
    let body = json!({
        "stat_prefix": name, "access_log": logs(folder, name), "http_filters": http_filters(),
        "route_config": {"name": "routes", "validate_clusters": false, "virtual_hosts": hosts},
    });
    let kind = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": any(kind, body)})
}

fn tcp_proxy(folder: &str, name: &str, cluster: &str) -> Value {
    let body = json!({"stat_prefix": name, "cluster": cluster, "access_log": logs(folder, name)});
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": any("extensions.filters.network.tcp_proxy.v3.TcpProxy", body)})
}

fn common_tls(certificates: &Certificates, own: &(String, String)) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"inline_string": own.0}, "private_key": {"inline_string": own.1}}],
        "validation_context": {"trusted_ca": {"inline_string": certificates.root}},
    })
}

fn listener(name: &str, port: u16, filter: Value, tls: Option<&Certificates>) -> Value {
    let mut chain = json!({"name": format!("chain-{name}"), "filters": [filter], "metadata": {"filter_metadata": {"my.chain": {"key": "of the chain"}}}});
    let mut listener = json!({"name": name, "address": address(port), "metadata": {"filter_metadata": {"my.listener": {"key": "of the listener"}}}});
    if let Some(certificates) = tls {
        let context = json!({"require_client_certificate": true, "common_tls_context": common_tls(certificates, &certificates.server)});
        let kind = "extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        chain["transport_socket"] =
            json!({"name": "envoy.transport_sockets.tls", "typed_config": any(kind, context)});
        listener["listener_filters"] = json!([{"name": "envoy.filters.listener.tls_inspector", "typed_config": any("extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}))}]);
    }
    listener["filter_chains"] = json!([chain]);
    listener
}

/// A bootstrap that logs into `folder`.
pub fn bootstrap(folder: &str, ports: &Ports, certificates: &Certificates) -> Value {
    let upstream_tls = json!({"sni": "server.example.com", "common_tls_context": common_tls(certificates, &certificates.client)});
    let upstream_tls = any(
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        upstream_tls,
    );
    let back = json!({"stat_prefix": "back", "cluster": "upstream"});
    let back = json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": any("extensions.filters.network.tcp_proxy.v3.TcpProxy", back)});
    json!({
        "node": {"id": "observed", "cluster": "observed"},
        "admin": {"address": address(ports.admin)},
        "static_resources": {
            "listeners": [
                listener("http", ports.http, manager(folder, "http"), None),
                listener("https", ports.https, manager(folder, "https"), Some(certificates)),
                listener("tcp", ports.tcp, tcp_proxy(folder, "tcp", "tcpup"), None),
                listener("tcprefused", ports.tcp_refused, tcp_proxy(folder, "tcprefused", "refused"), None),
                listener("tcptls", ports.tcp_tls, tcp_proxy(folder, "tcptls", "tcpup"), Some(certificates)),
                listener("back", ports.tls_upstream, back, Some(certificates)),
            ],
            "clusters": [
                cluster("up", Some(ports.upstream), json!({"alt_stat_name": "up_stats"})),
                cluster("upstream", Some(ports.upstream), json!({})),
                cluster("tcpup", Some(ports.upstream_tcp), json!({})),
                cluster("refused", Some(ports.refusing), json!({})),
                cluster("empty", None, json!({})),
                cluster("full", Some(ports.upstream), json!({"circuit_breakers": {"thresholds": [{"max_connections": 0, "max_pending_requests": 0}]}})),
                cluster("tlsup", Some(ports.tls_upstream), json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": upstream_tls}})),
            ],
        },
    })
}
