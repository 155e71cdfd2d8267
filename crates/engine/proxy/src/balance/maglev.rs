//! Consistent hashing by a Maglev table: a table of prime size in which each host has its share of
//! places.
//!
//! Pure: keys and normalised weights come in, positions in that list go out. Hosts take turns to
//! claim the next free place of their own permutation of the table. Order of turns, permutations
//! and seeds are Envoy's. Follows "Maglev: A Fast and Reliable Software Network Load Balancer"
//! (2016), listing 1.

use xxhash_rust::xxh64::xxh64;

#[derive(Debug, Default)]
pub struct Maglev(Box<[u32]>);

const FREE: u32 = u32::MAX;

struct Claim {
    host: u32,
    weight: f64,
    /// Next place of its permutation, and the distance between places.
    place: u64,
    skip: u64,
    /// The weight that it must have gathered for its next turn.
    target: f64,
}

impl Maglev {
    /// `hosts`: key and weight of each. `size` must be prime.
    pub fn new(hosts: &[(&str, f64)], size: u64) -> Self {
        let heaviest = hosts.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        if heaviest <= 0.0 || size < 2 {
            return Self::default();
        }
        let mut ordered: Vec<(u32, &str, f64)> = (0u32..)
            .zip(hosts)
            .map(|(at, (key, weight))| (at, *key, *weight))
            .collect();
        // The table depends on the order of turns, which must not depend on the order of discovery.
        ordered.sort_by(|a, b| a.1.cmp(b.1));
        let claim = |(host, key, weight): (u32, &str, f64)| {
            let skip = xxh64(key.as_bytes(), 1) % (size - 1) + 1;
            Claim {
                host,
                weight,
                place: xxh64(key.as_bytes(), 0) % size,
                skip,
                target: 0.0,
            }
        };
        let mut claims: Vec<Claim> = ordered.into_iter().map(claim).collect();
        let mut table = vec![FREE; usize::try_from(size).unwrap_or(0)];
        let mut free = table.len();
        let mut round = 0.0;
        while free > 0 {
            round += 1.0;
            for claim in &mut claims {
                // The heaviest has a turn in each round, one of half its weight in every other.
                if free == 0 || round * claim.weight < claim.target {
                    continue;
                }
                claim.target += heaviest;
                free -= usize::from(claim.take(&mut table, size));
            }
        }
        Self(table.into())
    }

    /// The host for a hash. `attempt` counts from 0; later attempts look elsewhere.
    pub fn find(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = if attempt > 0 {
            hash ^ u64::MAX.wrapping_sub(u64::from(attempt)).wrapping_add(1)
        } else {
            hash
        };
        let at = usize::try_from(hash.checked_rem(self.0.len() as u64)?).ok()?;
        self.0.get(at).map(|host| *host as usize)
    }
}

impl Claim {
    /// Takes the next free place; with a prime size every permutation visits all places.
    fn take(&mut self, table: &mut [u32], size: u64) -> bool {
        for _ in 0..table.len() {
            let at = usize::try_from(self.place).unwrap_or(usize::MAX);
            self.place = (self.place + self.skip) % size;
            if let Some(place) = table.get_mut(at).filter(|place| **place == FREE) {
                *place = self.host;
                return true;
            }
        }
        // Never with a prime size. The place counts as taken so that building ends.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ports: &[u16], weights: &[f64], size: u64) -> Vec<u32> {
        let keys: Vec<String> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let total: f64 = weights.iter().sum();
        let hosts: Vec<(&str, f64)> = keys
            .iter()
            .zip(weights)
            .map(|(key, weight)| (&**key, weight / total))
            .collect();
        Maglev::new(&hosts, size).0.into()
    }

    /// Tables that Envoy's own tests write down.
    #[test]
    fn tables_are_envoys() {
        let six = table(&[90, 91, 92, 93, 94, 95], &[1.0; 6], 7);
        assert_eq!(six, [2, 4, 0, 1, 5, 0, 3]);
        let weighted = table(&[90, 91], &[1.0, 2.0], 17);
        assert_eq!(
            weighted,
            [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]
        );
        let equal = table(&[90, 91], &[1.0, 1.0], 17);
        assert_eq!(equal, [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]);
        let eight_to_two = table(&[90, 91], &[8.0, 2.0], 17);
        assert_eq!(
            eight_to_two,
            [1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]
        );
        let names: Vec<String> = (90..=95).map(|name: u16| name.to_string()).collect();
        let hosts: Vec<(&str, f64)> = names.iter().map(|name| (&**name, 1.0 / 6.0)).collect();
        assert_eq!(*Maglev::new(&hosts, 7).0, [2, 5, 0, 3, 4, 1, 0]);
    }

    #[test]
    fn retries_look_elsewhere_as_envoys_do() {
        let keys: Vec<String> = (90..=95)
            .map(|port: u16| format!("127.0.0.1:{port}"))
            .collect();
        let hosts: Vec<(&str, f64)> = keys.iter().map(|key| (&**key, 1.0 / 6.0)).collect();
        let maglev = Maglev::new(&hosts, 7);
        assert_eq!(
            [0, 1, 2].map(|attempt| maglev.find(10, attempt)),
            [Some(1), Some(0), Some(5)]
        );
    }

    #[test]
    fn the_order_of_discovery_does_not_matter() {
        let one = table(&[1, 2, 3], &[1.0; 3], 101);
        let other = table(&[3, 1, 2], &[1.0; 3], 101);
        assert_eq!(
            one,
            other
                .into_iter()
                .map(|host| [2, 0, 1][host as usize])
                .collect::<Vec<u32>>()
        );
    }

    #[test]
    fn places_follow_weights_and_the_lightest_has_one() {
        let keys: Vec<String> = (0..1024).map(|port| format!("127.0.0.1:{port}")).collect();
        let weight = |at: usize| {
            if at == 0 {
                127.0 / 128.0
            } else {
                1.0 / 128.0 / 1023.0
            }
        };
        let hosts: Vec<(&str, f64)> = keys
            .iter()
            .enumerate()
            .map(|(at, key)| (&**key, weight(at)))
            .collect();
        let maglev = Maglev::new(&hosts, 65_537);
        let mut counts = vec![0; 1024];
        maglev.0.iter().for_each(|host| counts[*host as usize] += 1);
        assert_eq!(
            (
                counts[0],
                counts[1..].iter().min(),
                counts[1..].iter().max()
            ),
            (65_537 - 1023, Some(&1), Some(&1))
        );
        assert!(Maglev::new(&[], 7).find(0, 0).is_none());
    }
}
