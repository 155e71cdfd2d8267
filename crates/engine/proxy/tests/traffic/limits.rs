//! What clients ask for makes no state without end, and nothing waits without a limit.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, StatusCode};
use proxy::{
    Live,
    upstream::{handshake::HttpVersion, names::Resolve, pool::PoolKey},
};
use proxy_config::{
    ClusterName,
    cluster::{Discovery, DnsFamily, DnsRefresh},
    matcher::Fraction,
    route::{Forward, MirrorPolicy, Target},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    backend, client,
    config::*,
    proxy::{Proxy, until, update},
};

const DESTINATION: HeaderName = HeaderName::from_static("x-destination");

/// Takes connections on every address of the loopback network, answers one request on each and
/// closes it.
async fn everywhere() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            });
        }
    });
    port
}

/// Takes connections and says nothing; counts those that are open.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    let address = backend::raw(move |mut stream: TcpStream| {
        let open = counted.clone();
        open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut bytes = [0; 1024];
            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            open.fetch_sub(1, Ordering::SeqCst);
        });
    })
    .await;
    (address, open)
}

#[tokio::test]
async fn pools_and_hosts_of_destinations_that_clients_choose_go_when_they_are_idle() {
    const DESTINATIONS: usize = 1_000;
    let port = everywhere().await;
    let passthrough = cluster_with("passthrough", &[], |c| {
        c.discovery = Discovery::OriginalDst {
            http_header: Some(DESTINATION),
            port_override: None,
        }
    });
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("passthrough")])],
        vec![passthrough],
    )
    .await;
    let cluster = proxy.live.config().cluster("passthrough").unwrap().clone();
    let most = AtomicUsize::new(0);
    let mut sender = client::http1(proxy.address("in")).await;
    for at in 0..DESTINATIONS {
        let mut request = client::request("GET", "/");
        let destination = format!("127.1.{}.{}:{port}", at / 250, at % 250 + 1);
        request
            .headers_mut()
            .insert(DESTINATION, destination.parse().unwrap());
        sender.ready().await.unwrap();
        let (head, _) = client::read(sender.send_request(request).await.unwrap()).await;
        assert_eq!(head.status(), StatusCode::OK, "{destination}");
        most.fetch_max(cluster.ad_hoc.count(), Ordering::Relaxed);
    }
    assert!(most.into_inner() > 0, "each destination was a host");
    until(|| proxy.worker.pools.count() == 0 && cluster.ad_hoc.count() == 0).await;
}

#[tokio::test]
async fn a_pool_for_each_name_that_a_client_makes_up_is_no_leak() {
    let backend = backend::echo().await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let cluster = proxy.live.config().cluster("b").unwrap().clone();
    let host = cluster.hosts().all[0].clone();
    let pools = &proxy.worker.pools;
    let named = |name: String| PoolKey {
        server_name: Some(name.into()),
        ..PoolKey::new(HttpVersion::Http1)
    };
    for at in 0..1_000 {
        let key = named(format!("{at}.test"));
        assert!(pools.pool(&cluster, &host, key).is_some());
    }
    let held = pools.pool(&cluster, &host, named("held.test".into()));
    until(|| pools.count() == 1).await;
    drop(held);
    until(|| pools.count() == 0).await;
}

