//! String matches and percentages as users write them.

use crate::object::Text;

/// `StringMatch` of networking rules. An empty match was turned into `Present` by the reader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    Exact(Text),
    Prefix(Text),
    /// RE2, matches the whole string; known to compile.
    Regex(Text),
    /// The value only has to be there.
    Present,
}

/// A percentage in millionths: 100 % is 1,000,000. Istio's doubles have a precision of 0.0001.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Millionths(u32);

impl Millionths {
    pub const ALL: Self = Self(1_000_000);
    pub const NONE: Self = Self(0);

    /// `None` outside 0..=100 and for NaN.
    pub fn from_percent(percent: f64) -> Option<Self> {
        (0.0..=100.0)
            .contains(&percent)
            .then(|| Self((percent * 10_000.0).round() as u32))
    }
    pub fn value(self) -> u32 {
        self.0
    }
}
