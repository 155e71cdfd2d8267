//! Fields that every Kubernetes object has ([`wire_kube::object`]), and what only whoever keeps
//! objects needs: references between them, points in time, shares of a number.

use serde_json::{Value, json};
use stdx::{Clock as _, SystemClock};

pub use wire_kube::object::*;

/// A reference to the object that controls another.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": text(owner, "/apiVersion"), "kind": text(owner, "/kind"), "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Whether `owner` controls `object`.
pub fn controlled_by(object: &Value, owner: &Value) -> bool {
    controller(object).is_some_and(|reference| text(reference, "/uid") == uid(owner))
}

/// The present as Kubernetes writes it: UTC, whole seconds.
pub fn now() -> String {
    timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The present. A mesh of real processes has the machine's clock and no other.
pub fn timestamp() -> jiff::Timestamp {
    // The years of both types are the same but for what no clock shows.
    jiff::Timestamp::try_from(SystemClock.wall()).unwrap_or(jiff::Timestamp::MAX)
}

/// A number of the form that Kubernetes takes for shares: `3` or `"25%"` of a whole; up or down to
/// a whole number.
pub fn share(value: Option<&Value>, whole: i64, round: Round, default: &str) -> i64 {
    let text = match value {
        Some(Value::Number(number)) => return number.as_i64().unwrap_or(0).max(0),
        Some(Value::String(text)) => text.as_str(),
        _ => default,
    };
    let Some(percent) = text
        .strip_suffix('%')
        .and_then(|text| text.parse::<i64>().ok())
    else {
        return text.parse().unwrap_or(0).max(0);
    };
    let parts = percent.max(0).saturating_mul(whole);
    match round {
        Round::Up => (parts + 99) / 100,
        Round::Down => parts / 100,
    }
}

/// Which way a share is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// `maxSurge`
    Up,
    /// `maxUnavailable`
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_kubernetes_rounds() {
        assert_eq!(share(None, 3, Round::Up, "25%"), 1);
        assert_eq!(share(None, 3, Round::Down, "25%"), 0);
        assert_eq!(share(Some(&json!(2)), 3, Round::Down, "25%"), 2);
        assert_eq!(share(Some(&json!("100%")), 3, Round::Down, "25%"), 3);
    }
}
