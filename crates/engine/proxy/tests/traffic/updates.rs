//! Configuration that changes while requests and connections are under way.

use std::sync::Arc;

use http::StatusCode;
use proxy::{Update, publish::Changes};
use proxy_config::{cluster::Discovery, http_connection_manager::RouteSource, listener::Terminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    backend, client,
    config::*,
    proxy::{Proxy, set, until, update},
};

#[tokio::test]
async fn endpoints_come_and_go_and_connections_stay() {
    let (first, second) = (backend::echo().await, backend::echo().await);
    let eds = cluster_with("b", &[], |c| {
        c.discovery = Discovery::Eds {
            service_name: "svc".into(),
        }
    });
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![eds]).await;
    let mut connection = client::http1(proxy.address("in")).await;
    let mut status = async || {
        connection.ready().await.unwrap();
        connection
            .send_request(client::request("GET", "/"))
            .await
            .map(client::read)
            .unwrap()
            .await
            .0
            .status()
    };
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    for (backend, number) in [(&first, 1), (&second, 2)] {
        let live = proxy.live.clone();
        live.publish(Update {
            endpoints: set(vec![endpoints("svc", &[backend.address])]),
            ..Update::default()
        });
        assert_eq!(status().await, StatusCode::OK, "backend {number}");
        assert_eq!(backend.requests(), 1);
    }
    proxy.live.publish(Update {
        endpoints: Changes {
            set: vec![],
            removed: vec!["svc".into()],
        },
        ..Update::default()
    });
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_route_table_takes_effect_on_open_connections() {
    let (first, second) = (backend::echo().await, backend::echo().await);
    let manager = http(RouteSource::Named(
        proxy_config::RouteTableName::parse("rds").unwrap(),
    ));
    let entry = listener("in", Terminal::Http(Arc::new(manager)));
    let proxy = Proxy::start(
        vec![entry],
        vec![
            cluster("1", &[first.address]),
            cluster("2", &[second.address]),
        ],
    )
    .await;
    let mut connection = client::http1(proxy.address("in")).await;
    for (target, expected) in [(None, 404), (Some("1"), 200), (Some("2"), 200)] {
        if let Some(target) = target {
            proxy.live.publish(Update {
                routes: set(vec![table("rds", vec![host(&["*"], vec![to(target)])])]),
                ..Update::default()
            });
        }
        connection.ready().await.unwrap();
        let (head, _) = client::read(
            connection
                .send_request(client::request("GET", "/"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(head.status().as_u16(), expected);
    }
    assert_eq!((first.requests(), second.requests()), (1, 1));
}

#[tokio::test]
async fn an_equal_cluster_keeps_its_connections_and_a_changed_one_does_not() {
    let backend = backend::echo().await;
    let make = || cluster("b", &[backend.address]);
    let proxy = Proxy::start(vec![http_listener("in", vec![to("b")])], vec![make()]).await;
    let id = |proxy: &Proxy| proxy.live.config().cluster("b").unwrap().id;
    let before = id(&proxy);
    client::get(proxy.address("in"), "/").await;
    proxy.live.publish(update(vec![], vec![make()]));
    client::get(proxy.address("in"), "/").await;
    assert_eq!((id(&proxy), backend.connections()), (before, 1));
    proxy.live.publish(update(
        vec![],
        vec![cluster_with("b", &[backend.address], |c| {
            c.connect_timeout = std::time::Duration::from_secs(9)
        })],
    ));
    client::get(proxy.address("in"), "/").await;
    assert_ne!(id(&proxy), before);
    assert_eq!(backend.connections(), 2);
    until(|| proxy.worker.pools.open_connections() == 1).await;
}

#[tokio::test]
async fn a_changed_listener_drains_and_an_equal_chain_does_not() {
    let backend = backend::echo().await;
    let make = || http_listener("in", vec![to("b")]);
    let proxy = Proxy::start(vec![make()], vec![cluster("b", &[backend.address])]).await;
    let mut kept = tokio::net::TcpStream::connect(proxy.address("in"))
        .await
        .unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    proxy.record(0).await;
    let mut equal_chains = make();
    equal_chains.per_connection_buffer_limit_bytes = 5;
    proxy.live.publish(update(vec![equal_chains], vec![]));
    kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    proxy.record(1).await;
    proxy
        .live
        .publish(update(vec![http_listener("in", vec![])], vec![]));
    let mut all = String::new();
    kept.read_to_string(&mut all).await.unwrap();
    assert_eq!(all.matches("200 OK").count(), 2, "{all}");
    let (head, _) = client::get(proxy.address("in"), "/").await;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_removed_listener_takes_no_connection() {
    let proxy = Proxy::start(vec![http_listener("in", vec![])], vec![]).await;
    let address = proxy.address("in");
    client::get(address, "/").await;
    proxy.live.publish(Update {
        listeners: Changes {
            set: vec![],
            removed: vec![proxy_config::ListenerName::parse("in").unwrap()],
        },
        ..Update::default()
    });
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::proxy::DEADLINE, refused)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_lets_requests_finish() {
    let answering = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = answering.clone();
    let backend = backend::serve(move |_, _| {
        let gate = gate.clone();
        async move {
            let _place = gate.acquire().await.unwrap();
            backend::text("finished")
        }
    })
    .await;
    let proxy = Proxy::start(
        vec![http_listener("in", vec![to("b")])],
        vec![cluster("b", &[backend.address])],
    )
    .await;
    let address = proxy.address("in");
    let asking = tokio::spawn(async move { client::get(address, "/").await });
    until(|| backend.requests() == 1).await;
    proxy.drain.start();
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::proxy::DEADLINE, refused)
        .await
        .unwrap();
    answering.add_permits(1);
    let (head, body) = asking.await.unwrap();
    assert_eq!(body, "finished");
    assert_eq!(head.headers()["connection"], "close");
    tokio::time::timeout(crate::proxy::DEADLINE, proxy.task)
        .await
        .unwrap()
        .unwrap();
}
