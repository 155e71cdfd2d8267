//! Randomness as an argument.
//!
//! Load balancing, sampling, fault injection and identifiers draw from an [`Rng`] that the caller
//! passes in, so a test or a simulation with a seed repeats exactly. Not for secrets: keys and
//! nonces come from the cryptography library.

use std::sync::Arc;

use parking_lot::Mutex;

/// Source of uniformly distributed random bits. Takes `&self`, so that one generator can be shared
/// by the tasks of a worker.
pub trait Rng: Send + Sync + 'static {
    /// 64 uniform bits.
    fn u64(&self) -> u64;

    /// A uniform number in `0..bound`; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        // The high half of the 128-bit product is uniform to within 2^-64 × bound, which no caller
        // here can see.
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number in `0.0..1.0`.
    fn fraction(&self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 128 uniform bits.
    fn u128(&self) -> u128 {
        (u128::from(self.u64()) << 64) | u128::from(self.u64())
    }
}

/// The thread's own generator, seeded by the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn u64(&self) -> u64 {
        fastrand::u64(..)
    }
}

/// A generator that repeats from its seed. Clones continue the same sequence.
#[derive(Debug, Clone)]
pub struct SeededRng(Arc<Mutex<fastrand::Rng>>);

impl SeededRng {
    /// A generator whose sequence depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }
}

impl Rng for SeededRng {
    fn u64(&self) -> u64 {
        self.0.lock().u64(..)
    }
}

impl<R: Rng + ?Sized> Rng for Arc<R> {
    fn u64(&self) -> u64 {
        (**self).u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_bounds_hold() {
        let (a, b) = (SeededRng::new(7), SeededRng::new(7));
        let first: Vec<u64> = (0..8).map(|_| a.u64()).collect();
        assert_eq!(first, (0..8).map(|_| b.u64()).collect::<Vec<_>>());
        assert!((0..1000).all(|_| a.below(10) < 10 && (0.0..1.0).contains(&a.fraction())));
        assert_eq!(a.below(0), 0);
        let spread: std::collections::BTreeSet<u64> = (0..1000).map(|_| a.below(10)).collect();
        assert_eq!(spread.len(), 10);
    }
}
