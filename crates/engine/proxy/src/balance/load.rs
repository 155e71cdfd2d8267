//! How requests are shared among the priorities of a cluster, by their health.
//!
//! A priority whose hosts are all healthy takes everything; as it loses hosts it keeps what its
//! health times the overprovisioning factor allows and the rest spills over to the next. When too
//! few hosts of a priority are healthy it panics and uses all of them. Whole percent, integer
//! arithmetic, and the order of steps are Envoy's ("Priority levels", "Panic threshold" in its load
//! balancing documentation).

/// The hosts of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub hosts: u64,
    pub healthy: u64,
    pub degraded: u64,
    /// The same by weight, or equal to the counts; health is computed from these.
    pub weight: u64,
    pub healthy_weight: u64,
    pub degraded_weight: u64,
}

/// Percent of requests for each priority; all of them together make 100.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loads {
    pub healthy: Vec<u64>,
    pub degraded: Vec<u64>,
    pub panics: Vec<bool>,
}

/// Which hosts of a priority are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Healthy,
    Degraded,
}

impl Loads {
    /// `panic_percent`: 0 switches the panic mode off.
    pub fn new(levels: &[Counts], overprovisioning_percent: u64, panic_percent: u64) -> Self {
        let health = |part: u64, whole: u64| {
            (overprovisioning_percent * part)
                .checked_div(whole)
                .unwrap_or(0)
                .min(100)
        };
        let healthy: Vec<u64> = levels
            .iter()
            .map(|l| health(l.healthy_weight, l.weight))
            .collect();
        let degraded: Vec<u64> = levels
            .iter()
            .map(|l| health(l.degraded_weight, l.weight))
            .collect();
        let available = healthy.iter().chain(&degraded).sum::<u64>().min(100);
        let mut loads = Self {
            panics: vec![false; levels.len()],
            ..Self::shared(&healthy, &degraded, available)
        };
        let panic_percent = panic_percent.min(100);
        if available == 100 || (panic_percent == 0 && available == 0) {
            return loads;
        }
        loads.panics = levels
            .iter()
            .map(|level| level.is_below(panic_percent))
            .collect();
        if loads.panics.iter().all(|panics| *panics) {
            loads.share_by_size(levels);
        }
        loads
    }

    /// First what is healthy, by priority; then what is degraded. Without any of both the first
    /// priority has it all.
    fn shared(healthy: &[u64], degraded: &[u64], available: u64) -> Self {
        let mut left = 100;
        let mut share = |health: &[u64]| -> Vec<u64> {
            let parts = health.iter().map(|health| {
                let part = (health * 100).checked_div(available).unwrap_or(0).min(left);
                left -= part;
                part
            });
            parts.collect()
        };
        let mut loads = Self {
            healthy: share(healthy),
            degraded: share(degraded),
            panics: Vec::new(),
        };
        // What rounding lost goes to the first that takes anything.
        let first = |loads: &[u64]| loads.iter().position(|load| *load > 0);
        let place = match (first(&loads.healthy), first(&loads.degraded)) {
            (Some(at), _) => loads.healthy.get_mut(at),
            (None, Some(at)) => loads.degraded.get_mut(at),
            (None, None) => loads.healthy.first_mut(),
        };
        if let Some(place) = place {
            *place += left;
        }
        loads
    }

    /// Everybody panics: by number of hosts, whatever their health.
    fn share_by_size(&mut self, levels: &[Counts]) {
        let total: u64 = levels.iter().map(|level| level.hosts).sum();
        let mut left = 100;
        for (load, level) in self.healthy.iter_mut().zip(levels) {
            *load = (100 * level.hosts).checked_div(total).unwrap_or(0);
            left -= *load;
        }
        self.degraded.fill(0);
        let first = levels.iter().position(|level| level.hosts > 0).unwrap_or(0);
        if let Some(load) = self.healthy.get_mut(first) {
            *load += left;
        }
    }

    /// The priority for a uniformly distributed number.
    pub fn choose(&self, random: u64) -> Option<(usize, Availability)> {
        let mut left = random % 100;
        let mut find = |loads: &[u64]| {
            loads.iter().position(|load| match left.checked_sub(*load) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            })
        };
        let healthy = find(&self.healthy).map(|at| (at, Availability::Healthy));
        healthy.or_else(|| find(&self.degraded).map(|at| (at, Availability::Degraded)))
    }
}

