//! A downstream HTTP connection: hyper's codec around `serve`, idle and drain times.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proxy_config::HttpConnectionManager;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use crate::{
    body::{Reading, RequestSource},
    codec::{
        CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, linger, refused,
        session::{Ended, Session},
    },
    connection::Connection,
    exchange::{Exchange, finish},
    grpc::is_grpc,
    headers::framing::max_head_bytes,
    listener::LiveHttp,
    report::downstream::{HttpCount, OpenHttp},
    request::{self, Received},
    serve::serve,
    worker::Worker,
};

/// Streams that one HTTP/2 connection may have open where the configuration names no number.
const MAX_CONCURRENT_STREAMS: u32 = 1024;
/// A buffer that bodies pass well; hyper's for a head is the same one.
const MIN_BUFFER_BYTES: usize = 64 << 10;
/// Of a request line, beside its target.
const HEAD_LINE_BYTES: usize = 256;

/// How long an idle HTTP/1 connection stays open when its chain drains. It has no way to say that
/// it will close, so a request may be on its way: it is closed with the next response, which says
/// so, or when none came in this time.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// Serves requests until the connection ends.
pub async fn run<S>(
    stream: S,
    is_http2: bool,
    worker: Arc<Worker>,
    connection: Arc<Connection>,
    http: Arc<LiveHttp>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = http.config.clone();
    let _open = OpenHttp::new(&http.metrics, is_http2, connection.downstream.tls.is_some());
    let session = Arc::new(Session {
        worker,
        connection,
        http,
        begun: AtomicU64::new(0),
        ended: AtomicU64::new(0),
        full: Notify::new(),
        last: Notify::new(),
        is_http2,
    });
    let service = {
        let session = session.clone();
        service_fn(move |request| one(session.clone(), request))
    };
    let tunnels = session.connection.tunnels.clone();
    let io = TokioIo::new(stream);
    let ended = if is_http2 {
        let connection = http2_builder(&config).serve_connection(io, service);
        let mut connection = pin!(connection);
        drive(&mut connection, &session, |c| c.graceful_shutdown()).await
    } else {
        let mut connection = http1_builder(&config)
            .serve_connection(io, service)
            .with_upgrades();
        let mut pinned = Pin::new(&mut connection);
        let ended = drive(&mut pinned, &session, |c| c.graceful_shutdown()).await;
        // What became a tunnel has taken the stream along.
        if let Some(parts) = connection.into_parts() {
            linger::close(parts.io.into_inner(), config.timeouts.delayed_close).await;
        }
        ended
    };
    if let Err(error) = ended {
        refused::note(&error, is_http2, &session);
    }
    // An upgraded connection goes on after its codec; it ends with its idle time, or with its chain.
    tunnels.close();
    tunnels.wait().await;
}

/// One request as the codec gives it.
async fn one(
    session: Arc<Session>,
    mut request: Request<Incoming>,
) -> Result<hyper::Response<crate::exchange::reply::ReplyBody>, Infallible> {
    let begun = session.begun.fetch_add(1, Ordering::Relaxed) + 1;
    if session
        .http
        .config
        .max_requests_per_connection
        .is_some_and(|limit| begun >= u64::from(limit))
    {
        session.full.notify_one();
    }
    if session.is_last() {
        session.last.notify_one();
    }
    let ended = Ended(session.clone());
    let upgrades = request.headers().contains_key(http::header::UPGRADE)
        || request.method() == http::Method::CONNECT;
    let upgrade = upgrades.then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let live = &session.worker.live;
    let listener = &session.connection.listener.config;
    let limit = session.worker.settings.retry_buffer_bytes;
    let of_listener = usize::try_from(listener.per_connection_buffer_limit_bytes);
    let reading = Reading {
        keep_limit: of_listener.map_or(limit, |of_listener| limit.min(of_listener)),
        counts_messages: is_grpc(&head.headers),
        is_http2: session.is_http2,
    };
    let body = RequestSource::new(body, reading, live.clock.clone());
    let record = finish::begin(&session.connection, &session.http, &head, live.clock.wall());
    let received = Received {
        head,
        body,
        upgrade,
    };
    let mut request = request::Request::new(
        received,
        session.connection.downstream.clone(),
        session.http.config.clone(),
        (live.clock.now(), live.rng.u64()),
    );
    request.suppresses_envoy_headers = session.http.suppresses_envoy_headers;
    request.record = record;
    let x = Exchange::new(
        request,
        session.worker.clone(),
        session.connection.clone(),
        session.http.clone(),
    );
    let mut response = serve(x).await;
    // The drain may have begun since: this is the last moment to tell.
    if session.is_last() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().hold(ended);
    Ok(response)
}

