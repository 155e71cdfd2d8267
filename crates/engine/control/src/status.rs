//! What the control plane says in an object's status: its problems, and a ServiceEntry's addresses.
//!
//! [`ObjectStatus`] is a value. [`ObjectStatus::body`] compares it with an object as the API has it
//! and gives what has to be written, or nothing. The condition is `Reconciled` (as istiod's
//! analysis writes it) with `observedGeneration` and `lastTransitionTime`, beside it
//! `validationMessages` of code, level and field path.
//!
//! Writing is server-side apply with a field manager of our own ([`writer`]). In Istio's kinds the
//! list of conditions is one field, not a map by type (their definitions give it no list type), so
//! who applies one condition replaces the list: the body carries the conditions of others as they
//! were found, together with the version in which they were found, and a write that would be based
//! on another version is refused by the API.

use std::net::Ipv4Addr;

use ingest::{Problem, Severity};
use mesh_model::object::Text;
use serde_json::{Map, Value, json};

pub mod reporter;
pub mod writer;

/// The type of our condition.
const CONDITION: &str = "Reconciled";

/// Addresses of a ServiceEntry, by host.
pub type Addresses = Vec<(Text, Ipv4Addr)>;

/// What there is to say of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectStatus {
    pub problems: Vec<Problem>,
    /// Addresses that were given to the hosts of a ServiceEntry; tools and the cluster's DNS read
    /// them in its status.
    pub addresses: Addresses,
}

impl ObjectStatus {
    /// The object to apply so that `present` says this at `now` (RFC 3339); `None`: it does
    /// already. An object that has nothing wrong with it and never had is left alone.
    pub fn body(&self, present: &Value, now: &str) -> Option<Value> {
        let status = present.get("status").unwrap_or(&Value::Null);
        let condition = self.condition(present, now);
        let messages = self.messages();
        let addresses = self.address_list();
        let found = |field: &str| status.get(field).and_then(Value::as_array);
        let same =
            |field: &str, wanted: &[Value]| found(field).map_or(&[][..], Vec::as_slice) == wanted;
        let conditions = found("conditions").map_or(&[][..], Vec::as_slice);
        let is_told = match &condition {
            Some(condition) => conditions.contains(condition),
            None => true,
        };
        if is_told && same("validationMessages", &messages) && same("addresses", &addresses) {
            return None;
        }
        let mut ours = Map::new();
        if let Some(condition) = condition {
            ours.insert("conditions".into(), with_others(conditions, condition));
        }
        // An empty list takes away what an earlier version wrote under another name.
        for (field, list) in [("validationMessages", messages), ("addresses", addresses)] {
            if !list.is_empty() || found(field).is_some_and(|present| !present.is_empty()) {
                ours.insert(field.into(), list.into());
            }
        }
        let metadata = ["name", "namespace", "resourceVersion"].map(|field| {
            let value = present.pointer(&format!("/metadata/{field}"));
            (field.to_owned(), value.cloned().unwrap_or_default())
        });
        let metadata = metadata.into_iter().filter(|(_, value)| !value.is_null());
        Some(json!({
            "apiVersion": present.get("apiVersion"),
            "kind": present.get("kind"),
            "metadata": metadata.collect::<Map<_, _>>(),
            "status": ours,
        }))
    }

    /// `None`: the object needs none.
    fn condition(&self, present: &Value, now: &str) -> Option<Value> {
        let before = own_condition(present);
        let worst = self.problems.iter().map(|problem| problem.severity).min();
        let (status, reason, message) = match worst {
            Some(Severity::Error) => (
                "False",
                "Invalid",
                "the object is not used; its last good version, if there was one, stays in force",
            ),
            Some(_) => (
                "True",
                "UsedWithProblems",
                "the object is used, but parts of it have no effect",
            ),
            None if before.is_none() => return None,
            None => ("True", "Valid", ""),
        };
        // The time of the last change from true to false or back, not of the last write.
        let since = before
            .filter(|before| before.get("status").is_some_and(|value| value == status))
            .and_then(|before| before.get("lastTransitionTime").cloned());
        let mut condition = json!({
            "type": CONDITION,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| now.into()),
        });
        if let (Some(fields), Some(generation)) = (condition.as_object_mut(), generation(present)) {
            fields.insert("observedGeneration".into(), generation.into());
        }
        Some(condition)
    }

    fn messages(&self) -> Vec<Value> {
        let message = |problem: &Problem| {
            json!({
                "type": {"code": problem.code},
                "level": problem.severity.as_str().to_uppercase(),
                "path": problem.path,
                "message": problem.message,
            })
        };
        self.problems.iter().map(message).collect()
    }

    fn address_list(&self) -> Vec<Value> {
        let address =
            |(host, ip): &(Text, Ipv4Addr)| json!({"value": ip.to_string(), "host": &**host});
        self.addresses.iter().map(address).collect()
    }
}

/// The conditions of others as they are, and ours in its place or at the end.
fn with_others(conditions: &[Value], ours: Value) -> Value {
    let mut all = conditions.to_vec();
    match all.iter_mut().find(|condition| is_ours(condition)) {
        Some(place) => *place = ours,
        None => all.push(ours),
    }
    all.into()
}

fn is_ours(condition: &Value) -> bool {
    condition.get("type").is_some_and(|kind| kind == CONDITION)
}

fn own_condition(object: &Value) -> Option<&Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| is_ours(condition))
}

/// Whether the status of an object, as the API has it, holds anything that [`ObjectStatus`] says.
pub fn says_something(object: &Value) -> bool {
    let is_filled = |field: &str| {
        let list = object.pointer(&format!("/status/{field}"));
        list.and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    };
    own_condition(object).is_some() || is_filled("validationMessages") || is_filled("addresses")
}

/// `metadata.generation`; `None` where the API counts none.
pub fn generation(object: &Value) -> Option<i64> {
    object.pointer("/metadata/generation")?.as_i64()
}

#[cfg(test)]
mod tests;