#[tokio::test]
async fn a_cluster_has_no_more_pools_than_its_circuit_breaker_allows() {
    let backend = backend::echo().await;
    let limited = cluster_with("b", &[backend.address], |c| {
        c.circuit_breakers.default.max_connection_pools = Some(2);
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![limited]).await;
    let cluster = proxy.live.config().cluster("b").unwrap().clone();
    let host = cluster.hosts().all[0].clone();
    let named = |name: &str| PoolKey {
        server_name: Some(name.into()),
        ..PoolKey::new(HttpVersion::Http1)
    };
    let pools = &proxy.worker.pools;
    let first = pools.pool(&cluster, &host, named("1"));
    let second = pools.pool(&cluster, &host, named("2"));
    assert!(first.is_some() && second.is_some());
    assert!(pools.pool(&cluster, &host, named("3")).is_none());
    assert_eq!(proxy.counter("cluster.b.upstream_cx_pool_overflow"), 1);
    drop(first);
    assert!(
        pools.pool(&cluster, &host, named("3")).is_some(),
        "a pool that nobody uses makes room"
    );
}

#[tokio::test]
async fn requests_that_gave_up_leave_the_queue_for_a_connection() {
    let (address, _) = silent().await;
    let route = to_with("b", |rules| {
        rules.timeout = Some(Duration::from_millis(200));
    });
    let slow = cluster_with("b", &[address], |c| {
        c.circuit_breakers.default.max_connections = 1;
    });
    let patient = route_with_prefix("/patient", "b");
    let proxy = Proxy::start(vec![http_listener("in", vec![patient, route])], vec![slow]).await;
    let entry = proxy.address("in");
    // Holds the only connection.
    let holder = tokio::spawn(async move { client::get(entry, "/patient").await });
    until(|| proxy.counter("cluster.b.upstream_cx_total") == 1).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| tokio::spawn(async move { client::get(entry, "/").await.0.status() }))
        .collect();
    for request in waiting {
        assert_eq!(request.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
    }
    assert_eq!(proxy.worker.pools.waiting(), 0);
    assert_eq!(proxy.counter("cluster.b.upstream_rq_cancelled"), 20);
    assert_eq!(proxy.counter("cluster.b.upstream_rq_pending_active"), 0);
    holder.abort();
}

fn mirrored(change: impl FnOnce(&mut Forward)) -> proxy_config::route::Route {
    to_with("b", |rules| {
        rules.mirrors = Arc::from([MirrorPolicy {
            target: Target::Cluster(ClusterName::parse("m").unwrap()),
            fraction: Fraction::ALL,
            disable_shadow_host_suffix: false,
        }]);
        change(rules);
    })
}

#[tokio::test]
async fn a_mirrored_request_without_an_answer_ends_with_the_routes_time() {
    let backend = backend::echo().await;
    let (address, open) = silent().await;
    let route = mirrored(|rules| rules.timeout = Some(Duration::from_millis(300)));
    let clusters = vec![cluster("b", &[backend.address]), cluster("m", &[address])];
    let proxy = Proxy::start(vec![http_listener("in", vec![route])], clusters).await;
    for _ in 0..5 {
        let (head, _) = client::get(proxy.address("in"), "/").await;
        assert_eq!(head.status(), StatusCode::OK);
    }
    until(|| open.load(Ordering::SeqCst) == 5).await;
    assert_eq!(proxy.counter("cluster.m.upstream_rq_mirror_active"), 5);
    assert_eq!(proxy.worker.background.len(), 5);
    until(|| open.load(Ordering::SeqCst) == 0).await;
    until(|| proxy.worker.background.is_empty()).await;
    assert_eq!(proxy.counter("cluster.m.upstream_rq_timeout"), 5);
    assert_eq!(proxy.counter("cluster.m.upstream_rq_mirror_active"), 0);
    assert_eq!(proxy.counter("cluster.m.upstream_rq_active"), 0);
}

#[tokio::test]
async fn a_mirrors_connection_serves_the_next_mirrored_request() {
    let (backend, mirror) = (backend::echo().await, backend::echo().await);
    let clusters = vec![
        cluster("b", &[backend.address]),
        cluster("m", &[mirror.address]),
    ];
    let route = mirrored(|_| ());
    let proxy = Proxy::start(vec![http_listener("in", vec![route])], clusters).await;
    for at in 1..=3 {
        client::get(proxy.address("in"), "/").await;
        until(|| mirror.requests() == at && proxy.worker.background.is_empty()).await;
    }
    assert_eq!(mirror.connections(), 1);
    assert_eq!(proxy.counter("cluster.m.upstream_rq_2xx"), 3);
}

#[tokio::test]
async fn a_request_is_not_tried_on_new_connections_without_end() {
    const REQUESTS: usize = 50;
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    let address = backend::raw(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        drop(stream);
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[address])],
    )
    .await;
    for _ in 0..REQUESTS {
        let (head, _) = client::get(proxy.address("in"), "/").await;
        assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let (accepted, most) = (
        accepted.load(Ordering::SeqCst),
        REQUESTS * proxy::upstream::call::MAX_SENDS,
    );
    assert!(accepted <= most, "{accepted} connections");
    let unsent = proxy.counter("cluster.b.upstream_rq_unsent");
    assert!(
        usize::try_from(unsent).unwrap() + REQUESTS >= accepted,
        "each further connection is counted: {unsent} for {accepted} connections"
    );
}

