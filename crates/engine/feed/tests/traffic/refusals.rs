//! What a refusal costs, from a control plane's bytes to the answer that a client gets.
//!
//! Each listener is a short form of one that istiod sends: an inbound listener whose first version
//! lets requests pass, and a new version with a policy that this proxy cannot obey
//! (RequestAuthentication, CUSTOM authorization, a filter by reference). The new version must never
//! be laxer than asked: no request gets the old version's 200.

use crate::proxy::{Proxy, TYPE};

/// A chain of HTTP that answers 200, behind these filters.
fn answering(matches: &str, filters: &str) -> String {
    format!(
        "{{filter_chain_match: {{{matches}}}, filters: [{{name: http, typed_config: {{\
         {TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, \
         route_config: {{name: in, virtual_hosts: [{{name: in, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         direct_response: {{status: 200}}}}]}}]}}, \
         http_filters: [{filters} {{name: envoy.filters.http.router, typed_config: {{{TYPE}.filters.http.router.v3.Router}}}}]}}}}]}}"
    )
}

fn filter(name: &str, config: &str) -> String {
    format!("{{name: {name}, {config}}},")
}

async fn scenario(newer: &str, refused_field: &str, answer: &str) {
    let mut proxy = Proxy::start();
    assert_eq!(proxy.listener(&answering("", "")), [""; 0]);
    assert!(proxy.get("a").await.starts_with("HTTP/1.1 200"));
    let refused = proxy.listener(newer);
    assert!(
        refused.iter().any(|why| why.contains(refused_field)),
        "{refused:?}"
    );
    let got = proxy.get("a").await;
    match answer {
        "" => assert_eq!(got, "", "the connection is closed"),
        answer => {
            assert!(got.starts_with("HTTP/1.1 503"), "{got}");
            assert!(got.contains(answer), "{got}");
        }
    }
}

#[tokio::test]
async fn request_authentication_that_cannot_be_read_answers_503_and_not_the_old_200() {
    let jwt = filter(
        "envoy.filters.http.jwt_authn",
        &format!("typed_config: {{{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication}}"),
    );
    let newer = answering("", &jwt);
    scenario(&newer, "jwt_authn", "envoy.filters.http.jwt_authn").await;
}

#[tokio::test]
async fn strict_with_request_authentication_takes_no_plaintext() {
    let jwt = filter(
        "envoy.filters.http.jwt_authn",
        &format!("typed_config: {{{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication}}"),
    );
    let newer = answering("transport_protocol: tls", &jwt);
    scenario(&newer, "jwt_authn", "").await;
}

#[tokio::test]
async fn custom_authorization_that_cannot_be_asked_answers_503() {
    let authz = filter(
        "envoy.filters.http.ext_authz",
        &format!("typed_config: {{{TYPE}.filters.http.ext_authz.v3.ExtAuthz}}"),
    );
    let newer = answering("", &authz);
    scenario(&newer, "ext_authz", "envoy.filters.http.ext_authz").await;
}

#[tokio::test]
async fn custom_authorization_of_tcp_closes_connections() {
    let newer = format!(
        "{{filters: [{{name: authz, typed_config: {{{TYPE}.filters.network.ext_authz.v3.ExtAuthz, stat_prefix: tcp.}}}}, \
         {{name: tcp, typed_config: {{{TYPE}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: c}}}}]}}"
    );
    scenario(&newer, "ext_authz", "").await;
}

#[tokio::test]
async fn a_transport_socket_that_cannot_be_read_is_not_plaintext() {
    let chain = answering("", "");
    let socket = format!(
        "transport_socket: {{name: tls, typed_config: {{{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext, \
         ocsp_staple_policy: MUST_STAPLE}}}}, filters:"
    );
    let newer = chain.replacen("filters:", &socket, 1);
    scenario(&newer, "ocsp_staple_policy", "").await;
}

#[tokio::test]
async fn the_other_chains_of_a_listener_are_the_new_ones() {
    let mut proxy = Proxy::start();
    proxy.listener(&answering("", ""));
    assert!(proxy.get("a").await.starts_with("HTTP/1.1 200"));
    let newer = answering("", "").replace("status: 200", "status: 202");
    let other = format!(
        "{{filter_chain_match: {{destination_port: 9}}, filters: [{{name: x, typed_config: {{\
         {TYPE}.filters.network.wasm.v3.Wasm}}}}]}}"
    );
    assert_eq!(proxy.listener(&format!("{newer}, {other}")).len(), 1);
    assert!(proxy.get("a").await.starts_with("HTTP/1.1 202"));
}
