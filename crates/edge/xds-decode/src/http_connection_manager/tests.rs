use std::time::Duration;

use proxy_config::{
    HttpConnectionManager,
    filter::{HttpFilterKind, PerRouteConfig},
    http_connection_manager::{ForwardClientCert, RouteSource},
};
use wire_envoy::pb;

use crate::{
    context::Cx,
    reject::Reject,
    testing::{decode, message, refused},
};

const ROUTER: &str = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

fn manager(filters: &str, more: &str) -> Result<HttpConnectionManager, Reject> {
    decode(
        &format!(
            "{{stat_prefix: s, http_filters: [{filters}], rds: {{route_config_name: '80', config_source: {{ads: {{}}}}}}{more}}}"
        ),
        super::manager,
    )
}

#[test]
fn what_is_not_said_has_envoys_defaults() {
    let found = manager(ROUTER, "").expect("decoded");
    assert!(matches!(&found.routes, RouteSource::Named(name) if name.as_str() == "80"));
    assert_eq!(&*found.server_name, "envoy");
    assert_eq!(found.forward_client_cert, ForwardClientCert::Sanitize);
    assert_eq!(found.timeouts.stream_idle, Some(Duration::from_secs(300)));
    assert_eq!(found.timeouts.idle, Some(Duration::from_secs(3600)));
    assert_eq!(found.max_request_headers_kb, 60);
    assert!(found.request_id.generate && found.request_id.use_for_sampling);
    assert_eq!(
        manager(ROUTER, ", stream_idle_timeout: 0s")
            .expect("decoded")
            .timeouts
            .stream_idle,
        None
    );
}

#[test]
fn the_router_is_last_and_alone() {
    let cors = "{name: c, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}";
    assert_eq!(
        manager(&format!("{cors}, {ROUTER}"), "")
            .expect("decoded")
            .filters
            .len(),
        2
    );
    for wrong in [
        String::new(),
        cors.to_owned(),
        format!("{ROUTER}, {cors}"),
        format!("{ROUTER}, {ROUTER}"),
    ] {
        assert_eq!(refused(manager(&wrong, "")).0, "http_filters", "{wrong}");
    }
}

#[test]
fn a_filter_that_authorizes_is_never_skipped() {
    for name in [
        "ext_authz.v3.ExtAuthz",
        "jwt_authn.v3.JwtAuthentication",
        "lua.v3.Lua",
        "wasm.v3.Wasm",
        "ext_proc.v3.ExternalProcessor",
    ] {
        let filter = format!(
            "{{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{name}}}}}"
        );
        let (field, reason) = refused(manager(&format!("{filter}, {ROUTER}"), ""));
        assert_eq!(field, "http_filters[0].typed_config");
        assert!(reason.contains(name), "{reason}");
    }
}

#[test]
fn what_is_optional_or_only_saves_bytes_is_left_out_and_noted() {
    let gzip = "{name: g, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor}}";
    let lua = "{name: l, is_optional: true, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}";
    let yaml = format!("{{http_filters: [{gzip}, {lua}, {ROUTER}], route_config: {{name: a}}}}");
    let mut cx = Cx::default();
    let found = super::manager(&mut cx, message(&yaml)).expect("decoded");
    assert_eq!(found.filters.len(), 1);
    let noted: Vec<_> = cx.notes().keys().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        noted,
        [
            "envoy.extensions.filters.http.compressor.v3.Compressor",
            "envoy.extensions.filters.http.lua.v3.Lua"
        ]
    );
}

#[test]
fn a_typed_struct_stands_for_the_type_that_it_names() {
    let peer = "{name: m, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, \
                type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: {upstream_discovery: [{istio_headers: {}}, \
                {workload_discovery: {}}], upstream_propagation: [{istio_headers: {skip_external_clusters: true}}]}}}";
    let limit = "{name: l, typed_config: {'@type': type.googleapis.com/xds.type.v3.TypedStruct, \
                 type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, \
                 value: {stat_prefix: s, token_bucket: {max_tokens: 7, fill_interval: 1s}}}}";
    let found = manager(&format!("{peer}, {limit}, {ROUTER}"), "").expect("decoded");
    let HttpFilterKind::PeerMetadata(peer) = &found.filters[0].kind else {
        panic!("another filter")
    };
    assert!(
        peer.discover_upstream
            && peer.propagate_upstream
            && peer.skip_external_clusters
            && !peer.discover_downstream
    );
    let HttpFilterKind::LocalRateLimit(limit) = &found.filters[1].kind else {
        panic!("another filter")
    };
    assert_eq!(limit.bucket.expect("given").max_tokens, 7);
    assert!(limit.enabled.is_none(), "absent fractions mean never");
    let wrong = "{name: l, typed_config: {'@type': type.googleapis.com/xds.type.v3.TypedStruct, \
                 type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, value: {novel: 1}}}";
    assert!(
        refused(manager(&format!("{wrong}, {ROUTER}"), ""))
            .1
            .contains("novel")
    );
}

#[test]
fn routes_change_filters_by_name() {
    let yaml = "{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}";
    let route = format!(
        "{{name: a, virtual_hosts: [{{name: h, domains: ['*'], typed_per_filter_config: {{b: {yaml}, a: {yaml}}}}}]}}"
    );
    let table = decode(&route, crate::route::table).expect("decoded");
    let filters = &table.virtual_hosts[0].filters;
    assert_eq!(
        (&*filters[0].name, &filters[0].config),
        ("a", &PerRouteConfig::Disabled)
    );
    let lua = "{name: a, virtual_hosts: [{name: h, domains: ['*'], typed_per_filter_config: {x: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute}}}]}";
    let (field, reason) = refused(decode(lua, |cx, m: pb::route::RouteConfiguration| {
        crate::route::table(cx, m)
    }));
    assert_eq!(field, "virtual_hosts[0].typed_per_filter_config[x]");
    assert!(
        reason.contains("LuaPerRoute is not supported on a route"),
        "{reason}"
    );
}
