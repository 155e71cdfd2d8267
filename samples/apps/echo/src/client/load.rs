//! A bounded HTTP/1.1 load generator: so many requests, or so long, at a rate or as fast as `--concurrency` connections go.
//!
//! With `--rate`, requests have a planned time and their latency counts from it, so that a slow server is not hidden by fewer requests.
//! A request on a kept connection that turns out closed before anything was sent is sent again on a new one; everything else counts.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::latency::Latencies;
use super::{Tally, authority, header, print, until};
use crate::query::duration_flag;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Of the body of a failed answer, what its tally keeps.
const MAX_ERROR_TEXT: usize = 120;

#[derive(Args, Clone)]
pub struct Load {
    /// `http://HOST[:PORT]/PATH`
    url: Uri,
    /// Requests in all.
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// Stop after this time (`10s`, `1m`).
    #[arg(long, short = 'z', value_parser = duration_flag)]
    duration: Option<Duration>,
    /// Connections at once.
    #[arg(long, short = 'c', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// Requests per second over all connections.
    #[arg(long, short = 'q')]
    rate: Option<f64>,
    #[arg(long, short = 'X', default_value = "GET")]
    method: Method,
    /// `name: value`; may be repeated.
    #[arg(long, short = 'H', value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    #[arg(long, short = 'd', default_value = "")]
    body: String,
    /// Longest time for one request, connecting included.
    #[arg(long, default_value = "15s", value_parser = duration_flag)]
    timeout: Duration,
    /// A new connection for each request.
    #[arg(long)]
    fresh_connections: bool,
    /// Response header whose values are counted; may be repeated.
    #[arg(long)]
    tally: Vec<HeaderName>,
    /// Text; answers whose body holds it are counted; may be repeated.
    #[arg(long)]
    tally_body: Vec<String>,
    /// Exit with 1 if any request ends otherwise than with this status.
    #[arg(long)]
    expect: Option<StatusCode>,
}

/// All connections of one run, on one thread.
struct Run {
    load: Load,
    place: (String, u16),
    start: Instant,
    taken: Cell<u64>,
    stopped: Cell<bool>,
    report: RefCell<Report>,
}

struct Report {
    requests: u64,
    statuses: Tally,
    errors: Tally,
    failed_bodies: Tally,
    headers: Vec<(HeaderName, Tally)>,
    bodies: Vec<(String, u64)>,
    latencies: Latencies,
    connections: u64,
}

type Sender = SendRequest<Full<Bytes>>;
type Outcome = Result<(StatusCode, HeaderMap, Bytes), String>;

pub async fn run(load: Load) -> anyhow::Result<ExitCode> {
    if load.count.is_none() && load.duration.is_none() {
        bail!("give --count, --duration or both");
    }
    if load
        .rate
        .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
    {
        bail!("--rate is a number of requests per second above zero");
    }
    let run = Rc::new(Run {
        place: authority(&load.url, &["http"])?,
        start: Instant::now(),
        taken: Cell::new(0),
        stopped: Cell::new(false),
        report: RefCell::new(Report::new(&load)),
        load,
    });
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..run.load.concurrency {
                workers.spawn_local(work(run.clone()));
            }
            let finished = async { while workers.join_next().await.is_some() {} };
            tokio::pin!(finished);
            tokio::select! {
                () = &mut finished => return Ok(()),
                ended = until(run.load.duration) => ended?,
            }
            // Requests under way still count.
            run.stopped.set(true);
            finished.await;
            anyhow::Ok(())
        })
        .await?;
    let report = run.report.borrow();
    print(&report.value(run.start.elapsed()));
    let as_expected = run
        .load
        .expect
        .is_none_or(|status| report.statuses.only(status.as_str()) && report.errors.only(""));
    Ok(if as_expected && report.requests > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// One connection after the other, one request after the other.
async fn work(run: Rc<Run>) {
    let mut connection: Option<Sender> = None;
    while let Some(number) = run.ticket() {
        let planned = match run.load.rate {
            None => Instant::now(),
            Some(rate) => {
                let planned = run.start + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(planned).await;
                planned
            }
        };
        if run.stopped.get() {
            return;
        }
        let outcome = tokio::time::timeout(run.load.timeout, run.exchange(&mut connection)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            connection = None;
            Err(format!(
                "no answer within {} ms",
                run.load.timeout.as_millis()
            ))
        });
        run.report.borrow_mut().add(outcome, planned.elapsed());
    }
}

