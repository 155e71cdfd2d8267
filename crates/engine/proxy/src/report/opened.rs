//! What counts a TCP connection while it is open.

use std::time::Duration;

use telemetry::istio_metrics::TcpSeries;

/// The series of one open connection. Bytes are given as totals; only what is new is counted.
#[derive(Debug)]
pub struct Opened {
    series: TcpSeries,
    interval: Duration,
    sent: u64,
    received: u64,
}

impl Opened {
    /// Counts the connection as opened. `interval`: how often its bytes want to be counted.
    pub fn new(series: TcpSeries, interval: Duration) -> Self {
        series.opened();
        Self {
            series,
            interval,
            sent: 0,
            received: 0,
        }
    }

    /// The time between two calls of [`Opened::passed`].
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// So many bytes went to and came from the downstream since the connection began.
    pub fn passed(&mut self, sent: u64, received: u64) {
        self.series.bytes(
            sent.saturating_sub(self.sent),
            received.saturating_sub(self.received),
        );
        (self.sent, self.received) = (sent, received);
    }

    /// Counts the rest, and the connection as closed.
    pub fn closed(mut self, sent: u64, received: u64) {
        self.passed(sent, received);
        self.series.closed();
    }
}
