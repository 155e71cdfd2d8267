//! In which shape a client wants objects: as they are, or as a `Table` of the columns that kubectl
//! prints.

use http::HeaderMap;
use serde_json::{Value, json};

use super::route::query;
use crate::object;
use crate::store::kinds::Kind;
use crate::table::{Carried, table};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Objects and lists of them.
    #[default]
    Objects,
    /// `application/json;as=Table;v=v1;g=meta.k8s.io`
    Table(Carried),
}

impl Shape {
    /// Reads `Accept` and `includeObject`.
    pub fn of(headers: &HeaderMap, parameters: Option<&str>) -> Self {
        if !accepts(headers, &["as=Table", "v=v1", "g=meta.k8s.io"]) {
            return Self::Objects;
        }
        Self::Table(
            match query(parameters).get("includeObject").map(String::as_str) {
                Some("None") => Carried::Nothing,
                Some("Object") => Carried::Object,
                _ => Carried::Metadata,
            },
        )
    }

    /// Objects of a kind in this shape; `plain` is what is answered otherwise.
    pub fn dress(self, kind: &Kind, objects: &[Value], version: &str, plain: Value) -> Value {
        match self {
            Self::Objects => plain,
            Self::Table(carried) => {
                let mut table = table(kind.group, kind.kind, objects, carried, object::timestamp());
                table["metadata"] = json!({"resourceVersion": version});
                table
            }
        }
    }
}

/// Does one of the accepted media types carry all of these parameters?
pub fn accepts(headers: &HeaderMap, parameters: &[&str]) -> bool {
    headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|media| {
            let given: Vec<&str> = media.split(';').map(str::trim).collect();
            given.first() == Some(&"application/json")
                && parameters.iter().all(|wanted| given.contains(wanted))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_tables_are_recognised() {
        let mut headers = HeaderMap::new();
        assert_eq!(Shape::of(&headers, None), Shape::Objects);
        let asked = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        headers.insert(http::header::ACCEPT, asked.parse().expect("a header"));
        assert_eq!(Shape::of(&headers, None), Shape::Table(Carried::Metadata));
        assert_eq!(
            Shape::of(&headers, Some("limit=500&includeObject=Object")),
            Shape::Table(Carried::Object)
        );
        headers.insert(
            http::header::ACCEPT,
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"
                .parse()
                .expect("a header"),
        );
        assert_eq!(Shape::of(&headers, None), Shape::Objects);
    }
}