impl Run {
    /// The number of the next request, while there is one.
    fn ticket(&self) -> Option<u64> {
        let number = self.taken.get();
        if self.stopped.get() || self.load.count.is_some_and(|count| number >= count) {
            return None;
        }
        self.taken.set(number + 1);
        Some(number)
    }

    async fn exchange(&self, connection: &mut Option<Sender>) -> Outcome {
        if let Some(mut sender) = connection.take()
            && !self.load.fresh_connections
            && sender.ready().await.is_ok()
        {
            match sender.send_request(self.request()).await {
                // Closed before the request was sent: the server cannot have seen it.
                Err(error) if error.is_canceled() => {}
                other => return finish(other, sender, connection).await,
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(self.request()).await;
        finish(response, sender, connection).await
    }

    async fn connect(&self) -> Result<Sender, String> {
        let (host, port) = &self.place;
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .map_err(|error| format!("connect: {error}"))?;
        // Latency is what is measured; without this option it may still be.
        let _ = stream.set_nodelay(true);
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("connect: {error}"))?;
        self.report.borrow_mut().connections += 1;
        // The driver ends with its connection; errors come out of the sender.
        tokio::task::spawn_local(driver);
        Ok(sender)
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(self.load.body.clone()));
        *request.method_mut() = self.load.method.clone();
        let path = self
            .load
            .url
            .path_and_query()
            .map_or("/", |path| path.as_str());
        // A part of a URL that was parsed is one.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Some(host) = self
            .load
            .url
            .authority()
            .and_then(|host| HeaderValue::from_str(host.as_str()).ok())
        {
            headers.insert(HOST, host);
        }
        for (name, value) in &self.load.header {
            if name == HOST {
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        if self.load.fresh_connections {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        request
    }
}

/// Reads the answer; keeps the connection if it was whole.
async fn finish(
    response: hyper::Result<http::Response<hyper::body::Incoming>>,
    sender: Sender,
    connection: &mut Option<Sender>,
) -> Outcome {
    let (parts, body) = response.map_err(|error| describe(&error))?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| format!("body: {error}"))?
        .to_bytes();
    *connection = Some(sender);
    Ok((parts.status, parts.headers, body))
}

/// hyper's words and those of the cause.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Report {
    fn new(load: &Load) -> Self {
        Report {
            requests: 0,
            statuses: Tally::default(),
            errors: Tally::default(),
            failed_bodies: Tally::default(),
            headers: load
                .tally
                .iter()
                .map(|name| (name.clone(), Tally::default()))
                .collect(),
            bodies: load
                .tally_body
                .iter()
                .map(|text| (text.clone(), 0))
                .collect(),
            latencies: Latencies::new(),
            connections: 0,
        }
    }

    fn add(&mut self, outcome: Outcome, latency: Duration) {
        self.requests += 1;
        let (status, headers, body) = match outcome {
            Ok(answer) => answer,
            Err(error) => return self.errors.add(&error),
        };
        self.latencies.add(latency);
        self.statuses.add(status.as_str());
        if status.is_client_error() || status.is_server_error() {
            self.failed_bodies.add(
                &String::from_utf8_lossy(&body)
                    .chars()
                    .take(MAX_ERROR_TEXT)
                    .collect::<String>(),
            );
        }
        for (name, tally) in &mut self.headers {
            let value = headers
                .get(&*name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()));
            tally.add(&value.unwrap_or("(none)".into()));
        }
        for (text, count) in &mut self.bodies {
            *count += u64::from(
                body.windows(text.len().max(1))
                    .any(|window| window == text.as_bytes()),
            );
        }
    }

    fn value(&self, elapsed: Duration) -> serde_json::Value {
        let headers: serde_json::Map<_, _> = self
            .headers
            .iter()
            .map(|(name, tally)| (name.to_string(), json!(tally)))
            .collect();
        let bodies: serde_json::Map<_, _> = self
            .bodies
            .iter()
            .map(|(text, count)| (text.clone(), json!(count)))
            .collect();
        json!({
            "requests": self.requests,
            "seconds": elapsed.as_secs_f64(),
            "requests_per_second": self.requests as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            "connections": self.connections,
            "statuses": self.statuses,
            "errors": self.errors,
            "failed_bodies": self.failed_bodies,
            "headers": headers,
            "bodies": bodies,
            "latency_ms": self.latencies.report(),
        })
    }
}
