//! Bytes that no client should send, at every kind of listener: the proxy goes on serving, and what it holds is bounded.
//!
//! Only our proxy: how Envoy ends such connections is its own affair. The random bytes come from a fixed seed, so that a failure repeats.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use crate::{
    case, config,
    program::{Program, Which},
    transcript,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// More than a proxy of these few listeners may come to hold, whoever shouts at it.
const MAX_GROWTH_KIB: u64 = 64 << 10;

/// Beginnings that lead random bytes into parsers.
const BEGINNINGS: [&[u8]; 8] = [
    b"",
    b"GET / HTTP/1.1\r\nhost: a.test\r\n",
    b"POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 ",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small payload")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short");
    [
        &[0, length(name)],
        name.as_bytes(),
        &[length(value)],
        value.as_bytes(),
    ]
    .concat()
}

/// A header block of a request.
fn head() -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.test"),
    ];
    fields
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

/// Writes until all is written, the proxy closes, or it reads no more; then reads what is there. Nothing of it is an error of the test.
fn shout(address: SocketAddr, parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the listener is open");
    let patience = Some(Duration::from_millis(300));
    stream.set_write_timeout(patience).expect("a timeout");
    stream.set_read_timeout(patience).expect("a timeout");
    for part in parts {
        if stream.write_all(&part).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A proxy with the listeners of a case, and a look at its health.
struct Victim {
    program: Program,
    run: transcript::Run,
    before_kib: u64,
}

impl Victim {
    async fn start(name: &str) -> Self {
        let run = transcript::prepare(case::read(name)).await;
        let file = run.folder.path().join("bootstrap.json");
        let config = config::bootstrap(&run.case, &run.places, &run.log);
        std::fs::write(&file, config.to_string()).expect("a file");
        let program = Program::start(Which::Tanbark, Path::new(""), &file, run.places.admin).await;
        let mut victim = Self {
            program,
            run,
            before_kib: 0,
        };
        victim.before_kib = victim.program.resident_kib();
        victim
    }

    fn listener(&self, name: &str) -> SocketAddr {
        self.run.places.listeners[name]
    }

    /// It lives, answers its admin port and a plain request, and has not grown beyond measure.
    async fn is_well(&self, after: &str, listener: &str, request: &str) {
        let ready = self.program.admin("GET", "/ready").await;
        assert!(
            ready.is_some_and(|text| text.starts_with("LIVE")),
            "after {after}"
        );
        let answer = shout(self.listener(listener), [request.as_bytes().to_vec()]);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "after {after}: {answer:?}"
        );
        let grown = self.program.resident_kib().saturating_sub(self.before_kib);
        assert!(grown < MAX_GROWTH_KIB, "after {after}: {grown} KiB more");
    }
}

const GOOD: &str = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";

fn on_a_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(test);
}

#[test]
fn random_bytes_at_every_listener_hurt_nobody() {
    on_a_runtime(async {
        for (name, good) in [("tls", "always"), ("edge", "in"), ("http2", "in")] {
            let victim = Victim::start(name).await;
            let mut random = fastrand::Rng::with_seed(20_261_127);
            let listeners: Vec<SocketAddr> =
                victim.run.places.listeners.values().copied().collect();
            for round in 0..400 {
                let mut bytes = BEGINNINGS[round % BEGINNINGS.len()].to_vec();
                let length = random.usize(..2000);
                bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(length));
                let address = listeners[random.usize(..listeners.len())];
                let mut stream = TcpStream::connect(address).expect("the listener is open");
                // Cut in two, so that a parser sees an end that is none.
                let (first, second) = bytes.split_at(bytes.len() / 2);
                let _ = stream.write_all(first);
                let _ = stream.write_all(second);
            }
            let good_path = if name == "http2" {
                GOOD.replace("GET /", "GET /one")
            } else {
                GOOD.to_owned()
            };
            victim.is_well("random bytes", good, &good_path).await;
        }
    });
}

#[test]
fn floods_of_frames_end_their_connection_or_wait() {
    on_a_runtime(async {
        let victim = Victim::start("http2").await;
        let address = victim.listener("in");
        let good = GOOD.replace("GET /", "GET /one");
        let start = || [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
        let opened = |stream: u32| frame(1, 5, stream, &head());
        let reset = |stream: u32| frame(3, 0, stream, &8u32.to_be_bytes());
        let many = |make: &dyn Fn(u32) -> Vec<u8>| {
            (0..200)
                .map(|turn| (0..500).flat_map(|n| make(turn * 500 + n)).collect())
                .collect::<Vec<Vec<u8>>>()
        };
        let floods: [(&str, Vec<Vec<u8>>); 6] = [
            (
                "rapid resets",
                many(&|n| [opened(2 * n + 1), reset(2 * n + 1)].concat()),
            ),
            ("SETTINGS", many(&|_| frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]))),
            ("PING", many(&|_| frame(6, 0, 0, b"12345678"))),
            ("CONTINUATION", {
                let mut parts = vec![frame(1, 1, 1, &head())];
                parts.extend(many(&|_| frame(9, 0, 1, &literal("x-more", "and more"))));
                parts
            }),
            ("empty DATA", {
                let mut parts = vec![frame(1, 4, 1, &head())];
                parts.extend(many(&|_| frame(0, 0, 1, &[])));
                parts
            }),
            (
                "a giant frame",
                vec![[vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], vec![0; 1 << 20]].concat()],
            ),
        ];
        for (name, parts) in floods {
            shout(address, std::iter::once(start()).chain(parts));
            victim.is_well(name, "in", &good).await;
        }
    });
}

#[test]
fn heads_without_end_and_clients_that_say_nothing_keep_nobody_waiting() {
    on_a_runtime(async {
        let victim = Victim::start("edge").await;
        let address = victim.listener("in");
        let line = format!("x-long: {}\r\n", "y".repeat(1 << 10));
        let start = b"GET / HTTP/1.1\r\nhost: a.test\r\n".to_vec();
        let endless = std::iter::once(start).chain(std::iter::repeat_n(line.into_bytes(), 20_000));
        let answer = shout(address, endless);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        victim.is_well("a head without end", "in", GOOD).await;
        let mut open = Vec::new();
        for turn in 0..300 {
            let mut stream = TcpStream::connect(address).expect("the listener is open");
            let said = &b"GET / HTTP/1.1\r\nhost: a.test\r\nx-slow: "[..turn % 38];
            stream.write_all(said).expect("a few bytes");
            open.push(stream);
        }
        victim.is_well("300 clients that wait", "in", GOOD).await;
        drop(open);
        victim.is_well("their going", "in", GOOD).await;
    });
}
