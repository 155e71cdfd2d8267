//! Time as an argument.
//!
//! A [`Clock`] gives monotonic time for durations and wall time for what people read. Both come
//! from one object so that a test moves them together. [`VirtualClock`] stands still until it is
//! told to advance.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Source of monotonic and wall time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Monotonic time; never goes back.
    fn now(&self) -> Instant;
    /// Wall time, for logs, spans and certificate validity. May jump.
    fn wall(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the seam itself")]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock for tests: both times start at a given wall time and move only by
/// [`VirtualClock::advance`]. Clones share it.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    origin: Instant,
    start: SystemTime,
    elapsed: Arc<Mutex<Duration>>,
}

impl VirtualClock {
    /// A clock that stands at `start`.
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the machine"
    )]
    pub fn new(start: SystemTime) -> Self {
        Self {
            origin: Instant::now(),
            start,
            elapsed: Arc::default(),
        }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut elapsed = self.elapsed.lock();
        *elapsed = elapsed.saturating_add(by);
    }

    /// Time since the clock was made.
    pub fn elapsed(&self) -> Duration {
        *self.elapsed.lock()
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new(SystemTime::UNIX_EPOCH)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.origin + self.elapsed()
    }

    fn wall(&self) -> SystemTime {
        self.start + self.elapsed()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn wall(&self) -> SystemTime {
        (**self).wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_clock_moves_both_times_only_when_told() {
        let clock = VirtualClock::default();
        let (now, wall) = (clock.now(), clock.wall());
        assert_eq!(clock.now(), now);
        clock.clone().advance(Duration::from_millis(1500));
        assert_eq!(clock.now() - now, Duration::from_millis(1500));
        assert_eq!(
            clock.wall().duration_since(wall).unwrap(),
            Duration::from_millis(1500)
        );
    }
}
