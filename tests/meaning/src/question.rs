//! A question: who, where to, and what of a request.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// One line of a case.
pub struct Question {
    pub pod: String,
    pub towards: Towards,
    /// Server name of a TLS connection.
    pub sni: Option<String>,
    /// `namespace/account` of the peer, over mutual TLS.
    pub from: Option<String>,
    pub method: String,
    pub path: String,
    pub host: String,
    pub headers: HeaderMap,
}

/// Which side of the proxy.
pub enum Towards {
    Out(SocketAddr),
    In(u16),
}

impl Question {
    /// Panics where the line is not a question.
    pub fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let mut word = || {
            words
                .next()
                .unwrap_or_else(|| panic!("{line}: not a question"))
                .to_owned()
        };
        let (pod, direction, place) = (word(), word(), word());
        let towards = match direction.as_str() {
            ">" => Towards::Out(place.parse().expect("an address and port")),
            "<" => Towards::In(place.parse().expect("a port")),
            _ => panic!("{line}: `>` or `<` comes after the pod"),
        };
        let mut question = Self {
            pod,
            towards,
            sni: None,
            from: None,
            method: String::new(),
            path: String::new(),
            host: String::new(),
            headers: HeaderMap::new(),
        };
        for word in words {
            match word.split_once('=') {
                _ if word.starts_with('/') => question.path = word.to_owned(),
                None => question.method = word.to_owned(),
                Some(("sni", name)) => question.sni = Some(name.to_owned()),
                Some(("from", account)) => question.from = Some(account.to_owned()),
                Some(("host", host)) => question.host = host.to_owned(),
                Some((name, value)) => {
                    let name: HeaderName = name.parse().expect("a header name");
                    question
                        .headers
                        .append(name, HeaderValue::from_str(value).expect("a header value"));
                }
            }
        }
        question
    }

    /// A connection without a request: TCP.
    pub fn is_http(&self) -> bool {
        !self.method.is_empty()
    }
}
