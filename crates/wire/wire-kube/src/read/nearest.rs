//! The known name that is nearest to one that isn't known, for "did you mean".

/// The candidate at the smallest edit distance (insert, delete, replace, swap neighbours), letter
/// case counting little;
/// `None` when none is near enough to be meant.
pub fn nearest<'c>(
    written: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let folded = fold(written);
    if folded.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(d, candidate)| *d <= 1 + candidate.chars().count().min(folded.len()) / 4)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

fn fold(text: &str) -> Vec<char> {
    text.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |r: &[usize], k: usize| r.get(k).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&above, j) + usize::from(ca != cb);
            let mut best = replaced.min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near() {
        let names = ["weight", "destination", "headers", "retries", "timeout"];
        assert_eq!(nearest("wieght", names), Some("weight"));
        assert_eq!(nearest("destinations", names), Some("destination"));
        assert_eq!(nearest("Timeout", names), Some("timeout"));
        assert_eq!(nearest("foo", names), None);
        assert_eq!(nearest("", names), None);
    }
}
