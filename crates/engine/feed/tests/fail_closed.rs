//! What a refusal costs, from a control plane's bytes to the answer that a client gets.
//!
//! Each listener is a short form of one that istiod sends: an inbound listener whose first version lets requests pass, and a new
//! version with a policy that this proxy cannot obey (RequestAuthentication, CUSTOM authorization, a filter by reference). The new
//! version must never be laxer than asked: no request gets the old version's 200.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use feed::warm::{Change, Warming};
use proxy::{Live, Settings, Worker, listen, report::NoReporter};
use stdx::drain;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wire_envoy::{Descriptors, any, pb};
use xds_decode::{Decoder, Resource};

const DEADLINE: Duration = Duration::from_secs(10);
const WARM: Duration = Duration::from_secs(15);
const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions";

/// A running proxy with one worker.
struct Proxy {
    live: Arc<Live>,
    worker: Arc<Worker>,
    warming: Warming,
    _drain: drain::DrainTrigger,
}

impl Proxy {
    fn start() -> Self {
        let live = Arc::new(Live::default());
        let worker = Worker::new(live.clone(), Arc::new(NoReporter), Settings::default());
        let (trigger, draining) = drain::channel();
        tokio::spawn(listen::run(worker.clone(), draining));
        Self {
            live,
            worker,
            warming: Warming::new(WARM, WARM, true),
            _drain: trigger,
        }
    }

    /// Takes a listener as the feed does; returns what was refused.
    fn take(&mut self, chains: &str) -> Vec<String> {
        let yaml = format!(
            "{{name: virtualInbound, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, \
             listener_filters: [{{name: tls, typed_config: {{{TYPE}.filters.listener.tls_inspector.v3.TlsInspector}}}}], \
             filter_chains: [{chains}]}}"
        );
        let message: pb::listener::Listener = Descriptors::load()
            .expect("built-in")
            .from_yaml(&yaml)
            .expect("the test's own YAML");
        let taken = Decoder::default().take(&any(&message));
        let now = self.live.clock.now();
        match taken.resource.expect("taken") {
            Resource::Listener(listener) => {
                self.warming.set(Change::Listener(listener.into()), now)
            }
            other => panic!("{other:?}"),
        }
        self.live.publish(self.warming.settle(now));
        taken.refused.iter().map(ToString::to_string).collect()
    }

    async fn address(&self) -> SocketAddr {
        let bound = async {
            loop {
                if let Some((_, address)) = self.worker.bound().first() {
                    return *address;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, bound).await.expect("bound")
    }

    /// What a plaintext request gets; empty: the connection is closed.
    async fn get(&self) -> String {
        let address = self.address().await;
        let ask = async {
            let mut stream = TcpStream::connect(address).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(DEADLINE, ask).await.expect("an end");
        answer.unwrap_or_default()
    }
}

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
    assert_eq!(proxy.take(&answering("", "")), [""; 0]);
    assert!(proxy.get().await.starts_with("HTTP/1.1 200"));
    let refused = proxy.take(newer);
    assert!(
        refused.iter().any(|why| why.contains(refused_field)),
        "{refused:?}"
    );
    let got = proxy.get().await;
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
    proxy.take(&answering("", ""));
    assert!(proxy.get().await.starts_with("HTTP/1.1 200"));
    let newer = answering("", "").replace("status: 200", "status: 202");
    let other = format!(
        "{{filter_chain_match: {{destination_port: 9}}, filters: [{{name: x, typed_config: {{\
         {TYPE}.filters.network.wasm.v3.Wasm}}}}]}}"
    );
    assert_eq!(proxy.take(&format!("{newer}, {other}")).len(), 1);
    assert!(proxy.get().await.starts_with("HTTP/1.1 202"));
}