/// Runs the codec to its end; asks it to finish when the chain drains, when nothing happened for
/// the idle time, or when it is too old.
async fn drive<C>(
    connection: &mut Pin<&mut C>,
    session: &Session,
    finish: impl Fn(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let timeouts = &session.http.config.timeouts;
    let draining = session.connection.chain.draining();
    let old = sleep_or_never(timeouts.max_connection_duration);
    let (mut draining, mut old) = (pin!(draining), pin!(old));
    let mut idle = pin!(sleep_or_never(timeouts.idle));
    let mut seen = 0;
    let limit = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = &mut draining => {
                if let Some(ended) = wait_for_last(connection, session).await {
                    return ended;
                }
                break session.worker.settings.drain_time;
            }
            () = session.full.notified() => break session.worker.settings.drain_time,
            () = &mut old => break timeouts.drain.unwrap_or(session.worker.settings.drain_time),
            () = &mut idle => {
                let begun = session.begun.load(Ordering::Relaxed);
                if begun == seen && !session.is_busy() {
                    session.http.metrics.count(HttpCount::IdleConnections);
                    break timeouts.drain.unwrap_or(session.worker.settings.drain_time);
                }
                seen = begun;
                idle.set(sleep_or_never(timeouts.idle));
            }
        }
    };
    finish(connection.as_mut());
    // What does not end by itself in that time is closed.
    tokio::time::timeout(limit, connection.as_mut())
        .await
        .unwrap_or(Ok(()))
}

/// Leaves an HTTP/1 connection of a draining chain open for its last request: an answer that is
/// still to begin will be it; one that has begun did not say so, and another request may follow.
/// `Some`: it ended meanwhile.
async fn wait_for_last<C>(
    connection: &mut Pin<&mut C>,
    session: &Session,
) -> Option<Result<(), hyper::Error>>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    if session.is_http2 {
        return None;
    }
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Some(ended),
            () = session.last.notified() => return None,
            () = tokio::time::sleep(IDLE_GRACE) => if !session.is_busy() {
                return None;
            },
        }
    }
}

async fn sleep_or_never(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// What hyper may hold of a head: the limit, which is checked where a head is admitted, and what
/// does not count against it (method, version, line ends and the like).
fn http1_head_bytes(config: &HttpConnectionManager) -> usize {
    let uncounted = 4usize.saturating_mul(max_headers(config));
    max_head_bytes(config)
        .saturating_add(uncounted)
        .saturating_add(HEAD_LINE_BYTES)
        .max(MIN_BUFFER_BYTES)
}

/// As [`http1_head_bytes`], with the 32 bytes that HTTP/2 counts for each header (RFC 9113 §6.5.2).
/// It is told to the client. h2 drops what goes beyond it from trailers, hence twice the limit.
fn http2_head_bytes(config: &HttpConnectionManager) -> u32 {
    let uncounted = 32usize.saturating_mul(max_headers(config));
    let bytes = max_head_bytes(config)
        .saturating_mul(2)
        .saturating_add(uncounted);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn max_headers(config: &HttpConnectionManager) -> usize {
    usize::try_from(config.max_headers).unwrap_or(usize::MAX)
}

fn http1_builder(config: &HttpConnectionManager) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.timeouts.request_headers)
        .preserve_header_case(config.preserve_header_case)
        .max_headers(max_headers(config))
        .max_buf_size(http1_head_bytes(config));
    builder
}

fn http2_builder(config: &HttpConnectionManager) -> http2::Builder<TokioExecutor> {
    let options = &config.http2;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(
            options
                .initial_stream_window_bytes
                .unwrap_or(STREAM_WINDOW_BYTES),
        )
        .initial_connection_window_size(
            options
                .initial_connection_window_bytes
                .unwrap_or(CONNECTION_WINDOW_BYTES),
        )
        .max_concurrent_streams(
            options
                .max_concurrent_streams
                .unwrap_or(MAX_CONCURRENT_STREAMS),
        )
        .max_header_list_size(http2_head_bytes(config))
        .keep_alive_interval(options.keepalive_interval);
    if let Some(timeout) = options.keepalive_timeout {
        builder.keep_alive_timeout(timeout);
    }
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}
