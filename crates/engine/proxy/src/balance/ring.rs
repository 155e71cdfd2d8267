//! Consistent hashing on a ring: each host has several places on a circle of hashes, and a request
//! goes to the first at or after its own.
//!
//! Pure: keys and normalised weights come in, positions in that list go out. How many places a host
//! has, how their hashes are made (`<key>_<number>`) and how a ring is searched are Envoy's, so
//! that a request finds the same host through both proxies.

use proxy_config::cluster::RingHashFunction;
use xxhash_rust::xxh64::xxh64;

/// The seed of libstdc++'s `std::hash`, which Envoy's murmur hash repeats.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// Places by hash, ascending.
#[derive(Debug, Default)]
pub struct Ring(Box<[(u64, u32)]>);

impl Ring {
    /// `hosts`: key and weight of each; the weights add up to one.
    pub fn new(
        hosts: &[(&str, f64)],
        minimum_size: u64,
        maximum_size: u64,
        function: RingHashFunction,
    ) -> Self {
        let least = hosts
            .iter()
            .map(|(_, weight)| *weight)
            .fold(f64::INFINITY, f64::min);
        if !least.is_finite() || least <= 0.0 {
            return Self::default();
        }
        // Whole places for the lightest host, unless that makes the ring too large.
        let scale = ((least * minimum_size as f64).ceil() / least).min(maximum_size as f64);
        let mut places = Vec::with_capacity(scale.ceil() as usize);
        let (mut made, mut target) = (0.0, 0.0);
        let mut name = String::new();
        for (host, (key, weight)) in (0u32..).zip(hosts) {
            // Running sums, because scale times weight need not be whole.
            target += scale * weight;
            let mut number = 0u64;
            while made < target {
                name.clear();
                name.push_str(key);
                name.push('_');
                name.push_str(&number.to_string());
                places.push((hash(function, name.as_bytes()), host));
                number += 1;
                made += 1.0;
            }
        }
        places.sort_by_key(|(hash, _)| *hash);
        Self(places.into())
    }

    /// The host for a hash. `attempt` counts from 0; later attempts go around the ring.
    pub fn find(&self, hash: u64, attempt: u32) -> Option<usize> {
        let at = self.0.partition_point(|(place, _)| *place < hash);
        let at = if at == self.0.len() { 0 } else { at };
        let at = (at + attempt as usize).checked_rem(self.0.len())?;
        self.0.get(at).map(|(_, host)| *host as usize)
    }
}

fn hash(function: RingHashFunction, key: &[u8]) -> u64 {
    match function {
        RingHashFunction::XxHash => xxh64(key, 0),
        RingHashFunction::Murmur2 => murmur2(key, MURMUR_SEED),
    }
}

/// MurmurHash64A of Austin Appleby, in the variant of libstdc++ (which folds the tail in without
/// multiplying it first).
fn murmur2(key: &[u8], seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = seed ^ (key.len() as u64).wrapping_mul(MULTIPLIER);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk
            .iter()
            .rev()
            .fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ mix(word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER))
            .wrapping_mul(MULTIPLIER);
    }
    let tail = chunks.remainder();
    if !tail.is_empty() {
        let word = tail
            .iter()
            .rev()
            .fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
    }
    mix(mix(hash).wrapping_mul(MULTIPLIER))
}

#[cfg(test)]
mod tests;
