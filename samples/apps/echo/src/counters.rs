//! How often each path was asked for: what tests count retries and mirrored requests with.
//!
//! `GET /counters` shows them, `DELETE /counters` puts them back to zero. Paths come without query; after [`MAX_PATHS`] different ones the
//! rest is counted under `(other)`.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

/// Different paths that are counted by name.
const MAX_PATHS: usize = 1_000;

#[derive(Default)]
pub struct Counters {
    state: Mutex<State>,
}

#[derive(Default, Clone, Serialize)]
pub struct State {
    /// HTTP requests, gRPC included.
    pub requests: u64,
    /// Connections since start, of every kind.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// Requests by path.
    pub paths: BTreeMap<String, u64>,
}

impl Counters {
    pub fn request(&self, path: &str) {
        let mut state = self.state.lock();
        state.requests += 1;
        let full = state.paths.len() >= MAX_PATHS && !state.paths.contains_key(path);
        *state
            .paths
            .entry(if full { "(other)" } else { path }.to_owned())
            .or_default() += 1;
    }

    pub fn connection_opened(&self) {
        let mut state = self.state.lock();
        state.connections += 1;
        state.open_connections += 1;
    }

    pub fn connection_closed(&self) {
        self.state.lock().open_connections -= 1;
    }

    pub fn read(&self) -> State {
        self.state.lock().clone()
    }

    /// Requests and paths to zero; connections stay, because they do.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.requests = 0;
        state.paths.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_beyond_the_limit_share_one_counter() {
        let counters = Counters::default();
        for n in 0..MAX_PATHS + 5 {
            counters.request(&format!("/{n}"));
        }
        counters.request("/0");
        let state = counters.read();
        assert_eq!(state.requests, 1_006);
        assert_eq!(state.paths.get("(other)"), Some(&5));
        assert_eq!(state.paths.get("/0"), Some(&2));
    }
}
