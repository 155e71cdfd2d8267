//! Waiting for a condition, with a deadline.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer; the last refusal is the panic's message when `limit` is over.
#[track_caller]
pub fn eventually<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if start.elapsed() >= limit => {
                panic!("{what}: not within {limit:?}; last: {last:?}")
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// Asks again and again for `time`; the first refusal is the panic's message.
#[track_caller]
pub fn holds_for<E: Debug>(what: &str, time: Duration, mut ask: impl FnMut() -> Result<(), E>) {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Err(refusal) = ask() {
            panic!("{what}: held only {:?}: {refusal:?}", start.elapsed());
        }
        std::thread::park_timeout(PAUSE);
    }
}
