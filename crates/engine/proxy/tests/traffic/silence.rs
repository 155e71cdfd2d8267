//! Connections on which nobody says anything, in every state in which something is waited for: each
//! ends by a limit, and is counted.

use std::{sync::Arc, time::Duration};

use proxy_config::{FilterChain, Listener, http_connection_manager::CodecType, listener::*};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    backend,
    config::*,
    mutual_tls,
    proxy::{DEADLINE, Proxy, update},
};

const LIMIT: Duration = Duration::from_millis(100);

fn with_chain(mut listener: Listener, change: impl FnOnce(&mut FilterChain)) -> Listener {
    let mut chain = (*listener.chains[0]).clone();
    change(&mut chain);
    listener.chains = Arc::from([Arc::new(chain)]);
    listener
}

fn idle_http(codec: CodecType) -> Listener {
    with_chain(http_listener("in", vec![]), |chain| {
        if let Terminal::Http(http) = &mut chain.terminal {
            let http = Arc::make_mut(http);
            http.codec = codec;
            http.timeouts.idle = Some(LIMIT);
            http.timeouts.drain = Some(LIMIT);
        }
    })
}

/// Connects, says nothing, and is closed; how the counter stands then.
async fn counted(entry: Listener, counter: &str) -> u64 {
    let proxy = Proxy::start(vec![entry], vec![]).await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "it is closed in time");
    crate::proxy::until(|| proxy.counter(counter) > 0).await;
    proxy.counter(counter)
}

#[tokio::test]
async fn while_the_version_of_http_is_not_known() {
    let count = counted(
        idle_http(CodecType::Auto),
        "http.test.downstream_cx_idle_timeout",
    )
    .await;
    assert_eq!(count, 1);
}

#[tokio::test]
async fn while_the_preface_of_http2_is_waited_for() {
    let count = counted(
        idle_http(CodecType::Http2),
        "http.test.downstream_cx_idle_timeout",
    )
    .await;
    assert_eq!(count, 1);
}

#[tokio::test]
async fn while_a_request_is_waited_for() {
    let count = counted(
        idle_http(CodecType::Http1),
        "http.test.downstream_cx_idle_timeout",
    )
    .await;
    assert_eq!(count, 1);
}

#[tokio::test]
async fn while_a_listener_filter_looks() {
    for kind in [
        ListenerFilterKind::TlsInspector,
        ListenerFilterKind::HttpInspector,
        ListenerFilterKind::ProxyProtocol {
            allow_without: false,
        },
    ] {
        let mut entry = listener("in", tcp("b"));
        entry.listener_filters_timeout = Some(LIMIT);
        entry.listener_filters = Arc::from([ListenerFilter {
            kind,
            disabled: None,
        }]);
        assert_eq!(
            counted(entry, "listener.127.0.0.1_0.downstream_pre_cx_timeout").await,
            1
        );
    }
}

#[tokio::test]
async fn while_a_tls_handshake_is_waited_for() {
    let counter = "listener.127.0.0.1_0.downstream_cx_transport_socket_connect_timeout";
    for configured in [Some(LIMIT), None] {
        let terminal = idle_http(CodecType::Auto).chains[0].terminal.clone();
        let tls = mutual_tls::inbound(true, terminal.clone(), &["h2"]).chains[0]
            .tls
            .clone();
        let entry = with_chain(listener("in", terminal), |chain| {
            chain.tls = tls;
            chain.transport_socket_connect_timeout = configured;
        });
        let live = mutual_tls::live(&mutual_tls::authority(), "server");
        let proxy = Proxy::with(live, update(vec![entry], vec![])).await;
        let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
        let closed = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "it is closed in time");
        crate::proxy::until(|| proxy.counter(counter) == 1).await;
    }
}

#[tokio::test]
async fn while_the_first_bytes_of_a_tcp_connection_are_waited_for() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
    })
    .await;
    let mut terminal = tcp("b");
    if let Terminal::Tcp(tcp) = &mut terminal {
        Arc::make_mut(tcp).proxy.idle_timeout = Some(LIMIT);
    }
    let proxy = Proxy::start(
        vec![listener("in", terminal)],
        vec![cluster("b", &[address])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let closed = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "it is closed in time");
    crate::proxy::until(|| proxy.counter("tcp.tcp.idle_timeout") == 1).await;
}

/// The server waits for a client that says by ALPN that it will tell who it is, and does not.
#[tokio::test]
async fn while_metadata_is_waited_for() {
    let ca = mutual_tls::authority();
    let mut terminal = tcp("app");
    if let Terminal::Tcp(tcp) = &mut terminal {
        Arc::make_mut(tcp).proxy.idle_timeout = Some(LIMIT);
    }
    let entry = mutual_tls::inbound(true, terminal, &["istio-peer-exchange"]);
    let entry = with_chain(entry, |chain| {
        chain.network_filters = Arc::from([proxy_config::filter::NetworkFilter::MetadataExchange]);
    });
    let server = Proxy::with(mutual_tls::live(&ca, "server"), update(vec![entry], vec![])).await;
    let upstream = cluster_with("server", &[server.address("inbound")], |c| {
        c.transport = mutual_tls::upstream_tls("server");
    });
    let client = mutual_tls::live(&ca, "client");
    let client = Proxy::with(
        client,
        update(vec![listener("out", tcp("server"))], vec![upstream]),
    )
    .await;
    let mut stream = TcpStream::connect(client.address("out")).await.unwrap();
    let closed = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "it is closed in time");
    crate::proxy::until(|| server.counter("tcp.tcp.idle_timeout") == 1).await;
}
