//! TCP: bytes through, ends passed on, chains chosen.

use std::sync::Arc;

use proxy_config::{cluster::Discovery, listener::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{backend, client, config::*, proxy::Proxy};

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let address = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream
                .write_all(format!("{} bytes", all.len()).as_bytes())
                .await
                .unwrap();
        });
    })
    .await;
    let proxy = Proxy::start(
        vec![listener("in", tcp("b"))],
        vec![cluster("b", &[address])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream.write_all(&vec![7; 1_000_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "1000000 bytes");
    let record = proxy.record(0).await;
    assert_eq!((record.bytes.received, record.bytes.sent), (1_000_000, 13));
    assert!(record.flags.is_empty());
}

/// When it is dropped, the peer gets a reset.
fn reset_on_drop(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// A cut answer would otherwise pass for a whole one where the protocol tells no length.
#[tokio::test]
async fn a_reset_is_passed_on_both_ways() {
    let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let address = backend::raw(move |mut stream| {
        let told = told.clone();
        tokio::spawn(async move {
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(b"half").await.unwrap();
            if &word == b"reset" {
                // What is on its way arrives before the reset does: it was asked for.
                stream.read_exact(&mut [0; 1]).await.unwrap();
                reset_on_drop(&stream);
            } else {
                let end = stream.read(&mut word).await;
                told.send(end.map_err(|error| error.kind())).unwrap();
            }
        });
    })
    .await;
    let proxy = Proxy::start(
        vec![listener("in", tcp("b"))],
        vec![cluster("b", &[address])],
    )
    .await;
    let reset = std::io::ErrorKind::ConnectionReset;
    let mut word = [0; 4];
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream.write_all(b"reset").await.unwrap();
    stream.read_exact(&mut word).await.unwrap();
    stream.write_all(b"!").await.unwrap();
    let end = stream.read(&mut word).await.map_err(|error| error.kind());
    assert_eq!(end, Err(reset), "the upstream's reset");

    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut word).await.unwrap();
    reset_on_drop(&stream);
    drop(stream);
    assert_eq!(ends.recv().await, Some(Err(reset)), "the client's reset");
    let flags = [proxy.record(0).await.flags, proxy.record(1).await.flags];
    assert_eq!(flags.map(|flags| flags.to_string()), ["UC", "DC"]);
}

#[tokio::test]
async fn an_upstream_that_refuses_closes_the_connection_with_uf() {
    let proxy = Proxy::start(
        vec![listener("in", tcp("b"))],
        vec![cluster("b", &[backend::nobody().await])],
    )
    .await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    assert_eq!(proxy.record(0).await.flags.to_string(), "UF,URX");
}

#[tokio::test]
async fn an_original_destination_goes_where_the_client_wanted() {
    let backend = backend::echo().await;
    let mut entry = http_listener("in", vec![to("passthrough")]);
    entry.listener_filters = Arc::from([ListenerFilter {
        kind: ListenerFilterKind::ProxyProtocol {
            allow_without: true,
        },
        disabled: None,
    }]);
    let passthrough = cluster_with("passthrough", &[], |c| {
        c.discovery = Discovery::OriginalDst {
            http_header: None,
            port_override: None,
        }
    });
    let proxy = Proxy::start(vec![entry], vec![passthrough]).await;
    let (head, _) = client::get(proxy.address("in"), "/").await;
    assert_eq!(
        head.status(),
        503,
        "the proxy's own address is no destination"
    );
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let port = backend.address.port();
    let sent = format!(
        "PROXY TCP4 10.9.8.7 127.0.0.1 1000 {port}\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let record = proxy.record(1).await;
    assert_eq!(
        record.downstream_remote,
        Some(telemetry::record::Address::Socket(
            "10.9.8.7:1000".parse().unwrap()
        ))
    );
    assert_eq!(
        record.upstream_host,
        Some(telemetry::record::Address::Socket(backend.address))
    );
}

#[tokio::test]
async fn a_sniffing_listener_parts_http_from_other_protocols() {
    let web = backend::echo().await;
    let other = backend::raw(|mut stream| {
        tokio::spawn(async move {
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(b"not http").await.unwrap();
        });
    })
    .await;
    let mut entry = http_listener("in", vec![to("web")]);
    let mut http_chain = (*entry.chains[0]).clone();
    http_chain.matches.application_protocols = Arc::from(["http/1.1".into(), "h2c".into()]);
    http_chain.matches.transport_protocol = TransportProtocol::RawBuffer;
    entry.chains = Arc::from([Arc::new(http_chain)]);
    entry.default_chain = Some(Arc::new(chain("tcp", tcp("other"))));
    entry.listener_filters = Arc::from([ListenerFilter {
        kind: ListenerFilterKind::HttpInspector,
        disabled: None,
    }]);
    let proxy = Proxy::start(
        vec![entry],
        vec![cluster("web", &[web.address]), cluster("other", &[other])],
    )
    .await;
    let (head, _) = client::get(proxy.address("in"), "/").await;
    assert_eq!(head.status(), 200);
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    // In two pieces, so that the first tells too little.
    stream.write_all(b"AB").await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"\x01\x02\x03").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "not http");
}

#[tokio::test]
async fn a_connection_that_no_chain_takes_is_closed_with_nr() {
    let mut entry = listener("in", tcp("b"));
    let mut only = (*entry.chains[0]).clone();
    only.matches.destination_port = Some(1);
    entry.chains = Arc::from([Arc::new(only)]);
    let proxy = Proxy::start(vec![entry], vec![]).await;
    let mut stream = TcpStream::connect(proxy.address("in")).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let record = proxy.record(0).await;
    assert_eq!(
        (
            record.flags.to_string(),
            record.response_code_details.as_deref()
        ),
        ("NR".into(), Some("filter_chain_not_found"))
    );
}
