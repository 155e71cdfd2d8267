//! Numbers that may only shrink.
//!
//! A check measures a place and says what its limit is. What exceeds the limit must be listed in
//! `ratchets.json` with its amount of today; a listed place may shrink, never grow, and an entry
//! that says more than what is measured is a fault too, so the list gets shorter. `cargo xtask tidy
//! --tighten` rewrites the list, downwards only.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};

use super::fault::Fault;

const RATCHETS: &str = "dev/xtask/ratchets.json";

/// What was measured at a place that exceeds its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    pub amount: usize,
    pub limit: usize,
    /// What is counted, with what to do about it: `lines; split the function`.
    pub unit: &'static str,
}

/// Place → excess. A place is a path, `path#function` or `path: what`.
pub type Excesses = BTreeMap<String, Excess>;

pub fn check(root: &Path, measured: &Excesses) -> Result<Vec<Fault>> {
    Ok(compare(&read(root)?, measured))
}

/// Lowers the entries of `ratchets.json` to what is measured and removes those within their limits.
pub fn tighten(root: &Path, measured: &Excesses) -> Result<()> {
    let lowered: BTreeMap<String, usize> = read(root)?
        .into_iter()
        .filter_map(|(place, before)| {
            let now = measured.get(&place)?.amount;
            Some((place, now.min(before)))
        })
        .collect();
    let text = serde_json::to_string_pretty(&lowered)? + "\n";
    std::fs::write(root.join(RATCHETS), text).context(RATCHETS)
}

fn read(root: &Path) -> Result<BTreeMap<String, usize>> {
    let text = std::fs::read_to_string(root.join(RATCHETS)).context(RATCHETS)?;
    serde_json::from_str(&text).context(RATCHETS)
}

fn compare(allowed: &BTreeMap<String, usize>, measured: &Excesses) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |place: &str, what: String| {
        faults.push(Fault {
            place: place.to_owned(),
            what,
        });
    };
    for (place, excess) in measured {
        let Excess {
            amount,
            limit,
            unit,
        } = excess;
        match allowed.get(place) {
            None => fault(place, format!("{amount} {unit}; the limit is {limit}")),
            Some(before) if amount > before => fault(
                place,
                format!("{amount} {unit}; it had {before} and may only shrink"),
            ),
            Some(before) if amount < before => fault(
                RATCHETS,
                format!("`{place}` is at {amount} now, not {before}: cargo xtask tidy --tighten"),
            ),
            Some(_) => {}
        }
    }
    for place in allowed
        .keys()
        .filter(|place| !measured.contains_key(*place))
    {
        fault(
            RATCHETS,
            format!("`{place}` is within its limit now: cargo xtask tidy --tighten"),
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excess(amount: usize) -> Excess {
        Excess {
            amount,
            limit: 70,
            unit: "lines",
        }
    }

    #[test]
    fn a_place_may_shrink_and_its_entry_with_it_but_not_grow() {
        let allowed =
            BTreeMap::from([("a".to_owned(), 80), ("b".to_owned(), 80), ("c".into(), 80)]);
        let told = |measured: &[(&str, usize)]| {
            let measured = measured
                .iter()
                .map(|(place, amount)| ((*place).to_owned(), excess(*amount)))
                .collect();
            let faults = compare(&allowed, &measured);
            faults.into_iter().map(|f| f.place).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[("a", 80), ("b", 80), ("c", 80)]),
            Vec::<String>::new()
        );
        assert_eq!(
            told(&[("a", 81), ("b", 79), ("d", 71)]),
            ["a", RATCHETS, "d", RATCHETS]
        );
    }
}
