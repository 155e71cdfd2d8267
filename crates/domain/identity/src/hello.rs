//! Reading SNI and ALPN from the first bytes of a connection, without consuming them: Envoy's TLS
//! inspector.

use rustls::server::{Accepted, Acceptor};

/// More bytes than this without a whole ClientHello are refused as no TLS (Envoy's
/// `max_client_hello_size`: 16 KiB).
const MAX_HELLO_BYTES: usize = 16 * 1024;

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
    /// Lower case, as sent.
    pub sni: Option<String>,
    /// In the client's order of preference.
    pub alpn: Vec<Vec<u8>>,
}

/// Looks at a copy of a connection's first bytes.
pub fn peek_client_hello(bytes: &[u8]) -> HelloPeek {
    // A TLS record starts with type 22 (handshake) and version 3.x; anything else need not wait for
    // more bytes.
    match bytes {
        [] => return HelloPeek::Incomplete,
        [kind, ..] if *kind != 22 => return HelloPeek::NotTls,
        [_, major, ..] if *major != 3 => return HelloPeek::NotTls,
        [_, _, _, high, low, first, ..] if (*high, *low) == (0, 0) || *first != 1 => {
            return HelloPeek::NotTls;
        }
        _ => {}
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return HelloPeek::NotTls;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return HelloPeek::Hello(read(&accepted)),
            Ok(None) => {}
            Err(_) => return HelloPeek::NotTls,
        }
    }
    if bytes.len() >= MAX_HELLO_BYTES {
        HelloPeek::NotTls
    } else {
        HelloPeek::Incomplete
    }
}

fn read(accepted: &Accepted) -> ClientHello {
    let hello = accepted.client_hello();
    ClientHello {
        sni: hello.server_name().map(str::to_ascii_lowercase),
        alpn: hello
            .alpn()
            .map(|protocols| protocols.map(<[u8]>::to_vec).collect())
            .unwrap_or_default(),
    }
}
