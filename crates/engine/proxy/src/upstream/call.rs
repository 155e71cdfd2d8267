//! One call to a cluster: a host, a connection from its pool, the request, the head of the answer,
//! and what its fate teaches.
//!
//! [`send`] is the part from the connection on, for forwarding, which picks hosts and keeps times
//! itself. [`call`] is the whole within one time limit, for what the proxy asks on its own account:
//! mirrored requests and span collectors today. Every step has a bound: the queue for a connection
//! and the requests under way by the circuit breaker, connections for one request by [`MAX_SENDS`],
//! the time by [`Call::limit`].

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use stdx::Rng;
use telemetry::record::Protocol;
use tokio::time::{Instant, timeout_at};

use crate::{
    balance::{Pick, PickFacts},
    body::RequestBody,
    endpoint::LiveEndpoint,
    headers::framing,
    upstream::{
        cluster::LiveCluster,
        connected::ConnectError,
        in_flight::InFlight,
        metrics::Count,
        outlier::{self, Outcome},
        pool::{AcquireError, Lease, PoolKey, Pools, UpstreamConnection},
        reset::ResetReason,
    },
};

/// Connections that one request is given to at most. A connection that closes before anything of
/// the request was written costs no attempt of the retry policy, so the number of such tries needs
/// a bound of its own.
pub const MAX_SENDS: usize = 4;

/// Where a request goes.
pub struct To<'a> {
    pub pools: &'a Pools,
    pub cluster: &'a Arc<LiveCluster>,
    pub host: &'a Arc<LiveEndpoint>,
    pub key: PoolKey,
}

/// A request of the proxy's own.
pub struct Call<'a> {
    pub pools: &'a Pools,
    pub cluster: &'a Arc<LiveCluster>,
    pub rng: &'a dyn Rng,
    pub key: PoolKey,
    /// From now until the answer's last byte.
    pub limit: Duration,
    /// Whether the answer's gRPC status says how the host did.
    pub is_grpc: bool,
}

/// The head of an answer, and the connection that the body comes by.
pub struct Answer {
    pub response: http::Response<Incoming>,
    pub lease: Lease,
}

