//! What Istio's control plane and agent really send must be followed: tag rules, log formats,
//! expressions, metric plans.

use serde_json::Value;
use telemetry::access_log::{Environment, Format};
use telemetry::cel::Expression;
use telemetry::istio_metrics::{MetricConfig, Plan};
use telemetry::stats::TagRules;

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Calls `visit` with every object.
fn walk(value: &Value, visit: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            map.values().for_each(|value| walk(value, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

#[test]
fn bootstrap_tag_rules_compile() {
    for name in ["bootstrap-sidecar.json", "bootstrap-gateway.json"] {
        let bootstrap = json(captures::general(name).as_bytes());
        let mut rules = TagRules::none();
        let tags = bootstrap["stats_config"]["stats_tags"].as_array().unwrap();
        assert!(tags.len() > 10);
        for tag in tags {
            let (name, regex) = (
                tag["tag_name"].as_str().unwrap(),
                tag["regex"].as_str().unwrap(),
            );
            rules.push_regex(name, regex).unwrap();
        }
    }
}

#[test]
fn every_format_expression_and_metric_of_the_captures_is_understood() {
    let environment = Environment::default();
    let (mut formats, mut expressions, mut plans) = (0, 0, 0);
    for scenario in captures::scenarios() {
        for file in ["sidecar.lds.json", "gateway.lds.json"] {
            let Some(listeners) = scenario.answer(file) else {
                continue;
            };
            walk(&json(listeners), &mut |map| {
                if let Some(format) = map.get("jsonFormat") {
                    Format::json(format, &environment, false).unwrap();
                    formats += 1;
                }
                if let Some(text) = map
                    .get("textFormatSource")
                    .and_then(|source| source["inlineString"].as_str())
                {
                    Format::parse(text, &environment, false).unwrap();
                    formats += 1;
                }
                if map.get("@type").is_some_and(|kind| {
                    kind.as_str()
                        .is_some_and(|kind| kind.ends_with("ExpressionFilter"))
                }) {
                    Expression::parse(map["expression"].as_str().unwrap()).unwrap();
                    expressions += 1;
                }
                if map.get("@type").is_some_and(|kind| {
                    kind.as_str()
                        .is_some_and(|kind| kind.ends_with("stats.PluginConfig"))
                }) {
                    let entries: Vec<MetricConfig> = map
                        .get("metrics")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .map(metric)
                        .collect();
                    let (_, problems) = Plan::parse(&entries);
                    assert!(problems.is_empty(), "{problems:?}");
                    plans += 1;
                }
            });
        }
    }
    assert!(
        formats > 10 && expressions > 0 && plans > 10,
        "{formats} {expressions} {plans}"
    );
}

fn metric(value: &Value) -> MetricConfig {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let dimensions = value["dimensions"].as_object().into_iter().flatten();
    MetricConfig {
        name: text(&value["name"]),
        drop: value["drop"].as_bool().unwrap_or(false),
        tags_to_remove: value["tagsToRemove"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect(),
        dimensions: dimensions
            .map(|(tag, expression)| (tag.clone(), text(expression)))
            .collect(),
    }
}
