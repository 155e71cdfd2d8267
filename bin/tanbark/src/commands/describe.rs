//! `tanbark describe KIND [NAME]`: an object in words, and what happened to it. What is secret
//! stays so.
//!
//! All kinds have the form that kubectl gives to those it has no own form for: fields by titles,
//! indented.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::api::{Api, Filter};
use crate::kind::Kind;
use crate::object;
use crate::output;
use crate::scope::Scope;
use crate::session::Session;

/// What `apply` keeps; as long as the object, and as secret.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Maps whose keys are no fields.
const CHOSEN: [&str; 7] = [
    "data",
    "stringData",
    "binaryData",
    "labels",
    "matchLabels",
    "annotations",
    "selector",
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Names; all objects when none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Objects by label
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let found = find(&api, &args).await?;
    if found.is_empty() {
        output::note("No resources found");
    }
    for (at, (kind, each)) in found.iter().enumerate() {
        if at > 0 {
            output::emit("\n\n");
        }
        output::emit(&described(kind, each));
        output::emit(&events(&api, kind, each).await?);
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(api: &Api, args: &Args) -> Result<Vec<(Kind, Value)>> {
    let mut found = Vec::new();
    let namespace = args.scope.namespace();
    if args.kind.contains('/') || !args.names.is_empty() {
        if args.selector.is_some() || args.all_namespaces {
            bail!("names cannot be given together with -l or -A");
        }
        let words: Vec<String> = std::iter::once(&args.kind)
            .chain(&args.names)
            .cloned()
            .collect();
        for (kind, name) in super::scale::named(&words)? {
            let object = api.get(&kind, namespace, &name).await?;
            found.push((kind, object));
        }
        return Ok(found);
    }
    let kind = Kind::typed(&args.kind)?;
    let filter = Filter {
        labels: args.selector.as_deref(),
        fields: None,
    };
    let namespace = (!args.all_namespaces).then_some(namespace);
    let objects = api.list(&kind, namespace, filter).await?;
    found.extend(objects.into_iter().map(|each| (kind.clone(), each)));
    Ok(found)
}

/// An object's fields.
fn described(kind: &Kind, object: &Value) -> String {
    let mut shown = serde_json::Map::new();
    shown.insert("name".into(), object::name(object).into());
    if kind.namespaced {
        shown.insert("namespace".into(), object::namespace(object).into());
    }
    let mut out = String::new();
    fields(&mut out, &Value::Object(shown), 0);
    for word in ["labels", "annotations"] {
        let of = object
            .get("metadata")
            .and_then(|metadata| metadata.get(word));
        let pairs = of.and_then(Value::as_object).into_iter().flatten();
        let lines: Vec<String> = pairs
            .filter(|(key, _)| *key != LAST_APPLIED)
            .map(|(key, value)| format!("{key}={}", object::plain(value)))
            .collect();
        let text = if lines.is_empty() {
            "<none>".to_owned()
        } else {
            lines.join("\n              ")
        };
        out.push_str(&format!("{:<14}{text}\n", format!("{}:", title(word))));
    }
    let mut rest = object.clone();
    if let Some(rest) = rest.as_object_mut() {
        rest.remove("metadata");
    }
    if kind.kind == "Secret" {
        hide(&mut rest);
    }
    let created = object::text(object, "/metadata/creationTimestamp");
    fields(&mut out, &json!({"created": created}), 0);
    fields(&mut out, &rest, 0);
    out
}

/// Of a Secret's values only their lengths are shown.
fn hide(secret: &mut Value) {
    use base64::Engine as _;
    for field in ["data", "stringData"] {
        let values = secret.get_mut(field).and_then(Value::as_object_mut);
        for value in values.into_iter().flat_map(|values| values.values_mut()) {
            let text = value.as_str().unwrap_or_default();
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            let length = decoded.map_or(text.len(), |bytes| bytes.len());
            *value = format!("{length} bytes").into();
        }
    }
}

fn fields(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    // Whoever wrote the object chose these keys.
                    Value::Object(inner)
                        if !inner.is_empty()
                            && CHOSEN.contains(&key.as_str())
                            && inner
                                .values()
                                .all(|value| !value.is_object() && !value.is_array()) =>
                    {
                        out.push_str(&format!("{indent}{}:\n", title(key)));
                        for (key, value) in inner {
                            let text = object::plain(value);
                            let text = text.trim_end().replace('\n', &format!("\n{indent}    "));
                            out.push_str(&format!("{indent}  {key}: {text}\n"));
                        }
                    }
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push_str(&format!("{indent}{}:\n", title(key)));
                        fields(out, value, depth + 1);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        out.push_str(&format!("{indent}{}:\n", title(key)));
                        fields(out, value, depth + 1);
                    }
                    Value::Object(_) | Value::Array(_) | Value::Null => {
                        out.push_str(&format!("{indent}{}: <none>\n", title(key)));
                    }
                    Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                        let text = object::plain(value);
                        let text = text.trim_end().replace('\n', &format!("\n{indent}  "));
                        let name = format!("{}:", title(key));
                        let width = 14_usize.saturating_sub(indent.len());
                        out.push_str(&format!(
                            "{indent}{name:<width$}{}{text}\n",
                            if name.len() >= width { " " } else { "" }
                        ));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 && (item.is_object() || item.is_array()) {
                    out.push('\n');
                }
                fields(out, item, depth);
            }
        }
        plain => out.push_str(&format!("{indent}{}\n", object::plain(plain))),
    }
}