/// An answer that was read to its end. Without [`Keep::UpTo`] body and trailers are empty.
#[derive(Debug)]
pub struct Whole {
    pub head: Parts,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no healthy endpoint")]
    NoHost,
    /// No place in the queue for a connection, or no pool: nobody was asked.
    #[error("overflow")]
    Overflow,
    /// As many requests are under way as the circuit breaker allows.
    #[error("overflow: too many requests are under way")]
    TooManyRequests,
    #[error("{0}")]
    Connect(ConnectError),
    /// `sent`: something of the request was written.
    #[error("{}", reason.as_str())]
    Reset { reason: ResetReason, sent: bool },
    #[error("no answer in time")]
    Late,
    /// [`Answer::read`] found more than it may keep.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Sends a request to a host. `make` gives the request for a connection; it is asked again when a
/// connection closed before anything was written, and says `None` when the request cannot be made a
/// second time.
pub async fn send(
    to: &To<'_>,
    mut make: impl FnMut(&UpstreamConnection) -> Option<http::Request<RequestBody>>,
) -> Result<Answer, CallError> {
    let metrics = &to.cluster.metrics;
    let mut reason = ResetReason::ConnectionTermination;
    for _ in 0..MAX_SENDS {
        let mut lease = borrow(to).await?;
        let Some(request) = make(&lease.connection) else {
            lease.release();
            break;
        };
        match lease.send(request).await {
            Ok(response) => return unambiguous(to, Answer { response, lease }),
            Err(error) if error.unsent.is_some() => {
                // It was closing, or the peer said goodbye: nobody has seen the request.
                lease.retire();
                metrics.count(Count::RqUnsent);
                reason = error.reset;
            }
            Err(error) => {
                match error.reset {
                    ResetReason::RemoteReset => metrics.count(Count::RqRxReset),
                    ResetReason::ProtocolError => metrics.count(Count::CxProtocolError),
                    _ => {}
                }
                let reason = error.reset;
                return Err(CallError::Reset { reason, sent: true });
            }
        }
    }
    Err(CallError::Reset {
        reason,
        sent: false,
    })
}

/// An answer that is understood in one way only. A connection that may bring a body that nobody
/// expects is not used again.
fn unambiguous(to: &To<'_>, answer: Answer) -> Result<Answer, CallError> {
    let Answer { response, lease } = &answer;
    let (status, headers) = (response.status(), response.headers());
    if matches!(lease.connection.protocol, Protocol::Http2 | Protocol::Http3) {
        return Ok(answer);
    }
    if framing::is_ambiguous_answer(status, headers) {
        to.cluster.metrics.count(Count::CxProtocolError);
        return Err(CallError::Reset {
            reason: ResetReason::ProtocolError,
            sent: true,
        });
    }
    if framing::may_be_followed_by_a_body(status, headers) {
        lease.retire();
    }
    Ok(answer)
}

/// A connection, and a place among the requests under way: until here the request only waited.
async fn borrow(to: &To<'_>) -> Result<Lease, CallError> {
    let To {
        pools,
        cluster,
        host,
        key,
    } = to;
    let overflow = || {
        cluster.metrics.count(Count::RqPendingOverflow);
        CallError::Overflow
    };
    let pool = pools
        .pool(cluster, host, key.clone())
        .ok_or_else(overflow)?;
    let mut lease = pool.acquire().await.map_err(|error| match error {
        AcquireError::Overflow => overflow(),
        AcquireError::Connect(error) => CallError::Connect(error),
    })?;
    match InFlight::enter(cluster, host, key.high_priority) {
        Some(in_flight) => lease.hold(in_flight),
        None => {
            lease.release();
            cluster.metrics.count(Count::RqActiveOverflow);
            return Err(CallError::TooManyRequests);
        }
    }
    Ok(lease)
}

/// Calls a cluster, and reads the answer to its end. The connection goes back to
/// the pool. `keep`: a body that is longer is an error. `make` as for [`send`].
pub async fn call(
    call: Call<'_>,
    keep: Keep,
    make: impl FnMut(&UpstreamConnection) -> Option<http::Request<RequestBody>>,
) -> Result<Whole, CallError> {
    let Call {
        pools,
        cluster,
        rng,
        key,
        limit,
        is_grpc,
    } = call;
    let Pick::Host(host) = cluster.pick(&PickFacts::default(), rng) else {
        cluster.metrics.count(Count::CxNoneHealthy);
        return Err(CallError::NoHost);
    };
    let to = To {
        pools,
        cluster,
        host: &host,
        key,
    };
    let end = Instant::now() + limit;
    let answered = timeout_at(end, send(&to, make))
        .await
        .unwrap_or(Err(CallError::Late));
    let outcome = match &answered {
        Ok(Answer { response, .. }) => {
            cluster.metrics.answered(response.status().as_u16());
            let (status, headers) = (response.status(), response.headers());
            Some(Outcome::Status(outlier::status_of(
                is_grpc, status, headers,
            )))
        }
        Err(error) => outcome(error),
    };
    if let Some(outcome) = outcome {
        outlier::report(cluster, &host, outcome);
    }
    if matches!(answered, Err(CallError::Late)) {
        cluster.metrics.count(Count::RqTimeout);
    }
    timeout_at(end, answered?.read(keep))
        .await
        .unwrap_or_else(|_| {
            cluster.metrics.count(Count::RqTimeout);
            Err(CallError::Late)
        })
}

/// What an error says about the host; `None`: nothing, as it was not asked.
pub fn outcome(error: &CallError) -> Option<Outcome> {
    match error {
        CallError::Connect(_) | CallError::Reset { .. } => Some(Outcome::LocalOriginFailure),
        CallError::Late => Some(Outcome::Timeout),
        CallError::NoHost
        | CallError::Overflow
        | CallError::TooManyRequests
        | CallError::TooLong(_) => None,
    }
}

/// What of an answer's body is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is read and forgotten, however long it is, so that the connection can be used again.
    Nothing,
    /// All of it; more bytes than these are an error.
    UpTo(usize),
}

impl Answer {
    async fn read(self, keep: Keep) -> Result<Whole, CallError> {
        let (head, mut body) = self.response.into_parts();
        let mut kept = BytesMut::new();
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CallError::Reset {
                reason: crate::upstream::reset::body_reset_reason(&error),
                sent: true,
            })?;
            let Keep::UpTo(limit) = keep else { continue };
            match frame.into_data() {
                Ok(data) if kept.len() + data.len() > limit => {
                    return Err(CallError::TooLong(limit));
                }
                Ok(data) => kept.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        self.lease.release();
        Ok(Whole {
            head,
            body: kept.freeze(),
            trailers,
        })
    }
}
