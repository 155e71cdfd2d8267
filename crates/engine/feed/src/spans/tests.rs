//! Spans to small collectors on loopback, through the proxy's own clusters.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use proxy_config::ClusterName;
use stdx::drain;
use telemetry::{
    record::Record,
    trace::{SpanContext, SpanKind, SpanSettings},
};
use tokio::net::TcpListener;

use super::*;
use crate::fixture;

const DEADLINE: Duration = Duration::from_secs(10);

/// What a collector was sent: path, content type, host, body.
struct Received {
    path: String,
    content_type: String,
    host: String,
    body: Bytes,
}

/// A collector that hands on what it gets and answers 202, or gRPC's OK.
async fn collector() -> (SocketAddr, mpsc::Receiver<Received>) {
    let (sender, receiver) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = service_fn(move |request| answer(sender.clone(), request));
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, receiver)
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    sender: mpsc::Sender<Received>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |name: &str| {
        head.headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let host = head
        .uri
        .authority()
        .map_or_else(|| text("host"), ToString::to_string);
    let content_type = text("content-type");
    let body = body.collect().await.unwrap().to_bytes();
    let is_grpc = content_type == "application/grpc";
    sender
        .send(Received {
            path: head.uri.path().to_owned(),
            content_type,
            host,
            body,
        })
        .await
        .unwrap();
    if !is_grpc {
        return Ok(Response::builder()
            .status(202)
            .body(Full::default().boxed())
            .unwrap());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from_static(&[0; 5]))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    Ok(Response::builder()
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap())
}

fn span(number: u64) -> Span {
    let context = SpanContext {
        trace_id: 0xabc << 64 | u128::from(number),
        span_id: number,
        parent_id: Some(7),
        sampled: true,
        trace_state: None,
    };
    let record = Record {
        start: Some(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        status: Some(503),
        trace: Some(context),
        ..Record::default()
    };
    let settings = SpanSettings {
        service_name: "reviews.default".into(),
        ..SpanSettings::default()
    };
    Span::of(&record, SpanKind::Client, Some("reviews:9080/*"), &settings).unwrap()
}

/// An exporter whose cluster `outbound|9411||collector.test` is at this address.
fn exporter(address: SocketAddr) -> (Arc<Live>, mpsc::Sender<ExportedSpan>, Exporter) {
    let live = fixture::live(&fixture::cluster("outbound|9411||collector.test", address));
    let (sender, receiver) = mpsc::channel(2048);
    (live.clone(), sender, Exporter::new(live, receiver))
}

fn cluster() -> ClusterName {
    ClusterName::parse("outbound|9411||collector.test").unwrap()
}

fn zipkin() -> Arc<TracingProvider> {
    Arc::new(TracingProvider::Zipkin {
        cluster: cluster(),
        endpoint: "/api/v2/spans".into(),
        hostname: "outbound|9411||collector.test".into(),
        trace_id_128bit: true,
        shared_span_context: false,
        w3c_too: false,
    })
}

async fn next(received: &mut mpsc::Receiver<Received>) -> Received {
    timeout(DEADLINE, received.recv())
        .await
        .expect("the collector hears in time")
        .unwrap()
}

fn counter(live: &Live, name: &str) -> u64 {
    let text = live.stats.render(&Default::default());
    text.lines()
        .filter_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(": ")?
                .parse::<u64>()
                .ok()
        })
        .max()
        .unwrap_or_default()
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, waiting)
        .await
        .expect("the condition holds in time");
}

#[tokio::test]
async fn zipkin_gets_json_and_the_connection_is_kept() {
    let (address, mut received) = collector().await;
    let (live, spans, exporter) = exporter(address);
    let (trigger, drain) = drain::channel();
    let running = tokio::spawn(exporter.run(drain));
    for number in 1..=2 {
        spans
            .send(ExportedSpan {
                provider: zipkin(),
                span: span(number),
            })
            .await
            .unwrap();
        let got = next(&mut received).await;
        assert_eq!(
            (&*got.path, &*got.content_type, &*got.host),
            ("/api/v2/spans", "application/json", "collector.test")
        );
        let json: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(json[0]["id"], format!("{number:016x}"));
        assert_eq!(json[0]["name"], "reviews:9080/*");
        assert_eq!(json[0]["localEndpoint"]["serviceName"], "reviews.default");
    }
    until(|| counter(&live, "tracing.zipkin.spans_sent") == 2).await;
    trigger.start();
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn otlp_goes_by_grpc_and_by_http() {
    let (address, mut received) = collector().await;
    let (live, spans, exporter) = exporter(address);
    let (_trigger, drain) = drain::channel();
    tokio::spawn(exporter.run(drain));
    let grpc = TracingProvider::OpenTelemetryGrpc {
        cluster: cluster(),
        timeout: None,
        service_name: "reviews.default".into(),
    };
    let http = TracingProvider::OpenTelemetryHttp {
        cluster: cluster(),
        authority: "otel:4318".into(),
        path: "/v1/traces".into(),
        timeout: None,
        service_name: "reviews.default".into(),
        headers: Arc::from([(
            http::HeaderName::from_static("x-token"),
            Arc::from("secret"),
        )]),
    };
    for (provider, path, skip) in [
        (
            grpc,
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            5,
        ),
        (http, "/v1/traces", 0),
    ] {
        spans
            .send(ExportedSpan {
                provider: Arc::new(provider),
                span: span(9),
            })
            .await
            .unwrap();
        let got = next(&mut received).await;
        assert_eq!(got.path, path);
        let request = ExportTraceServiceRequest::decode(&got.body[skip..]).unwrap();
        let resource = &request.resource_spans[0];
        assert_eq!(
            resource.resource.as_ref().unwrap().attributes[0].key,
            "service.name"
        );
        let sent = &resource.scope_spans[0].spans[0];
        assert_eq!(sent.span_id, 9u64.to_be_bytes());
        assert_eq!((sent.kind, sent.status.as_ref().unwrap().code), (3, 2));
        assert!(
            sent.attributes
                .iter()
                .any(|attribute| attribute.key == "http.status_code")
        );
    }
    until(|| counter(&live, "tracing.opentelemetry.reports_sent") == 2).await;
}

#[tokio::test]
async fn a_dead_collector_costs_only_dropped_spans() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (live, spans, exporter) = exporter(nobody);
    // Else the counters would go with the exporter.
    let _shown = live.stats.scope("tracing.zipkin");
    let (trigger, drain) = drain::channel();
    let running = tokio::spawn(exporter.run(drain));
    for number in 0..600 {
        spans
            .send(ExportedSpan {
                provider: zipkin(),
                span: span(number + 1),
            })
            .await
            .unwrap();
    }
    until(|| counter(&live, "tracing.zipkin.spans_dropped") >= 512).await;
    trigger.start();
    timeout(DEADLINE, running).await.unwrap().unwrap();
    until(|| counter(&live, "tracing.zipkin.spans_dropped") == 600).await;
    assert_eq!(counter(&live, "tracing.zipkin.spans_sent"), 0);
}

#[tokio::test]
async fn what_waits_is_sent_when_the_process_ends() {
    let (address, mut received) = collector().await;
    let (_live, spans, exporter) = exporter(address);
    let (trigger, drain) = drain::channel();
    trigger.start();
    spans
        .send(ExportedSpan {
            provider: zipkin(),
            span: span(1),
        })
        .await
        .unwrap();
    exporter.run(drain).await;
    assert_eq!(next(&mut received).await.path, "/api/v2/spans");
}