/// `hostNetwork` as `Host Network`; names that are no field's (`app.kubernetes.io/name`) as they
/// are.
fn title(key: &str) -> String {
    if !key
        .chars()
        .all(|character| character.is_ascii_alphanumeric())
    {
        return key.to_owned();
    }
    let mut out = String::new();
    let mut before = ' ';
    for character in key.chars() {
        if out.is_empty() {
            out.push(character.to_ascii_uppercase());
        } else {
            if character.is_ascii_uppercase() && before.is_ascii_lowercase() {
                out.push(' ');
            }
            out.push(character);
        }
        before = character;
    }
    out
}

async fn events(api: &Api, kind: &Kind, about: &Value) -> Result<String> {
    let fields = format!(
        "involvedObject.kind={},involvedObject.name={}",
        kind.kind,
        object::name(about)
    );
    let filter = Filter {
        labels: None,
        fields: Some(&fields),
    };
    let namespace = match object::namespace(about) {
        "" => "default",
        own => own,
    };
    let mut found = api
        .list(&Kind::typed("events")?, Some(namespace), filter)
        .await?;
    if found.is_empty() {
        return Ok("Events:       <none>\n".into());
    }
    object::sort_events(&mut found);
    let mut table = output::Table::new(["  Type", "Reason", "Last seen", "Message"]);
    for event in &found {
        let text = |pointer| object::text(event, pointer).trim_end().to_owned();
        let kind = format!("  {}", text("/type"));
        let seen = object::last_seen(event).to_owned();
        table.row([kind, text("/reason"), seen, text("/message")]);
    }
    Ok(format!("Events:\n{}", table.render(output::Colour::Off)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_told_by_titles_and_a_secret_keeps_its_values() {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "b", "labels": {"app": "x"},
            "annotations": {LAST_APPLIED: "hunter2"}}, "type": "Opaque", "data": {"key": "aHVudGVyMg=="}, "someList": [{"hostName": "h"}, 2]});
        let text = described(&Kind::typed("secret").expect("known"), &object);
        for line in [
            "Name:         a\n",
            "Namespace:    b\n",
            "Labels:       app=x\n",
            "Annotations:  <none>\n",
            "  key: 7 bytes\n",
            "Some List:\n  Host Name:  h\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(
            !text.contains("hunter2") && !text.contains("aHVudGVy"),
            "{text}"
        );
    }
}