impl Counts {
    fn is_below(&self, panic_percent: u64) -> bool {
        let percent = |part: u64| {
            if self.hosts == 0 {
                0.0
            } else {
                100.0 * part as f64 / self.hosts as f64
            }
        };
        percent(self.healthy) + percent(self.degraded) < panic_percent as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(hosts: u64, healthy: u64, degraded: u64) -> Counts {
        Counts {
            hosts,
            healthy,
            degraded,
            weight: hosts,
            healthy_weight: healthy,
            degraded_weight: degraded,
        }
    }

    fn loads(levels: &[(u64, u64)]) -> (Vec<u64>, Vec<bool>) {
        let levels: Vec<Counts> = levels
            .iter()
            .map(|(hosts, healthy)| counts(*hosts, *healthy, 0))
            .collect();
        let loads = Loads::new(&levels, 140, 50);
        (loads.healthy, loads.panics)
    }

    /// The tables of Envoy's documentation on priority levels and panic thresholds, as hosts of a
    /// hundred.
    #[test]
    fn traffic_spills_over_as_documented() {
        let two = |p0, p1| loads(&[(100, p0), (100, p1)]).0;
        let table = [
            (100, 100, [100, 0]),
            (72, 100, [100, 0]),
            (71, 100, [99, 1]),
            (50, 100, [70, 30]),
            (25, 100, [35, 65]),
            (0, 100, [0, 100]),
            (25, 25, [50, 50]),
        ];
        for (p0, p1, expected) in table {
            assert_eq!(two(p0, p1), expected, "{p0}% and {p1}% healthy");
        }
        assert_eq!(loads(&[(100, 25), (100, 25), (100, 25)]).0, [35, 35, 30]);
        assert_eq!(
            loads(&[(100, 20), (100, 20), (100, 20)]).0,
            [34, 33, 33],
            "all panic, so by size"
        );
        let calm = Loads::new(
            &[counts(100, 25, 0), counts(100, 0, 0), counts(100, 20, 0)],
            140,
            0,
        );
        assert_eq!(
            calm.healthy,
            [56, 0, 44],
            "what rounding lost goes to the first"
        );
    }

    #[test]
    fn a_priority_panics_only_when_the_others_cannot_take_over() {
        assert_eq!(
            loads(&[(100, 20), (100, 100)]),
            (vec![28, 72], vec![false, false])
        );
        assert_eq!(
            loads(&[(100, 5), (100, 65)]),
            (vec![8, 92], vec![true, false])
        );
        // All panic: by size.
        assert_eq!(loads(&[(10, 0), (30, 0)]), (vec![25, 75], vec![true, true]));
        assert_eq!(loads(&[(0, 0), (0, 0)]), (vec![100, 0], vec![true, true]));
    }

    #[test]
    fn without_panic_mode_nothing_healthy_stays_nothing() {
        let loads = Loads::new(&[counts(4, 0, 0), counts(4, 0, 0)], 140, 0);
        assert_eq!(
            (loads.healthy, loads.panics),
            (vec![100, 0], vec![false, false])
        );
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_of_all_priorities_cannot() {
        let loads = Loads::new(&[counts(10, 3, 7), counts(10, 3, 0)], 140, 50);
        assert_eq!(
            (loads.healthy.clone(), loads.degraded.clone()),
            (vec![42, 42], vec![16, 0])
        );
        assert_eq!(loads.choose(41), Some((0, Availability::Healthy)));
        assert_eq!(loads.choose(42), Some((1, Availability::Healthy)));
        assert_eq!(loads.choose(84), Some((0, Availability::Degraded)));
        assert_eq!(loads.choose(100), Some((0, Availability::Healthy)));
    }

    proptest! {
        #[test]
        fn loads_make_a_hundred(
            levels in prop::collection::vec((0u64..40, 0u64..40, 0u64..40), 1..6), factor in 100u64..200, panic in 0u64..101, random: u64,
        ) {
            let levels: Vec<Counts> = levels.into_iter().map(|(bad, healthy, degraded)| counts(bad + healthy + degraded, healthy, degraded)).collect();
            let loads = Loads::new(&levels, factor, panic);
            prop_assert_eq!(loads.healthy.iter().chain(&loads.degraded).sum::<u64>(), 100);
            let (level, availability) = loads.choose(random).unwrap();
            let total: u64 = levels.iter().map(|l| l.healthy + l.degraded).sum();
            // Whoever is chosen has hosts of that kind, panics, or nobody has any.
            let has = match availability { Availability::Healthy => levels[level].healthy, Availability::Degraded => levels[level].degraded };
            prop_assert!(has > 0 || loads.panics[level] || total == 0);
        }
    }
}
