//! Everything towards the upstream: which connection carries a request, how it is made, and what
//! its fate teaches.

pub mod ad_hoc;
pub mod breaker;
pub mod call;
pub mod cluster;
pub mod connect;
pub mod connected;
pub mod dynamic_forward;
pub mod ejection;
pub mod handshake;
pub mod in_flight;
pub mod metrics;
pub mod names;
pub mod original_destination;
pub mod outlier;
pub mod pool;
pub mod reset;
pub mod retry;

use std::{collections::HashMap, hash::Hash};

use foldhash::fast::RandomState;

/// Gives back the memory of a map that was much larger once: its size follows what clients ask for.
fn shrink<Key: Eq + Hash, Value>(map: &mut HashMap<Key, Value, RandomState>) {
    const SMALL: usize = 256;
    if map.capacity() > SMALL && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}
