//! Two sidecars on loopback with mutual TLS between them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use identity::{CertificateAuthority, ServiceAccountName, SpiffeId, TrustDomain};
use proxy::{Live, peers::Own};
use proxy_config::{
    HttpFilter, SecretName,
    cluster::{Transport, TransportMatch, UpstreamProtocol},
    endpoint::Endpoint,
    filter::{HttpFilterKind, alpn::Alpn, peer_metadata::PeerMetadata},
    http_connection_manager::{ClientCertDetails, ForwardClientCert, RouteSource},
    listener::*,
    matcher::{StringMatcher, StringPattern},
    metadata::{Metadata, Value},
    tls::*,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    backend, client,
    config::*,
    proxy::{Proxy, update},
};

pub fn live(authority: &CertificateAuthority, account: &str) -> Live {
    live_at(authority, account, Arc::new(stdx::SystemClock))
}

/// With a clock of its own; certificates are issued by the machine's.
fn live_at(authority: &CertificateAuthority, account: &str, clock: Arc<dyn stdx::Clock>) -> Live {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let id = SpiffeId::workload(
        &domain,
        &ServiceAccountName::new("default", account).unwrap(),
    );
    let text = |text: &str| Value::String(text.into());
    let fields = [
        ("NAMESPACE", text("default")),
        ("WORKLOAD_NAME", text(account)),
        ("CLUSTER_ID", text("Kubernetes")),
    ];
    let node = proxy_config::bootstrap::Node {
        id: format!("sidecar~10.0.0.1~{account}.default~default.svc.cluster.local").into(),
        cluster: account.into(),
        metadata: Value::Struct(Arc::new(
            fields
                .into_iter()
                .map(|(key, value)| (Arc::from(key), value))
                .collect(),
        )),
        locality: Default::default(),
    };
    let stats = telemetry::stats::Store::new(telemetry::stats::Options::default());
    let live = Live::new(clock, Arc::new(stdx::SystemRng), stats, Own::new(&node));
    live.tls.identity.publish(
        authority
            .issue_workload(&id, Duration::from_secs(3600), SystemTime::now())
            .unwrap(),
    );
    live
}

pub fn authority() -> CertificateAuthority {
    CertificateAuthority::self_signed(
        &TrustDomain::parse("cluster.local").unwrap(),
        SystemTime::now(),
    )
    .unwrap()
}

fn common(alpn: &[&str], names: StringPattern) -> CommonTls {
    CommonTls {
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        cipher_suites: none(),
        alpn: alpn.iter().map(|p| Arc::from(*p)).collect(),
        certificates: Arc::from([CertificateSource::Secret(
            SecretName::parse("default").unwrap(),
        )]),
        validation: Some(Validation {
            roots: Roots::Secret(SecretName::parse("ROOTCA").unwrap()),
            subject_alt_names: Arc::from([SanMatcher {
                kind: SanKind::Any,
                matcher: StringMatcher {
                    pattern: names,
                    ignore_case: false,
                },
            }]),
            trust_chain: TrustChain::Verify,
        }),
    }
}

pub fn upstream_tls(server: &str) -> Transport {
    Transport::Tls(Arc::new(UpstreamTls {
        common: common(
            &["istio-peer-exchange", "istio"],
            StringPattern::Exact(format!("spiffe://cluster.local/ns/default/sa/{server}").into()),
        ),
        sni: Some("outbound_.80_._.server.default.svc.cluster.local".into()),
        auto_sni: false,
        auto_san_validation: false,
        max_session_keys: None,
    }))
}

/// As Istio's permissive inbound listener: one chain for mutual TLS, one for plaintext.
pub fn inbound(strict: bool, terminal: Terminal, alpn: &[&str]) -> Listener {
    let mut entry = listener("inbound", terminal.clone());
    let mut tls = chain("mtls", terminal.clone());
    tls.matches.transport_protocol = TransportProtocol::Tls;
    tls.tls = Some(Arc::new(DownstreamTls {
        common: common(
            alpn,
            StringPattern::Prefix("spiffe://cluster.local/".into()),
        ),
        require_client_certificate: true,
        require_sni: false,
    }));
    let mut plain = chain("plain", terminal);
    plain.matches.transport_protocol = TransportProtocol::RawBuffer;
    entry.chains = if strict {
        Arc::from([Arc::new(tls)])
    } else {
        Arc::from([Arc::new(tls), Arc::new(plain)])
    };
    entry.listener_filters = Arc::from([ListenerFilter {
        kind: ListenerFilterKind::TlsInspector,
        disabled: None,
    }]);
    entry.direction = TrafficDirection::Inbound;
    entry
}

