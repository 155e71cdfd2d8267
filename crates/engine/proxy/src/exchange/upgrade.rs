//! What follows a 101 or a successful CONNECT: bytes in both directions until both are done.
//!
//! A tunnel is a task of its downstream connection, which counts as open as long as it lasts. It
//! ends when both sides have said all, when one breaks off, when nothing was sent for the stream's
//! idle time, or when the filter chain was replaced or drains and the drain time is over.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use telemetry::record::ResponseFlags;

use crate::{
    exchange::{Exchange, finish::abandoned},
    tcp::copy::{self, End, Peer},
    upstream::pool::Lease,
};

/// Joins the two connections once both codecs let them go. The exchange ends with the tunnel.
pub fn tunnel(mut x: Box<Exchange>, upstream: OnUpgrade, lease: Lease) {
    let Some(downstream) = x.request.upgrade.take() else {
        return;
    };
    let tunnels = x.connection.tunnels.clone();
    tunnels.spawn(async move {
        let chain = x.connection.chain.clone();
        let drain_time = x.worker.settings.drain_time;
        let drained = async {
            chain.draining().await;
            tokio::time::sleep(drain_time).await;
        };
        tokio::select! {
            () = join(&mut x, downstream, upstream) => {}
            () = drained => {
                let record = &mut x.request.record;
                record.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                record.response_code_details = Some("downstream_local_disconnect".into());
            }
        }
        drop(lease);
        x.report();
    });
}

async fn join(x: &mut Exchange, downstream: OnUpgrade, upstream: OnUpgrade) {
    let Ok((downstream, upstream)) = tokio::try_join!(downstream, upstream) else {
        let flag = ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
        x.request.record.flags.insert(flag);
        return;
    };
    let limits = copy::Limits {
        buffer_bytes: x.worker.settings.tcp_buffer_bytes,
        idle: x.request.stream_idle_timeout(),
        longest: None,
    };
    let passed = Passed {
        counts: copy::Counts::default(),
        x,
    };
    let (downstream, upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
    let end = copy::both(downstream, upstream, &passed.counts, &limits).await;
    let x = &mut *passed.x;
    match end {
        // When the upstream has said all, the answer is complete.
        End::Complete(Peer::Upstream) => {}
        End::DownstreamFailed if x.request.head.version == http::Version::HTTP_2 => {
            let record = &mut x.request.record;
            record.flags.insert(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
            record.response_code_details = Some("http2.remote_reset".into());
        }
        End::Complete(Peer::Downstream)
        | End::Idle
        | End::TooLong
        | End::DownstreamFailed
        | End::UpstreamFailed => abandoned(x),
    }
}

/// Notes the bytes that passed, however the tunnel ends.
struct Passed<'x> {
    counts: copy::Counts,
    x: &'x mut Exchange,
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let bytes = &mut self.x.request.record.bytes;
        bytes.received += self.counts.received();
        bytes.sent += self.counts.sent();
    }
}
