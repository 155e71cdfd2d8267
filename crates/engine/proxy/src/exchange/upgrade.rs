//! What follows a 101 or a successful CONNECT: bytes in both directions until both are done.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use telemetry::record::ResponseFlags;

use crate::{
    exchange::{Exchange, finish::abandoned},
    tcp::copy,
    upstream::pool::Lease,
};

/// Joins the two connections once both codecs let them go. The exchange ends with the tunnel.
pub fn tunnel(mut x: Box<Exchange>, upstream: OnUpgrade, lease: Lease) {
    let Some(downstream) = x.request.upgrade.take() else {
        return;
    };
    // task: one tunnel (WebSocket, CONNECT); ends with either side or the stream's idle limit
    tokio::spawn(async move {
        let lease = lease;
        match tokio::try_join!(downstream, upstream) {
            Ok((downstream, upstream)) => {
                let limits = copy::Limits {
                    buffer_bytes: x.worker.settings.tcp_buffer_bytes,
                    idle: x.request.stream_idle_timeout(),
                    longest: None,
                };
                let counts = Arc::new(copy::Counts::default());
                let end = copy::both(
                    TokioIo::new(downstream),
                    TokioIo::new(upstream),
                    &counts,
                    &limits,
                )
                .await;
                // When the upstream has said all, the answer is complete.
                match end {
                    copy::End::Complete(copy::Peer::Upstream) => {}
                    copy::End::DownstreamFailed
                        if x.request.head.version == http::Version::HTTP_2 =>
                    {
                        x.request
                            .record
                            .flags
                            .insert(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
                        x.request.record.response_code_details = Some("http2.remote_reset".into());
                    }
                    _ => abandoned(&mut x),
                }
                x.request.record.bytes.received += counts.received();
                x.request.record.bytes.sent += counts.sent();
            }
            Err(_) => x
                .request
                .record
                .flags
                .insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION),
        }
        drop(lease);
        x.report();
    });
}
