//! Label and field selectors: the texts of the API's query parameters, and the `selector` objects
//! of Services and workloads.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object;

/// All requirements of a label selector; each must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// The part that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        split_outside_parentheses(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(parse_part)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Reads a `LabelSelector` object (`matchLabels`, `matchExpressions`).
    pub fn of_object(selector: &Value) -> Self {
        let mut requirements: Vec<Requirement> = object::texts(selector, "/matchLabels")
            .into_iter()
            .map(|(key, value)| Requirement::In(key, vec![value]))
            .collect();
        for expression in object::list(selector, "/matchExpressions") {
            let key = object::text(expression, "/key").to_string();
            let values = object::list(expression, "/values")
                .iter()
                .filter_map(Value::as_str)
                .map(String::from)
                .collect();
            requirements.push(match object::text(expression, "/operator") {
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                _ => Requirement::In(key, values),
            });
        }
        Self(requirements)
    }

    /// Reads a plain map of labels, as a Service's `spec.selector`.
    pub fn of_map(labels: BTreeMap<String, String>) -> Self {
        Self(
            labels
                .into_iter()
                .map(|(key, value)| Requirement::In(key, vec![value]))
                .collect(),
        )
    }

    /// Whether there is no requirement.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels fulfil all requirements.
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object.get("metadata")?.get("labels")?.get(key)?.as_str();
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|label| values.iter().any(|value| value == label))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|label| values.iter().all(|value| value != label))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .collect()
}

fn parse_part(part: &str) -> Result<Requirement, String> {
    let wrong = || format!("unable to parse requirement: {part}");
    for (word, negative) in [(" notin ", true), (" in ", false)] {
        if let Some((key, values)) = part.split_once(word) {
            let values = values
                .trim()
                .strip_prefix('(')
                .and_then(|values| values.strip_suffix(')'))
                .ok_or_else(wrong)?;
            let values = values
                .split(',')
                .map(|value| value.trim().to_string())
                .collect();
            let key = key.trim().to_string();
            return Ok(if negative {
                Requirement::NotIn(key, values)
            } else {
                Requirement::In(key, values)
            });
        }
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(
            key.trim().into(),
            vec![value.trim().into()],
        ));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(
            key.trim().into(),
            vec![value.trim().into()],
        ));
    }
    let (negative, key) = match part.strip_prefix('!') {
        Some(key) => (true, key.trim()),
        None => (false, part),
    };
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(if negative {
        Requirement::Absent(key.into())
    } else {
        Requirement::Exists(key.into())
    })
}

/// Requirements on fields (`metadata.name=a,status.phase!=Running`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String, bool)>);

impl Fields {
    /// Reads the query parameter.
    ///
    /// # Errors
    /// The part that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (field, value, equal) = match (
                part.split_once("!="),
                part.split_once("==").or_else(|| part.split_once('=')),
            ) {
                (Some((field, value)), _) => (field, value, false),
                (None, Some((field, value))) => (field, value, true),
                (None, None) => return Err(format!("invalid field selector: {part}")),
            };
            Ok((
                format!("/{}", field.replace('.', "/")),
                value.to_string(),
                equal,
            ))
        });
        parts.collect::<Result<_, _>>().map(Self)
    }

    /// Whether an object's fields fulfil all requirements.
    pub fn matches(&self, object: &Value) -> bool {
        self.0
            .iter()
            .all(|(pointer, value, equal)| (object::text(object, pointer) == value) == *equal)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_are_read_and_matched() {
        let pod = json!({"metadata": {"labels": {"app": "a", "tier": "web"}}});
        for (text, expected) in [
            ("app=a", true),
            ("app==a,tier!=db", true),
            ("app in (a, b),tier notin (db)", true),
            ("app notin (a)", false),
            ("version", false),
            ("!version,app", true),
            ("", true),
        ] {
            assert_eq!(
                Labels::parse(text).expect(text).matches(&pod),
                expected,
                "{text}"
            );
        }
        Labels::parse("app in a").expect_err("parentheses are missing");
    }

    #[test]
    fn selector_objects_are_matched() {
        let pod = json!({"metadata": {"labels": {"app": "a"}}});
        let selector = json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
        assert!(Labels::of_object(&selector).matches(&pod));
        let selector =
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]});
        assert!(!Labels::of_object(&selector).matches(&pod));
    }

    #[test]
    fn field_selectors_are_matched() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"}});
        assert!(
            Fields::parse("metadata.name=p,status.phase!=Failed")
                .expect("parses")
                .matches(&pod)
        );
        assert!(
            !Fields::parse("metadata.name=q")
                .expect("parses")
                .matches(&pod)
        );
    }
}