pub fn filter(name: &str, kind: HttpFilterKind) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        kind,
        disabled: false,
    }
}

pub fn with_filters(
    routes: Vec<proxy_config::route::Route>,
    before_router: Vec<HttpFilter>,
    inbound: bool,
) -> Terminal {
    let mut manager = http(RouteSource::Inline(Arc::new(table(
        "inline",
        vec![host(&["*"], routes)],
    ))));
    manager.filters = before_router
        .into_iter()
        .chain(manager.filters.iter().cloned())
        .collect();
    if inbound {
        manager.forward_client_cert = ForwardClientCert::AppendForward;
        manager.client_cert_details = ClientCertDetails {
            subject: true,
            dns: true,
            uri: true,
            ..ClientCertDetails::default()
        };
    }
    Terminal::Http(Arc::new(manager))
}

struct Pair {
    client: Proxy,
    server: Proxy,
    backend: backend::Backend,
}

async fn pair(
    protocol: UpstreamProtocol,
    expected_server: &str,
    ca: (&CertificateAuthority, &CertificateAuthority),
) -> Pair {
    let backend = backend::echo().await;
    let discover = PeerMetadata {
        discover_downstream: true,
        propagate_downstream: true,
        ..PeerMetadata::default()
    };
    let terminal = with_filters(
        vec![to("app")],
        vec![filter(
            "mx",
            HttpFilterKind::PeerMetadata(Arc::new(discover)),
        )],
        true,
    );
    let server_update = update(
        vec![inbound(true, terminal, &["h2", "http/1.1"])],
        vec![cluster("app", &[backend.address])],
    );
    let server = Proxy::with(live(ca.0, "server"), server_update).await;
    let alpn = Alpn {
        http10: Arc::from(["istio-http/1.0".into(), "istio".into(), "http/1.0".into()]),
        http11: Arc::from(["istio-http/1.1".into(), "istio".into(), "http/1.1".into()]),
        http2: Arc::from(["istio-h2".into(), "istio".into(), "h2".into()]),
    };
    let tell = PeerMetadata {
        discover_upstream: true,
        propagate_upstream: true,
        ..PeerMetadata::default()
    };
    let filters = vec![
        filter("mx", HttpFilterKind::PeerMetadata(Arc::new(tell))),
        filter("alpn", HttpFilterKind::Alpn(Arc::new(alpn))),
    ];
    let terminal = with_filters(vec![to("server")], filters, false);
    let upstream = cluster_with("server", &[server.address("inbound")], |c| {
        c.transport = Transport::Plaintext;
        c.http.protocol = protocol;
        let mode = Value::String("istio".into());
        c.transport_matches = Arc::from([TransportMatch {
            name: "tlsMode-istio".into(),
            criteria: Arc::from([("tlsMode".into(), mode.clone())]),
            transport: upstream_tls(expected_server),
        }]);
        let mut fields = std::collections::BTreeMap::new();
        fields.insert(Arc::from("tlsMode"), mode);
        let metadata = Metadata(Arc::new(
            [(
                Arc::from("envoy.transport_socket_match"),
                Value::Struct(Arc::new(fields)),
            )]
            .into(),
        ));
        let mut endpoints = endpoints("server", &[server.address("inbound")]);
        let tagged: Vec<Endpoint> = endpoints.localities[0]
            .endpoints
            .iter()
            .map(|e| Endpoint {
                metadata: metadata.clone(),
                ..e.clone()
            })
            .collect();
        let mut locality = endpoints.localities[0].clone();
        locality.endpoints = tagged.into();
        endpoints.localities = Arc::from([locality]);
        c.discovery = proxy_config::cluster::Discovery::Static(Arc::new(endpoints));
    });
    let client = Proxy::with(
        live(ca.1, "client"),
        update(vec![listener("outbound", terminal)], vec![upstream]),
    )
    .await;
    Pair {
        client,
        server,
        backend,
    }
}

