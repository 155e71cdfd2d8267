//! What follows a 101 or a successful CONNECT: bytes in both directions until both are done.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use telemetry::record::ResponseFlags;

use crate::{exchange::Exchange, tcp::copy, upstream::pool::Lease};

/// Joins the two connections once both codecs let them go. The exchange ends with the tunnel.
pub fn tunnel(mut x: Box<Exchange>, upstream: OnUpgrade, lease: Lease) {
    let Some(downstream) = x.upgrade.take() else {
        return;
    };
    tokio::spawn(async move {
        let lease = lease;
        match tokio::try_join!(downstream, upstream) {
            Ok((downstream, upstream)) => {
                let limits = copy::Limits {
                    buffer_bytes: x.worker.settings.tcp_buffer_bytes,
                    idle: x.stream_idle_timeout(),
                    longest: None,
                };
                let counts = Arc::new(copy::Counts::default());
                // Either side may end it; that is no error of the request.
                let _ = copy::both(
                    TokioIo::new(downstream),
                    TokioIo::new(upstream),
                    &counts,
                    &limits,
                )
                .await;
                x.record.bytes.received += counts.received();
                x.record.bytes.sent += counts.sent();
            }
            Err(_) => x
                .record
                .flags
                .insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION),
        }
        drop(lease);
        x.report();
    });
}
