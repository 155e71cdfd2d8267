//! What a connection's first bytes tell before a filter chain is chosen: PROXY protocol, TLS ClientHello, HTTP.
//!
//! The listener filters of Envoy, run in their order over bytes that are peeked, not taken (but for a PROXY protocol header, which is taken),
//! so the chain that is chosen reads the connection from its start. Waiting is bounded by `listener_filters_timeout` where one is set; a
//! server-first protocol sends nothing and waits until then, as it does with Envoy.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use identity::{HelloPeek, peek_client_hello};
use proxy_config::{Listener, listener::ListenerFilterKind};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::TcpStream,
};

use crate::chain::ConnectionFacts;

/// Longer heads are no HTTP that the inspector could tell (Envoy: 64 KiB), longer ClientHellos no TLS.
const MAX_PEEK_BYTES: usize = 64 << 10;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a look at the first bytes gave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look<T> {
    NeedsMore,
    Is(T),
    IsNot,
}

/// Runs the listener's filters. `Err`: the connection must be closed.
pub async fn inspect(
    stream: &mut TcpStream,
    listener: &Listener,
    facts: &mut ConnectionFacts,
) -> io::Result<Inspected> {
    let looking = run(stream, listener, facts);
    let Some(limit) = listener.listener_filters_timeout else {
        return looking.await;
    };
    match tokio::time::timeout(limit, looking).await {
        Ok(result) => result,
        Err(_) if listener.continue_on_listener_filters_timeout => Ok(Inspected {
            gave_up: true,
            ..Inspected::default()
        }),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What the filters did beyond filling the facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Time was up while bytes were looked at that did not tell enough.
    pub gave_up: bool,
    /// A PROXY protocol header gave the addresses.
    pub destination_restored: bool,
}

async fn run(
    stream: &mut TcpStream,
    listener: &Listener,
    facts: &mut ConnectionFacts,
) -> io::Result<Inspected> {
    let mut inspected = Inspected::default();
    for filter in listener.listener_filters.iter() {
        if filter
            .disabled
            .as_ref()
            .is_some_and(|predicate| predicate.is_match(facts.destination.port()))
        {
            continue;
        }
        match &filter.kind {
            // Done when the connection was accepted, as it also chooses the listener.
            ListenerFilterKind::OriginalDst => {}
            ListenerFilterKind::ProxyProtocol { allow_without } => {
                inspected.destination_restored |=
                    proxy_protocol(stream, *allow_without, facts).await?;
            }
            ListenerFilterKind::TlsInspector => {
                if let Some(hello) = look(stream, |bytes, _| client_hello(bytes)).await? {
                    facts.is_tls = true;
                    facts.server_name = hello.sni.map(Arc::from);
                    facts.application_protocols = hello
                        .alpn
                        .iter()
                        .map(|p| String::from_utf8_lossy(p).into())
                        .collect();
                }
            }
            ListenerFilterKind::HttpInspector if facts.is_tls => {}
            ListenerFilterKind::HttpInspector => {
                if let Some(protocol) = look(stream, |bytes, _| http(bytes)).await? {
                    facts.application_protocols = vec![Arc::from(protocol)];
                }
            }
        }
    }
    Ok(inspected)
}

/// Whether a plaintext connection begins with the preface of HTTP/2.
pub async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let preface = |bytes: &[u8], _| match HTTP2_PREFACE.starts_with(bytes)
        || bytes.starts_with(HTTP2_PREFACE)
    {
        true if bytes.len() >= HTTP2_PREFACE.len() => Look::Is(()),
        true => Look::NeedsMore,
        false => Look::IsNot,
    };
    Ok(look(stream, preface).await?.is_some())
}

/// Peeks until the bytes are told, more bytes cannot help, or the client has said all.
async fn look<T>(
    stream: &TcpStream,
    tell: impl Fn(&[u8], usize) -> Look<T>,
) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 1024];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let length = match stream.try_io(Interest::READABLE, || {
            socket2::SockRef::from(stream).peek(as_uninit(&mut buffer))
        }) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        match tell(bytes, length) {
            Look::Is(found) => return Ok(Some(found)),
            Look::IsNot => return Ok(None),
            Look::NeedsMore
                if length == 0 || ready.is_read_closed() || length >= MAX_PEEK_BYTES =>
            {
                return Ok(None);
            }
            Look::NeedsMore if length == buffer.len() => {
                buffer.resize((length * 4).min(MAX_PEEK_BYTES), 0)
            }
            // The bytes stay in the socket, so it stays readable: only news of more must wake us.
            Look::NeedsMore => {
                let _ = stream.try_io(Interest::READABLE, || {
                    Err::<(), _>(io::ErrorKind::WouldBlock.into())
                });
            }
        }
    }
}

/// socket2 peeks into memory that need not be initialised.
fn as_uninit(buffer: &mut [u8]) -> &mut [std::mem::MaybeUninit<u8>] {
    let (pointer, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: initialised bytes are valid as possibly uninitialised ones, and `peek` writes only initialised bytes.
    unsafe { std::slice::from_raw_parts_mut(pointer, length) }
}

fn client_hello(bytes: &[u8]) -> Look<identity::ClientHello> {
    match peek_client_hello(bytes) {
        HelloPeek::Incomplete => Look::NeedsMore,
        HelloPeek::NotTls => Look::IsNot,
        HelloPeek::Hello(hello) => Look::Is(hello),
    }
}

/// The names that Envoy's HTTP inspector gives.
fn http(bytes: &[u8]) -> Look<&'static str> {
    if bytes.is_empty() {
        return Look::NeedsMore;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return if bytes.len() == HTTP2_PREFACE.len() {
            Look::Is("h2c")
        } else {
            Look::NeedsMore
        };
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Look::Is("h2c");
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
        let plausible = bytes
            .iter()
            .take_while(|byte| **byte != b' ')
            .all(is_method);
        return if plausible && bytes.len() < MAX_PEEK_BYTES {
            Look::NeedsMore
        } else {
            Look::IsNot
        };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(_), Some(b"HTTP/1.1"), None) if !method.is_empty() => {
            Look::Is("http/1.1")
        }
        (Some(method), Some(_), Some(b"HTTP/1.0"), None) if !method.is_empty() => {
            Look::Is("http/1.0")
        }
        _ => Look::IsNot,
    }
}