#[tokio::test]
async fn a_request_passes_two_sidecars_with_both_identities_known() {
    let ca = authority();
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let pair = pair(protocol, "server", (&ca, &ca)).await;
        let mut connection = client::http1(pair.client.address("outbound")).await;
        for _ in 0..3 {
            connection.ready().await.unwrap();
            let (head, body) = client::read(
                connection
                    .send_request(client::request("GET", "/x"))
                    .await
                    .unwrap(),
            )
            .await;
            assert_eq!(head.status(), StatusCode::OK, "{body}");
            let xfcc = body
                .lines()
                .find(|line| line.starts_with("x-forwarded-client-cert: "))
                .expect("XFCC");
            assert!(
                xfcc.contains("By=spiffe://cluster.local/ns/default/sa/server;Hash="),
                "{xfcc}"
            );
            assert!(
                xfcc.contains(";URI=spiffe://cluster.local/ns/default/sa/client"),
                "{xfcc}"
            );
            assert!(
                !body.contains("x-envoy-peer-metadata")
                    && !head.headers().contains_key("x-envoy-peer-metadata"),
                "{body}"
            );
        }
        assert_eq!(pair.backend.connections(), 1);
        let (outbound, inbound) = (pair.client.record(0).await, pair.server.record(0).await);
        assert_eq!(
            &*outbound.upstream_peer.as_ref().unwrap().workload,
            "server"
        );
        assert_eq!(
            &*inbound.downstream_peer.as_ref().unwrap().workload,
            "client"
        );
        assert_eq!(
            outbound.upstream_principal(),
            Some("spiffe://cluster.local/ns/default/sa/server")
        );
        assert_eq!(
            inbound.downstream_principal(),
            Some("spiffe://cluster.local/ns/default/sa/client")
        );
        assert_eq!(
            inbound.downstream_own_principal(),
            Some("spiffe://cluster.local/ns/default/sa/server")
        );
        assert!(inbound.is_mutual_tls());
        assert_eq!(
            inbound.requested_server_name.as_deref(),
            Some("outbound_.80_._.server.default.svc.cluster.local")
        );
        let expected = if protocol == UpstreamProtocol::Http2 {
            "HTTP/2"
        } else {
            "HTTP/1.1"
        };
        assert_eq!(inbound.protocol.unwrap().as_str(), expected);
    }
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let ca = authority();
    let pair = pair(UpstreamProtocol::Http1, "somebody-else", (&ca, &ca)).await;
    let (head, body) = client::get(pair.client.address("outbound"), "/").await;
    assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!body.contains("TLS"), "{body}");
    let record = pair.client.record(0).await;
    assert_eq!(record.flags.to_string(), "UF");
    let reason = record.upstream_transport_failure_reason.unwrap_or_default();
    assert!(reason.starts_with("TLS_error"), "{reason}");
    assert_eq!(pair.backend.requests(), 0);
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let pair = pair(UpstreamProtocol::Http1, "server", (&ours, &theirs)).await;
    let (head, _) = client::get(pair.client.address("outbound"), "/").await;
    assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(pair.backend.requests(), 0);
}

#[tokio::test]
async fn a_strict_listener_refuses_plaintext_and_a_permissive_one_takes_it() {
    let ca = authority();
    let backend = backend::echo().await;
    for (strict, served) in [(true, false), (false, true)] {
        let terminal = with_filters(vec![to("app")], vec![], true);
        let update = update(
            vec![inbound(strict, terminal, &["h2", "http/1.1"])],
            vec![cluster("app", &[backend.address])],
        );
        let server = Proxy::with(live(&ca, "server"), update).await;
        let mut stream = tokio::net::TcpStream::connect(server.address("inbound"))
            .await
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert_eq!(
            answer.contains("200 OK"),
            served,
            "strict: {strict}, {answer:?}"
        );
    }
}

