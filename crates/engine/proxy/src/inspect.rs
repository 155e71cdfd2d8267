//! What a connection's first bytes tell before a filter chain is chosen: PROXY protocol, TLS
//! ClientHello, HTTP.
//!
//! The listener filters of Envoy, run in their order over bytes that are peeked, not taken (but for
//! a PROXY protocol header, which is taken), so the chain that is chosen reads the connection from
//! its start. Waiting is bounded by `listener_filters_timeout`, or by [`MAX_SILENCE`] where that is
//! switched off; a server-first protocol sends nothing and waits until then, as it does with Envoy.

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

/// How long a connection may say nothing where the configuration sets no limit: Envoy's default for
/// idle connections.
pub const MAX_SILENCE: Duration = Duration::from_secs(3600);
/// Longer heads are no HTTP that the inspector could tell (Envoy: 64 KiB), longer ClientHellos no
/// TLS.
const MAX_PEEK_BYTES: usize = 64 << 10;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a look at the first bytes gave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look<T> {
    NeedsMore,
    Is(T),
    IsNot,
    /// It began as one and cannot be read: the connection must be closed.
    Broken,
}

/// Runs the listener's filters. `Err`: the connection must be closed.
pub async fn inspect(
    stream: &mut TcpStream,
    listener: &Listener,
    facts: &mut ConnectionFacts,
) -> io::Result<Inspected> {
    let configured = listener.listener_filters_timeout;
    let limit = configured.unwrap_or(MAX_SILENCE);
    match within(limit, run(stream, listener, facts)).await {
        Err(error)
            if is_timeout(&error)
                && configured.is_some()
                && listener.continue_on_listener_filters_timeout =>
        {
            Ok(Inspected {
                gave_up: true,
                ..Inspected::default()
            })
        }
        result => result,
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
            Look::Broken => return Err(io::ErrorKind::InvalidData.into()),
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
    // SAFETY: initialised bytes are valid as possibly uninitialised ones, and `peek` writes only
    // initialised bytes.
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

/// The longest line of version 1, with its end.
const MAX_LINE_BYTES: usize = 107;

/// A header that begins and is none is broken, whether one is required or not: to guess what it
/// says would be to believe anyone's address.
fn proxy_header(bytes: &[u8]) -> Look<ProxyHeader> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if SIGNATURE.starts_with(bytes) || bytes.starts_with(SIGNATURE) {
        return proxy_header_v2(bytes);
    }
    if !b"PROXY ".starts_with(bytes.get(..6.min(bytes.len())).unwrap_or_default()) {
        return Look::IsNot;
    }
    let line = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE_BYTES {
            Look::NeedsMore
        } else {
            Look::Broken
        };
    };
    let Ok(line) = std::str::from_utf8(line.get(..end).unwrap_or_default()) else {
        return Look::Broken;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let addresses = match words.as_slice() {
        [_, "UNKNOWN", ..] => None,
        [_, family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let is_ipv4 = *family == "TCP4";
            match (
                line_address(is_ipv4, from, from_port),
                line_address(is_ipv4, to, to_port),
            ) {
                (Some(from), Some(to)) => Some((from, to)),
                _ => return Look::Broken,
            }
        }
        _ => return Look::Broken,
    };
    Look::Is(ProxyHeader {
        length: end + 2,
        addresses,
    })
}

fn line_address(is_ipv4: bool, ip: &str, port: &str) -> Option<SocketAddr> {
    let ip = ip
        .parse::<IpAddr>()
        .ok()
        .filter(|ip| ip.is_ipv4() == is_ipv4)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    Some(SocketAddr::new(ip, port.parse().ok().filter(|_| digits)?))
}

fn proxy_header_v2(bytes: &[u8]) -> Look<ProxyHeader> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    const UNSPECIFIED: u8 = 0x00;
    const TCP_OVER_IPV4: u8 = 0x11;
    const TCP_OVER_IPV6: u8 = 0x21;
    let Some(&[command, family, high, low]) = bytes.get(12..16) else {
        return Look::NeedsMore;
    };
    let address_bytes = match (command, family) {
        (LOCAL, _) | (PROXY, UNSPECIFIED) => 0,
        (PROXY, TCP_OVER_IPV4) => 4,
        (PROXY, TCP_OVER_IPV6) => 16,
        _ => return Look::Broken,
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_PEEK_BYTES {
        return Look::Broken;
    }
    let Some(body) = bytes.get(16..length) else {
        return Look::NeedsMore;
    };
    if address_bytes == 0 {
        return Look::Is(ProxyHeader {
            length,
            addresses: None,
        });
    }
    match v2_addresses(body, address_bytes) {
        Some((addresses, rest)) if are_whole_tlvs(rest) => Look::Is(ProxyHeader {
            length,
            addresses: Some(addresses),
        }),
        _ => Look::Broken,
    }
}

/// Source and destination, and what follows them.
fn v2_addresses(body: &[u8], size: usize) -> Option<((SocketAddr, SocketAddr), &[u8])> {
    let (from, rest) = body.split_at_checked(size)?;
    let (to, rest) = rest.split_at_checked(size)?;
    let (from_port, rest) = rest.split_first_chunk()?;
    let (to_port, rest) = rest.split_first_chunk()?;
    let address = |ip: &[u8], port: &[u8; 2]| {
        let ip = match size {
            4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    };
    Some(((address(from, from_port)?, address(to, to_port)?), rest))
}

/// Whether the extensions (a type, a length of two bytes, a value) end where the header does.
fn are_whole_tlvs(mut rest: &[u8]) -> bool {
    while let Some((&[_, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        match after.get(length..) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Waits for a client, but no longer than that; [`is_timeout`] tells such an error.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
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

    #[test]
    fn a_proxy_header_that_cannot_be_read_is_broken() {
        let v2 = |command: u8, family: u8, rest: &[u8]| {
            let length = u8::try_from(rest.len()).unwrap();
            [
                b"\r\n\r\n\0\r\nQUIT\n",
                &[command, family, 0, length][..],
                rest,
            ]
            .concat()
        };
        let ports = [3, 232, 0, 80];
        let v4 = [&[10, 0, 0, 1, 10, 0, 0, 2][..], &ports].concat();
        let broken = [
            [&b"PROXY UNKNOWN "[..], &[b'x'; 150], b"\r\n"].concat(),
            b"PROXY TCP4 ::1 ::2 1000 80\r\n".to_vec(),
            b"PROXY TCP6 10.0.0.1 10.0.0.2 1000 80\r\n".to_vec(),
            b"PROXY UDP4 10.0.0.1 10.0.0.2 1000 80\r\n".to_vec(),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 99999 80\r\n".to_vec(),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 +80 80\r\n".to_vec(),
            b"PROXY TCP4 10.0.0.1\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            v2(0x11, 0x11, &v4),
            v2(0x22, 0x11, &v4),
            v2(0x21, 0x11, &v4[..4]),
            v2(0x21, 0x12, &v4),
            v2(0x21, 0x21, &v4),
            v2(0x21, 0x31, &[0; 216]),
            v2(0x21, 0x11, &[&v4[..], &[4, 0xff, 0xff, 1]].concat()),
            v2(0x21, 0x11, &[&v4[..], &[4, 0]].concat()),
        ];
        for header in broken {
            let text = String::from_utf8_lossy(&header);
            assert_eq!(proxy_header(&header), Look::Broken, "{text:?}");
        }
        for good in [
            v2(0x20, 0x00, &[]),
            v2(0x20, 0x31, &[9; 5]),
            v2(0x21, 0x00, &[]),
            v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 9]].concat()),
        ] {
            assert!(matches!(proxy_header(&good), Look::Is(_)), "{good:?}");
        }
    }
}
