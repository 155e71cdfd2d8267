//! Situations that a proxy logs: what is sent to which listener, and where our answer differs from Envoy's on purpose.

/// One of them.
pub struct Situation {
    pub name: &'static str,
    pub listener: &'static str,
    pub send: &'static str,
    /// Close after so many milliseconds without reading the answer.
    pub leave_after_ms: Option<u64>,
    /// Operators whose values differ, with a reason beside them.
    pub differs: &'static [&'static str],
}

const fn http(name: &'static str, send: &'static str) -> Situation {
    Situation {
        name,
        listener: "http",
        send,
        leave_after_ms: None,
        differs: &[],
    }
}

const fn get(
    name: &'static str,
    send: &'static str,
    differs: &'static [&'static str],
) -> Situation {
    Situation {
        differs,
        ..http(name, send)
    }
}

const fn tcp(name: &'static str, listener: &'static str) -> Situation {
    Situation {
        name,
        listener,
        send: "ping",
        leave_after_ms: Some(150),
        differs: &[],
    }
}

macro_rules! request {
    ($line:literal) => {
        concat!(
            $line,
            " HTTP/1.1\r\nhost: svc.example:80\r\nconnection: close\r\n\r\n"
        )
    };
    ($line:literal, $headers:literal) => {
        concat!(
            $line,
            " HTTP/1.1\r\nhost: svc.example:80\r\nconnection: close\r\n",
            $headers,
            "\r\n\r\n"
        )
    };
    ($line:literal, $headers:literal, $body:literal) => {
        concat!(
            $line,
            " HTTP/1.1\r\nhost: svc.example:80\r\nconnection: close\r\n",
            $headers,
            "\r\n\r\n",
            $body
        )
    };
}

pub const SITUATIONS: &[Situation] = &[
    http(
        "plain",
        request!(
            "GET /a/b?a=1&b=two%20x",
            "user-agent: ua/1\r\nx-long: abcdefghij\r\nx-twice: 1\r\nx-twice: 2\r\nx-empty:"
        ),
    ),
    http("post", request!("POST /p", "content-length: 5", "abcde")),
    http(
        "chunked",
        request!("POST /p", "transfer-encoding: chunked", "0\r\n\r\n"),
    ),
    http("head", request!("HEAD /h")),
    http("rewrite", request!("GET /rewrite/x?q=1")),
    http(
        "grpc",
        request!(
            "POST /grpc",
            "content-type: application/grpc\r\ncontent-length: 5",
            "\0\0\0\0\0"
        ),
    ),
    http(
        "no route",
        "GET / HTTP/1.1\r\nhost: nothing.example\r\nconnection: close\r\n\r\n",
    ),
    http("direct", request!("GET /direct")),
    http("redirect", request!("GET /redirect")),
    http("no healthy host", request!("GET /empty")),
    http("refused", request!("GET /refused")),
    http("no cluster", request!("GET /none")),
    http("overflow", request!("GET /full")),
    http("upstream closes", request!("GET /x/close")),
    http("upstream breaks off", request!("GET /x/partial")),
    http("upstream speaks no HTTP", request!("GET /x/garbage")),
    http("timeout", request!("GET /timeout/slow")),
    http("per-try timeout", request!("GET /pertry/slow")),
    http("retries of an answer", request!("GET /retry/500")),
    http("retries of a close", request!("GET /retry/close")),
    http("retries of a refusal", request!("GET /retryconn")),
    http("abort", request!("GET /abort")),
    http("delay", request!("GET /delay")),
    http("denied", request!("GET /denied")),
    http("within the limit", request!("GET /limited")),
    http("rate limited", request!("GET /limited")),
    // The stock Envoy resumes by session tickets of its own kind.
    get("tls upstream", request!("GET /tlsup"), &[]),
    Situation {
        leave_after_ms: Some(150),
        ..http("client leaves", request!("GET /x/slow"))
    },
    Situation {
        listener: "https",
        ..http("mutual tls", request!("GET /s"))
    },
    tcp("tcp", "tcp"),
    Situation {
        leave_after_ms: None,
        ..tcp("tcp refused", "tcprefused")
    },
    tcp("tcp by mutual tls", "tcptls"),
];
