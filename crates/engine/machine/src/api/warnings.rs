//! What is wrong with an object that was written through the API, as `Warning` headers of the
//! answer (RFC 9111, as the API server has them): kubectl prints them. Without this a field that
//! the mesh does not know would be taken in silence until somebody asks for `status`.

use http::{HeaderValue, Response};
use serde_json::Value;
use wire_kube::manifest::{self, Document};

use super::answer::Body;
use super::route::Target;
use crate::context::Context;
use crate::store::kinds;

/// Warnings of one answer.
const MAX_WARNINGS: usize = 20;
/// Bytes of one warning.
const MAX_WARNING_BYTES: usize = 1_024;
/// How the written object is called among the others.
const WRITTEN: &str = "written";

/// Adds what the validator says about the object among all others; nothing for kinds that are not
/// the mesh's configuration.
pub fn add(response: &mut Response<Body>, context: &Context, target: &Target, object: &Value) {
    let Some(validate) = context
        .hooks
        .validate
        .as_ref()
        .filter(|_| configures(target.kind))
    else {
        return;
    };
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let mut documents = documents(WRITTEN, &object);
    for kind in kinds::ALL
        .iter()
        .filter(|kind| configures(kind) || is_context(kind))
    {
        for other in context.store.all(kind) {
            documents.extend(self::documents("present", &other));
        }
    }
    for line in validate(&documents)
        .iter()
        .filter_map(|line| words_about(line))
        .take(MAX_WARNINGS)
    {
        push(response, &line);
    }
}

/// Adds a warning in words that have no quotation marks but escaped ones.
pub fn push(response: &mut Response<Body>, words: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{words}\"")) {
        response.headers_mut().append(http::header::WARNING, value);
    }
}

fn configures(kind: &kinds::Kind) -> bool {
    kind.group.ends_with("istio.io") || kind.group == "gateway.networking.k8s.io"
}

/// What configuration refers to.
fn is_context(kind: &kinds::Kind) -> bool {
    [
        &kinds::NAMESPACES,
        &kinds::SERVICES,
        &kinds::DEPLOYMENTS,
        &kinds::STATEFUL_SETS,
        &kinds::SECRETS,
        &kinds::CONFIG_MAPS,
    ]
    .iter()
    .any(|other| other.id == kind.id)
}

fn documents(name: &str, object: &Value) -> Vec<Document> {
    manifest::load(name, &object.to_string()).unwrap_or_default()
}

/// A line of the validator without the place, which means nothing to who sent no file; `None` when
/// it is about another object.
fn words_about(line: &str) -> Option<String> {
    let rest = line.strip_prefix(WRITTEN)?.strip_prefix(':')?;
    let words = rest.splitn(3, ':').nth(2)?.trim();
    let words = words.strip_prefix("warning: ").unwrap_or(words);
    let mut text = String::new();
    for character in words.chars() {
        match character {
            '"' | '\\' => {
                text.push('\\');
                text.push(character);
            }
            // A header is one line of ASCII.
            ' '..='~' => text.push(character),
            _ => text.push('?'),
        }
        if text.len() >= MAX_WARNING_BYTES {
            break;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_judged_among_what_it_refers_to() {
        let chosen = |chosen: fn(&kinds::Kind) -> bool| -> Vec<&str> {
            kinds::ALL
                .iter()
                .filter(|kind| chosen(kind))
                .map(|kind| kind.plural)
                .collect()
        };
        assert!(chosen(is_context).contains(&"services"));
        assert!(chosen(configures).contains(&"virtualservices"));
        assert!(!chosen(is_context).contains(&"pods") && !chosen(configures).contains(&"pods"));
    }

    #[test]
    fn a_warning_has_the_words_without_the_place() {
        assert_eq!(
            words_about("written:1:20: warning: VirtualService default/a: spec.x: unknown field \"x\" [TB0101]").as_deref(),
            Some("VirtualService default/a: spec.x: unknown field \\\"x\\\" [TB0101]")
        );
        assert_eq!(
            words_about("written:1:20: VirtualService default/a: bad – really").as_deref(),
            Some("VirtualService default/a: bad ? really")
        );
        assert_eq!(words_about("present:1:20: Gateway a/b: bad"), None);
    }
}