/// Knows names of `.test`, after a while; counts what it is asked.
struct Slow {
    asked: AtomicUsize,
    pause: Duration,
}

impl Slow {
    fn new(pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            pause,
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Slow {
    fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        if name.ends_with(".test") {
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        } else {
            Err(std::io::Error::other("no such name"))
        }
    }
}

/// A proxy to whatever the host of a request resolves to.
async fn forwarding(resolver: Arc<Slow>, timeout: Option<Duration>) -> Proxy {
    let refresh = DnsRefresh {
        rate: Duration::from_secs(60),
        respect_ttl: false,
        family: DnsFamily::V4Preferred,
    };
    let dynamic = cluster_with("b", &[], |c| {
        c.discovery = Discovery::DynamicForward { refresh }
    });
    let route = to_with("b", |rules| rules.timeout = timeout);
    let update = update(vec![http_listener("in", vec![route])], vec![dynamic]);
    Proxy::with(Live::default().with_resolver(resolver), update).await
}

async fn ask(entry: SocketAddr, host: String) -> StatusCode {
    let mut request = client::request("GET", "/");
    request.headers_mut().insert("host", host.parse().unwrap());
    client::send(entry, request).await.0.status()
}

#[tokio::test]
async fn requests_for_one_name_share_one_look_up() {
    let backend = backend::echo().await;
    let resolver = Slow::new(Duration::from_millis(100));
    let proxy = forwarding(resolver.clone(), None).await;
    let (entry, port) = (proxy.address("in"), backend.address.port());
    let requests: Vec<_> = (0..10)
        .map(|_| tokio::spawn(ask(entry, format!("a.test:{port}"))))
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(ask(entry, format!("A.TEST:{port}")).await, StatusCode::OK);
    assert_eq!(resolver.asked(), 1);
    assert_eq!(proxy.counter("cluster.b.dns_query_attempt"), 1);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_not_looked_up_for_each_request() {
    let resolver = Slow::new(Duration::ZERO);
    let proxy = forwarding(resolver.clone(), None).await;
    for _ in 0..10 {
        let status = ask(proxy.address("in"), "nowhere.invalid".into()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(resolver.asked(), 1);
    assert_eq!(proxy.counter("cluster.b.dns_query_failure"), 1);
    assert_eq!(proxy.record(9).await.flags.to_string(), "DF");
}

#[tokio::test]
async fn a_look_up_takes_no_longer_than_the_route_lets_the_request_wait() {
    let backend = backend::echo().await;
    let resolver = Slow::new(Duration::from_millis(600));
    let proxy = forwarding(resolver.clone(), Some(Duration::from_millis(100))).await;
    let (entry, host) = (
        proxy.address("in"),
        format!("a.test:{}", backend.address.port()),
    );
    assert_eq!(ask(entry, host.clone()).await, StatusCode::GATEWAY_TIMEOUT);
    // The look-up goes on and serves those who come later.
    until(|| proxy.counter("cluster.b.dns_query_attempt") == 1).await;
    assert_eq!(ask(entry, host).await, StatusCode::OK);
    assert_eq!(resolver.asked(), 1);
}
