//! What the names of dynamic forward clusters resolved to.

use std::{collections::HashMap, net::SocketAddr, time::Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// Names that were resolved and until when that holds.
#[derive(Default)]
pub struct Names(Mutex<HashMap<Box<str>, (SocketAddr, Instant), RandomState>>);

/// More names than this are resolved again each time: names come from requests, so their number
/// must be bounded.
const MAX_NAMES: usize = 4096;

impl Names {
    pub fn get(&self, name: &str) -> Option<(SocketAddr, Instant)> {
        self.0.lock().get(name).copied()
    }

    /// Remembers an address.
    pub fn insert(&self, name: Box<str>, address: SocketAddr, (now, until): (Instant, Instant)) {
        let mut names = self.0.lock();
        if names.len() >= MAX_NAMES {
            names.retain(|_, (_, until)| *until > now);
        }
        if names.len() < MAX_NAMES {
            names.insert(name, (address, until));
        }
    }
}
