//! TCP, TLS and WebSocket by other people's clients, and the orderly end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types};
use tokio_tungstenite::tungstenite::Message;

use crate::server::Server;

#[tokio::test]
async fn tcp_echo_puts_the_word_in_front() {
    let server = Server::start(&["tcp-echo", "0,0", "one"]);
    let mut stream = TcpStream::connect(server.at("tcp")).await.unwrap();
    stream.write_all(b"hello world\nagain\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "one hello world\none again\n");
}

#[tokio::test]
async fn tcp_port_returns_bytes_and_may_speak_first() {
    let server = Server::start(&["serve", "--tcp", "0", "--server-first"]);
    let mut stream = BufReader::new(TcpStream::connect(server.at("tcp")).await.unwrap());
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await.unwrap();
    assert_eq!(greeting, "220 pod-1 ready\r\n");
    let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.unwrap();
    writer.await.unwrap();
    assert_eq!(got, sent);
}

/// A server with a certificate made here, and a client configuration that trusts it.
fn tls_server(alpn: &[&[u8]]) -> (Server, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["echo.example".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!(
        "tanbark-echo-{}-{}",
        std::process::id(),
        uuid::Uuid::new_v4()
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = [certificate.to_str().unwrap(), key.to_str().unwrap()];
    let server = Server::start(&[
        "serve",
        "--tls",
        "0",
        "--tls-certificate",
        files[0],
        "--tls-key",
        files[1],
    ]);
    let mut roots = RootCertStore::empty();
    roots
        .add(pki_types::CertificateDer::from_pem_file(&certificate).unwrap())
        .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    (server, TlsConnector::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_speaks_http_by_alpn_and_echoes_without() {
    let name = || ServerName::try_from("echo.example").unwrap();
    let (server, connector) = tls_server(&[b"http/1.1"]);
    let mut stream = connector
        .connect(name(), TcpStream::connect(server.at("tls")).await.unwrap())
        .await
        .unwrap();
    stream
        .write_all(b"GET /get HTTP/1.1\r\nhost: echo.example\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200")
            && answer.contains("\"url\": \"https://echo.example/get\""),
        "{answer}"
    );

    let (server, connector) = tls_server(&[]);
    let mut stream = connector
        .connect(name(), TcpStream::connect(server.at("tls")).await.unwrap())
        .await
        .unwrap();
    stream.write_all(b"secret\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"secret\n");
}

#[tokio::test]
async fn websocket_returns_messages_and_is_closed_at_the_end() {
    let server = Server::start(&["serve", "--http", "0"]);
    let url = format!("ws://{}/websocket/echo", server.at("http"));
    let stream = TcpStream::connect(server.at("http")).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![0, 255])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    server.terminate();
    let closed = tokio::time::timeout(Duration::from_secs(5), socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let Message::Close(Some(frame)) = closed else {
        panic!("{closed:?}")
    };
    assert_eq!(u16::from(frame.code), 1001);
    while let Some(Ok(_)) = socket.next().await {}
    assert!(server.wait().await.success());
}

#[tokio::test]
async fn request_under_way_survives_the_signal_to_stop() {
    let server = Arc::new(Server::start(&["serve", "--http", "0"]));
    let asking = server.clone();
    let request = tokio::spawn(async move { asking.get("/delay/500ms").await.status });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while server.get("/counters").await.json()["paths"]["/delay/500ms"] != 1 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the request never arrived"
        );
    }
    server.terminate();
    while TcpStream::connect(server.at("http")).await.is_ok() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "still accepting after SIGTERM"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(request.await.unwrap(), StatusCode::OK);
    let server = Arc::into_inner(server).unwrap();
    assert!(server.wait().await.success());
}

#[tokio::test]
async fn lingering_server_takes_connections_after_the_signal() {
    let server = Server::start(&["serve", "--http", "0", "--linger", "60"]);
    server.terminate();
    // The signal is handled before the next request of the same thread; a server that stopped would refuse one of these.
    for _ in 0..50 {
        assert_eq!(server.get("/get").await.status, StatusCode::OK);
    }
}
