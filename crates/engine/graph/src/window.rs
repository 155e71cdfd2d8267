//! The last scrapes: rates are over a time long enough that a person's single requests stay to be
//! read.
//!
//! At most as many scrapes are kept as fall into the window, and one before them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::flow::Flow;
use crate::totals::Totals;

/// Scrapes with the time of each, counted from any fixed moment.
#[derive(Debug, Clone)]
pub struct Window {
    length: Duration,
    scrapes: VecDeque<(Totals, Duration)>,
}

impl Window {
    /// An empty window over this length of time.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            scrapes: VecDeque::new(),
        }
    }

    /// Takes in a scrape. `at` must not go back from one call to the next.
    pub fn add(&mut self, totals: Totals, at: Duration) {
        self.scrapes.push_back((totals, at));
        while self.scrapes.len() > 2
            && self
                .scrapes
                .get(1)
                .is_some_and(|(_, then)| at.saturating_sub(*then) >= self.length)
        {
            self.scrapes.pop_front();
        }
    }

    /// The traffic within the window, the busiest edge first; none before the second scrape.
    pub fn flows(&self) -> Vec<Flow> {
        match (self.scrapes.front(), self.scrapes.back()) {
            (Some((before, then)), Some((now, at))) => now.since(before, at.saturating_sub(*then)),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_shown_for_the_length_of_the_window() {
        let page = "istio_requests_total{reporter=\"source\",source_workload=\"a\",destination_workload=\"b\",response_code=\"200\"} 5\n";
        let mut after = Totals::default();
        after.add(page);
        let mut window = Window::new(Duration::from_secs(10));
        window.add(Totals::default(), Duration::ZERO);
        for second in [2, 4, 6, 8, 10] {
            window.add(after.clone(), Duration::from_secs(second));
            assert_eq!(window.flows().len(), 1, "after {second} s");
        }
        window.add(after.clone(), Duration::from_secs(12));
        assert!(window.flows().is_empty());
    }
}