/// Takes the header of HAProxy's PROXY protocol; `true`: it gave addresses.
async fn proxy_protocol(
    stream: &mut TcpStream,
    allow_without: bool,
    facts: &mut ConnectionFacts,
) -> io::Result<bool> {
    let Some(header) = look(stream, |bytes, _| proxy_header(bytes)).await? else {
        return if allow_without {
            Ok(false)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no PROXY protocol header",
            ))
        };
    };
    let mut taken = vec![0; header.length];
    stream.read_exact(&mut taken).await?;
    let Some((source, destination)) = header.addresses else {
        return Ok(false);
    };
    (facts.source, facts.destination) = (source, destination);
    Ok(true)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProxyHeader {
    length: usize,
    /// `None`: the connection's own addresses (`UNKNOWN`, `LOCAL`).
    addresses: Option<(SocketAddr, SocketAddr)>,
}

fn proxy_header(bytes: &[u8]) -> Look<ProxyHeader> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if SIGNATURE.starts_with(bytes) || bytes.starts_with(SIGNATURE) {
        return proxy_header_v2(bytes);
    }
    if !b"PROXY ".starts_with(bytes.get(..6.min(bytes.len())).unwrap_or_default()) {
        return Look::IsNot;
    }
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        // The longest line of version 1 has 107 bytes.
        return if bytes.len() < 107 {
            Look::NeedsMore
        } else {
            Look::IsNot
        };
    };
    let words: Vec<&str> = std::str::from_utf8(bytes.get(..end).unwrap_or_default())
        .unwrap_or_default()
        .split(' ')
        .collect();
    let addresses = match words.as_slice() {
        [_, "UNKNOWN", ..] => None,
        [_, "TCP4" | "TCP6", from, to, from_port, to_port] => {
            let address = |ip: &str, port: &str| {
                Some(SocketAddr::new(
                    ip.parse::<IpAddr>().ok()?,
                    port.parse().ok()?,
                ))
            };
            match (address(from, from_port), address(to, to_port)) {
                (Some(from), Some(to)) => Some((from, to)),
                _ => return Look::IsNot,
            }
        }
        _ => return Look::IsNot,
    };
    Look::Is(ProxyHeader {
        length: end + 2,
        addresses,
    })
}

fn proxy_header_v2(bytes: &[u8]) -> Look<ProxyHeader> {
    let Some(&[command, family, high, low]) = bytes.get(12..16) else {
        return Look::NeedsMore;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    let Some(body) = bytes.get(16..length) else {
        return if length <= MAX_PEEK_BYTES {
            Look::NeedsMore
        } else {
            Look::IsNot
        };
    };
    let port = |at: usize| {
        body.get(at..at + 2)
            .and_then(|two| two.try_into().ok())
            .map(u16::from_be_bytes)
    };
    let address = |at: usize, size: usize, port_at: usize| {
        let ip = match size {
            4 => IpAddr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?),
        };
        Some(SocketAddr::new(ip, port(port_at)?))
    };
    let addresses = match (command, family) {
        (0x20, _) => None,
        (0x21, 0x11) => address(0, 4, 8).zip(address(4, 4, 10)),
        (0x21, 0x21) => address(0, 16, 32).zip(address(16, 16, 34)),
        (0x21, _) => None,
        _ => return Look::IsNot,
    };
    Look::Is(ProxyHeader { length, addresses })
}

/// What closes a connection whose handshake takes too long.
pub async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_its_first_line() {
        let table: [(&[u8], Look<&str>); 9] = [
            (b"", Look::NeedsMore),
            (b"GET / HT", Look::NeedsMore),
            (b"GET / HTTP/1.1\r\n", Look::Is("http/1.1")),
            (b"GET / HTTP/1.0\r\nHost: a\r\n", Look::Is("http/1.0")),
            (b"PRI * HT", Look::NeedsMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Look::Is("h2c")),
            (b"\x16\x03\x01", Look::IsNot),
            (b"hello\n", Look::IsNot),
            (b"GET / FOO/9\r\n", Look::IsNot),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                http(bytes),
                expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn proxy_headers_of_both_versions_are_read() {
        let (a, b) = (
            "10.0.0.1:1000".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
        );
        let line = b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\nGET";
        assert_eq!(
            proxy_header(line),
            Look::Is(ProxyHeader {
                length: 38,
                addresses: Some((a, b))
            })
        );
        assert_eq!(proxy_header(&line[..20]), Look::NeedsMore);
        assert_eq!(proxy_header(b"GET / HTTP/1.1\r\n"), Look::IsNot);
        assert_eq!(
            proxy_header(b"PROXY UNKNOWN\r\n"),
            Look::Is(ProxyHeader {
                length: 15,
                addresses: None
            })
        );
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        v2.extend([10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80]);
        assert_eq!(
            proxy_header(&v2),
            Look::Is(ProxyHeader {
                length: 28,
                addresses: Some((a, b))
            })
        );
        assert_eq!(proxy_header(&v2[..27]), Look::NeedsMore);
    }
}
