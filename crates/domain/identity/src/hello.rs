//! Reading SNI and ALPN from the first bytes of a connection, without consuming them: Envoy's TLS
//! inspector.
//!
//! The reader is a parser of its own rather than rustls's, because rustls refuses a hello that it
//! would not serve (TLS 1.0 and 1.1, TLS 1.2 without `signature_algorithms`, names that are no DNS
//! names), and what is passed through is not ours to serve: only its name decides where it goes. It
//! reads the layout of RFC 8446 §4.1.2 (which is that of RFC 5246 §7.4.1.2), the extensions
//! `server_name` (RFC 6066 §3) and `application_layer_protocol_negotiation` (RFC 7301 §3.1), and
//! nothing else. A chain that terminates TLS still has rustls judge the hello.

/// More bytes than this without a whole ClientHello are refused as no TLS (Envoy's
/// `max_client_hello_size`: 16 KiB).
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// A record's type, version and length.
const RECORD_HEADER_BYTES: usize = 5;
/// The length of a record's content (RFC 8446 §5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;
/// A handshake message's type and length.
const MESSAGE_HEADER_BYTES: usize = 4;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ALPN: u16 = 16;
/// A server name (RFC 1035 §2.3.4 ends names there).
const MAX_NAME_BYTES: usize = 255;

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloPeek {
    /// May become a ClientHello: peek again with more bytes.
    Incomplete,
    /// Not the beginning of a TLS connection.
    NotTls,
    Hello(ClientHello),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Lower case, otherwise as sent: 1 to 255 visible characters of ASCII, which need not be a DNS
    /// name.
    pub sni: Option<String>,
    /// In the client's order of preference.
    pub alpn: Vec<Vec<u8>>,
}

/// Looks at a copy of a connection's first bytes.
pub fn peek_client_hello(bytes: &[u8]) -> HelloPeek {
    let message = match message(bytes) {
        Message::NotTls => return HelloPeek::NotTls,
        Message::Incomplete if bytes.len() >= MAX_HELLO_BYTES => return HelloPeek::NotTls,
        Message::Incomplete => return HelloPeek::Incomplete,
        Message::Whole(message) => message,
    };
    match read(&message) {
        Some(hello) => HelloPeek::Hello(hello),
        None => HelloPeek::NotTls,
    }
}

enum Message {
    Incomplete,
    NotTls,
    /// A ClientHello without its header.
    Whole(Vec<u8>),
}

/// Puts the first handshake message together from its records, of which a client may send as many
/// as it likes.
fn message(bytes: &[u8]) -> Message {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        // What cannot become a handshake record need not wait for more bytes.
        match rest {
            [kind, ..] if *kind != HANDSHAKE_RECORD => return Message::NotTls,
            [_, major, ..] if *major != 3 => return Message::NotTls,
            _ => {}
        }
        let Some(&[_, _, _, high, low]) = rest.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Message::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_RECORD_BYTES {
            return Message::NotTls;
        }
        let content = rest.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        message.extend_from_slice(content.get(..length).unwrap_or(content));
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::NotTls;
        }
        if let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEADER_BYTES>() {
            let length = u32::from_be_bytes([0, high, middle, low]);
            let end = usize::try_from(length).map_or(usize::MAX, |n| n + MESSAGE_HEADER_BYTES);
            if end > MAX_HELLO_BYTES {
                return Message::NotTls;
            }
            if let Some(whole) = message.get(MESSAGE_HEADER_BYTES..end) {
                return Message::Whole(whole.to_vec());
            }
        }
        match content.get(length..) {
            Some(next) => rest = next,
            None => return Message::Incomplete,
        }
    }
}

/// `None`: lengths in it do not fit each other, or a name is none.
fn read(message: &[u8]) -> Option<ClientHello> {
    let mut hello = Reader(message);
    // Version and random.
    hello.take(2 + 32)?;
    let _session = hello.short_list()?;
    let _suites = hello.list()?;
    let _compression = hello.short_list()?;
    let mut found = ClientHello::default();
    if hello.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(hello.list()?);
    if !hello.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.list()?;
        match kind {
            SERVER_NAME => found.sni = Some(server_name(content)?),
            ALPN => found.alpn = protocols(content)?,
            _ => {}
        }
    }
    Some(found)
}