#[tokio::test]
async fn without_an_identity_nothing_is_served_and_nothing_falls_back() {
    let ca = authority();
    let backend = backend::echo().await;
    let terminal = with_filters(vec![to("app")], vec![], true);
    let server_update = update(
        vec![inbound(true, terminal, &["http/1.1"])],
        vec![cluster("app", &[backend.address])],
    );
    let server = Proxy::with(Live::default(), server_update).await;
    let upstream = cluster_with("server", &[server.address("inbound")], |c| {
        c.transport = upstream_tls("server")
    });
    let client = Proxy::with(
        live(&ca, "client"),
        update(
            vec![http_listener("out", vec![to("server")])],
            vec![upstream],
        ),
    )
    .await;
    let (head, _) = client::get(client.address("out"), "/").await;
    assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
    // Once it has one, the same listener serves.
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let id = SpiffeId::workload(
        &domain,
        &ServiceAccountName::new("default", "server").unwrap(),
    );
    server.live.tls.identity.publish(
        ca.issue_workload(&id, Duration::from_secs(3600), SystemTime::now())
            .unwrap(),
    );
    let (head, body) = client::get(client.address("out"), "/").await;
    assert_eq!(head.status(), StatusCode::OK, "{body}");
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn tcp_passes_with_metadata_exchanged() {
    let ca = authority();
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
        });
    })
    .await;
    let mut entry = inbound(true, tcp("app"), &["istio-peer-exchange", "h2", "http/1.1"]);
    let mut only = (*entry.chains[0]).clone();
    only.network_filters = Arc::from([proxy_config::filter::NetworkFilter::MetadataExchange]);
    entry.chains = Arc::from([Arc::new(only)]);
    let server = Proxy::with(
        live(&ca, "server"),
        update(vec![entry], vec![cluster("app", &[address])]),
    )
    .await;
    let upstream = cluster_with("server", &[server.address("inbound")], |c| {
        c.transport = upstream_tls("server");
        c.peer_metadata_exchange = true;
    });
    let client = Proxy::with(
        live(&ca, "client"),
        update(vec![listener("out", tcp("server"))], vec![upstream]),
    )
    .await;
    let mut stream = tokio::net::TcpStream::connect(client.address("out"))
        .await
        .unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "ping");
    assert_eq!(
        &*server.record(0).await.downstream_peer.unwrap().workload,
        "client"
    );
    assert_eq!(
        &*client.record(0).await.upstream_peer.unwrap().workload,
        "server"
    );
}

#[tokio::test]
async fn a_session_is_not_resumed_when_the_certificate_in_it_has_expired() {
    for expired_on_server in [true, false] {
        let ca = authority();
        let backend = backend::echo().await;
        let clock = stdx::VirtualClock::new(SystemTime::now());
        let at = |is_ours: bool| -> Arc<dyn stdx::Clock> {
            if is_ours {
                Arc::new(clock.clone())
            } else {
                Arc::new(stdx::SystemClock)
            }
        };
        let terminal = with_filters(vec![to("app")], vec![], true);
        let server_update = update(
            vec![inbound(true, terminal, &["http/1.1"])],
            vec![cluster("app", &[backend.address])],
        );
        let server =
            Proxy::with(live_at(&ca, "server", at(expired_on_server)), server_update).await;
        let upstream = cluster_with("server", &[server.address("inbound")], |c| {
            c.transport = upstream_tls("server");
            c.http.max_requests_per_connection = Some(1);
        });
        let client = Proxy::with(
            live_at(&ca, "client", at(!expired_on_server)),
            update(
                vec![http_listener("out", vec![to("server")])],
                vec![upstream],
            ),
        )
        .await;
        let mut statuses = Vec::new();
        for hours in [0, 0, 2] {
            clock.advance(Duration::from_secs(hours * 3600));
            let (head, _) = client::get(client.address("out"), "/").await;
            statuses.push(head.status().as_u16());
        }
        assert_eq!(
            statuses,
            [200, 200, 503],
            "on the server: {expired_on_server}"
        );
        if !expired_on_server {
            let why = client.record(2).await.upstream_transport_failure_reason;
            let why = why.as_deref().unwrap_or_default();
            assert!(why.contains("resumed session has expired"), "{why}");
        }
    }
}