/// The host name of the list, which may have one (RFC 6066 §3).
fn server_name(content: &[u8]) -> Option<String> {
    let mut content = Reader(content);
    let mut names = Reader(content.list()?);
    let (kind, name) = (names.take(1)?, names.list()?);
    let is_host = kind == [HOST_NAME] && (1..=MAX_NAME_BYTES).contains(&name.len());
    if !is_host || !names.0.is_empty() || !content.0.is_empty() {
        return None;
    }
    // What goes to logs and matchers has no control characters in it.
    let is_visible = name.iter().all(u8::is_ascii_graphic);
    String::from_utf8(name.to_ascii_lowercase())
        .ok()
        .filter(|_| is_visible)
}

fn protocols(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut content = Reader(content);
    let mut list = Reader(content.list()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.short_list()?;
        if protocol.is_empty() {
            return None;
        }
        protocols.push(protocol.to_vec());
    }
    (content.0.is_empty() && !protocols.is_empty()).then_some(protocols)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let (&number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(number))
    }

    /// Bytes after their length of two bytes.
    fn list(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    /// Bytes after their length of one byte.
    fn short_list(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(content)].concat()
    }

    fn name(name: &[u8]) -> Vec<u8> {
        extension(
            SERVER_NAME,
            &with_length(&[&[HOST_NAME][..], &with_length(name)].concat()),
        )
    }

    /// A hello of this version, split into records of at most `cut` bytes.
    fn hello(minor: u8, extensions: &[u8], cut: usize) -> Vec<u8> {
        let mut body = [&[3, minor][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
        if !extensions.is_empty() {
            body.extend(with_length(extensions));
        }
        let length = u8::try_from(body.len() >> 8).unwrap();
        let header = [CLIENT_HELLO, 0, length, (body.len() & 0xff) as u8];
        let message = [&header[..], &body].concat();
        let records = message.chunks(cut);
        records
            .flat_map(|record| [&[HANDSHAKE_RECORD, 3, 1][..], &with_length(record)].concat())
            .collect()
    }

    fn sni(bytes: &[u8]) -> Option<String> {
        match peek_client_hello(bytes) {
            HelloPeek::Hello(hello) => hello.sni,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hellos_that_nobody_here_would_serve_have_names_all_the_same() {
        let long = "x".repeat(70) + ".b.test";
        for server in [
            "a.b.test",
            "x-.b.test",
            "-x.b.test",
            "x_y.b.test",
            "*.b.test",
            &long,
        ] {
            for minor in 0..=3 {
                let bytes = hello(minor, &name(server.as_bytes()), 1 << 14);
                assert_eq!(sni(&bytes).as_deref(), Some(server), "TLS 1.{minor}");
            }
        }
        assert_eq!(
            sni(&hello(3, &name(b"A.Test"), 1 << 14)).as_deref(),
            Some("a.test")
        );
        assert_eq!(
            sni(&hello(3, &[], 1 << 14)),
            None,
            "SSL 3 has no extensions"
        );
    }

    #[test]
    fn a_hello_in_many_records_is_put_together() {
        let whole = extension(ALPN, &with_length(b"\x02h2\x08http/1.1"));
        let bytes = hello(3, &[name(b"a.test"), whole].concat(), 3);
        for cut in 0..bytes.len() {
            assert_eq!(
                peek_client_hello(&bytes[..cut]),
                HelloPeek::Incomplete,
                "{cut}"
            );
        }
        let expected = ClientHello {
            sni: Some("a.test".into()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        assert_eq!(peek_client_hello(&bytes), HelloPeek::Hello(expected));
    }

    #[test]
    fn lengths_that_do_not_fit_make_no_hello() {
        let two = [
            &[HOST_NAME][..],
            &with_length(b"a"),
            &[HOST_NAME],
            &with_length(b"b"),
        ]
        .concat();
        let broken = [
            name(b""),
            name(b"a\0b"),
            name(b"a b"),
            name("ü.test".as_bytes()),
            name(&[b'x'; 256]),
            extension(SERVER_NAME, &[]),
            extension(SERVER_NAME, &with_length(&two)),
            extension(SERVER_NAME, &with_length(&[1, 0, 1, b'a'])),
            extension(ALPN, &with_length(&[])),
            extension(ALPN, &with_length(&[0])),
            extension(ALPN, &with_length(&[9, b'h'])),
            vec![0, 0, 0],
            vec![0, 5, 0, 9, 1],
        ];
        for extensions in broken {
            let bytes = hello(3, &extensions, 1 << 14);
            assert_eq!(
                peek_client_hello(&bytes),
                HelloPeek::NotTls,
                "{extensions:?}"
            );
        }
    }
}
