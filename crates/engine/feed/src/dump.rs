//! `/config_dump`: what the control plane sent, in the shape of Envoy's admin page. Private keys
//! are redacted.
//!
//! Made from the resources as they came, so it shows names and fields that tools look for.
//! Descriptors are loaded for the one call.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use identity::WorkloadIdentity;
use serde_json::{Map, Value, json};
use wire_envoy::{Descriptors, JsonError, Names, any, pb::bootstrap::Bootstrap, type_url};

use crate::status::{Refusal, ResourceState, Status, TypeState};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// One section: type, its name, the list of dynamic resources and the field that holds one.
struct Section {
    type_url: &'static str,
    name: &'static str,
    list: &'static str,
    field: &'static str,
}

const SECTIONS: [Section; 4] = [
    Section {
        type_url: type_url::CLUSTER,
        name: "ClustersConfigDump",
        list: "dynamic_active_clusters",
        field: "cluster",
    },
    Section {
        type_url: type_url::LISTENER,
        name: "ListenersConfigDump",
        list: "dynamic_listeners",
        field: "listener",
    },
    Section {
        type_url: type_url::ROUTE,
        name: "RoutesConfigDump",
        list: "dynamic_route_configs",
        field: "route_config",
    },
    Section {
        type_url: type_url::ENDPOINT,
        name: "EndpointsConfigDump",
        list: "dynamic_endpoint_configs",
        field: "endpoint_config",
    },
];

impl Status {
    /// The whole dump; endpoints only where asked for (`?include_eds`). Takes some milliseconds
    /// and, while it runs, some memory.
    pub fn config_dump(
        &self,
        bootstrap: &Bootstrap,
        started: SystemTime,
        identity: Option<&WorkloadIdentity>,
        include_endpoints: bool,
    ) -> Result<Value, JsonError> {
        let descriptors = Descriptors::load()?;
        let types = self.types();
        let mut whole = descriptors.to_json(bootstrap, Names::Snake)?;
        if let Some(node) = whole.get_mut("node") {
            name_the_program(node);
        }
        let mut configs = vec![json!({
            "@type": format!("{ADMIN}BootstrapConfigDump"),
            "bootstrap": whole,
            "last_updated": timestamp(started),
        })];
        let mut inline_routes = Vec::new();
        for section in &SECTIONS {
            if section.type_url == type_url::ENDPOINT && !include_endpoints {
                continue;
            }
            let state = types.get(section.type_url).cloned().unwrap_or_default();
            let mut dump = section.dump(&state, &descriptors)?;
            let fixed = format!("/static_resources/{}s", section.field);
            let fixed = whole.pointer(&fixed).and_then(Value::as_array);
            if let (Some(fixed), Some(dump)) = (fixed, dump.as_object_mut()) {
                let entries = fixed
                    .iter()
                    .map(|body| static_entry(section, body, started));
                dump.insert(format!("static_{}s", section.field), entries.collect());
            }
            match section.type_url {
                type_url::LISTENER => inline_routes = inline_routes_of(&dump, started),
                type_url::ROUTE if !inline_routes.is_empty() => {
                    if let Some(dump) = dump.as_object_mut() {
                        let routes = std::mem::take(&mut inline_routes).into();
                        dump.insert("static_route_configs".into(), routes);
                    }
                }
                _ => {}
            }
            configs.push(dump);
            if section.type_url == type_url::LISTENER {
                configs.push(json!({"@type": format!("{ADMIN}ScopedRoutesConfigDump")}));
            }
        }
        let secrets = types.get(type_url::SECRET).cloned().unwrap_or_default();
        configs.push(secret_dump(&secrets, identity));
        configs.push(json!({"@type": format!("{ADMIN}EcdsConfigDump")}));
        Ok(json!({ "configs": configs }))
    }
}

/// Who answers, where the bootstrap does not say.
fn name_the_program(node: &mut Value) {
    let Some(node) = node.as_object_mut() else {
        return;
    };
    let mut numbers = env!("CARGO_PKG_VERSION")
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut number = || numbers.next().unwrap_or(0);
    let version = json!({"major_number": number(), "minor_number": number(), "patch": number()});
    node.entry("user_agent_name")
        .or_insert_with(|| json!("tanbark-proxy"));
    node.entry("user_agent_build_version")
        .or_insert_with(|| json!({ "version": version }));
}

/// Route tables that stand in listeners, as Envoy lists them.
fn inline_routes_of(listeners: &Value, started: SystemTime) -> Vec<Value> {
    let items = |of: &Value, field: &str| -> Vec<Value> {
        let list = of.get(field).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let fixed = items(listeners, "static_listeners");
    let dynamic = items(listeners, "dynamic_listeners");
    let dynamic = dynamic
        .iter()
        .filter_map(|listener| listener.get("active_state"));
    let mut found = Vec::new();
    for entry in fixed.iter().chain(dynamic) {
        let Some(listener) = entry.get("listener") else {
            continue;
        };
        let default = listener.get("default_filter_chain").cloned();
        for chain in items(listener, "filter_chains").into_iter().chain(default) {
            for filter in items(&chain, "filters") {
                let table = filter.pointer("/typed_config/route_config");
                let Some(mut table) = table.and_then(Value::as_object).cloned() else {
                    continue;
                };
                table.insert("@type".into(), json!(type_url::ROUTE));
                let updated = match entry.get("last_updated") {
                    None | Some(Value::Null) => json!(timestamp(started)),
                    Some(updated) => updated.clone(),
                };
                found.push(json!({"route_config": table, "last_updated": updated}));
            }
        }
    }
    found
}

/// A resource of the bootstrap.
fn static_entry(section: &Section, body: &Value, started: SystemTime) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("@type".into(), json!(section.type_url));
    }
    json!({ section.field: body, "last_updated": timestamp(started) })
}

impl Section {
    fn dump(&self, state: &TypeState, descriptors: &Descriptors) -> Result<Value, JsonError> {
        let mut resources = Vec::with_capacity(state.resources.len());
        for (name, resource) in &state.resources {
            let body = descriptors.any_to_json(&resource.body, Names::Snake)?;
            let mut entry = entry(resource);
            entry.insert(self.field.into(), body);
            let mut dumped = match self.field {
                "listener" => Map::from_iter([
                    ("name".to_owned(), json!(name)),
                    ("active_state".to_owned(), Value::Object(entry)),
                ]),
                _ => entry,
            };
            if let Some(refusal) = state.refusals.get(name) {
                dumped.insert("error_state".into(), error_state(refusal));
            }
            resources.push(Value::Object(dumped));
        }
        let whole = state.refusals.iter();
        let whole = whole.filter(|(name, _)| !state.resources.contains_key(*name));
        resources.extend(
            whole.map(|(name, why)| json!({ "name": name, "error_state": error_state(why) })),
        );
        let mut section = Map::new();
        section.insert("@type".into(), json!(format!("{ADMIN}{}", self.name)));
        if matches!(self.field, "cluster" | "listener") {
            section.insert("version_info".into(), json!(state.version));
        }
        section.insert(self.list.into(), json!(resources));
        Ok(Value::Object(section))
    }
}

/// Envoy's `UpdateFailureState`.
fn error_state(refusal: &Refusal) -> Value {
    json!({ "details": refusal.why, "last_update_attempt": timestamp(refusal.since) })
}

/// Names and certificates; keys never.
fn secret_dump(state: &TypeState, identity: Option<&WorkloadIdentity>) -> Value {
    let mut secrets: Vec<Value> = Vec::new();
    if let Some(identity) = identity {
        let chain = STANDARD.encode(identity.certificate().chain().to_pem());
        let roots = STANDARD.encode(identity.bundle().to_pem());
        let updated = timestamp(identity.certificate().leaf().not_before_time());
        secrets.push(json!({"name": "default", "last_updated": updated, "secret": {
            "@type": type_url::SECRET, "name": "default",
            "tls_certificate": {"certificate_chain": {"inline_bytes": chain}, "private_key": {"inline_bytes": redacted()}},
        }}));
        secrets.push(json!({"name": "ROOTCA", "last_updated": updated, "secret": {
            "@type": type_url::SECRET, "name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_bytes": roots}},
        }}));
    }
    for (name, resource) in &state.resources {
        let mut entry = entry(resource);
        entry.insert("name".into(), json!(name));
        entry.insert("secret".into(), redacted_secret(name, resource));
        secrets.push(Value::Object(entry));
    }
    json!({"@type": format!("{ADMIN}SecretsConfigDump"), "dynamic_active_secrets": secrets})
}

fn redacted_secret(name: &str, resource: &ResourceState) -> Value {
    use wire_envoy::pb::{
        core::data_source::Specifier,
        tls::{Secret, secret::Type},
    };
    let bytes =
        |source: Option<wire_envoy::pb::core::DataSource>| match source.and_then(|s| s.specifier) {
            Some(Specifier::InlineBytes(bytes)) => STANDARD.encode(bytes),
            Some(Specifier::InlineString(text)) => STANDARD.encode(text),
            _ => String::new(),
        };
    let mut secret = Map::new();
    secret.insert("@type".into(), json!(type_url::SECRET));
    secret.insert("name".into(), json!(name));
    match any::unpack::<Secret>(&resource.body)
        .ok()
        .and_then(|s| s.r#type)
    {
        Some(Type::TlsCertificate(certificate)) => {
            let certificate = json!({
                "certificate_chain": {"inline_bytes": bytes(certificate.certificate_chain)},
                "private_key": {"inline_bytes": redacted()},
            });
            secret.insert("tls_certificate".into(), certificate);
        }
        Some(Type::ValidationContext(context)) => {
            let context = json!({"trusted_ca": {"inline_bytes": bytes(context.trusted_ca)}});
            secret.insert("validation_context".into(), context);
        }
        _ => {}
    }
    Value::Object(secret)
}

fn entry(resource: &ResourceState) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("version_info".into(), json!(resource.version));
    entry.insert("last_updated".into(), json!(timestamp(resource.updated)));
    entry
}

fn redacted() -> String {
    STANDARD.encode("[redacted]")
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(at: SystemTime) -> String {
    telemetry::access_log::iso_time(at)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn routes_in_listeners_are_listed_as_static() {
        let filter =
            json!({"name": "http", "typed_config": {"route_config": {"name": "inbound|80||"}}});
        let listeners = json!({"dynamic_listeners": [{"name": "virtualInbound", "active_state": {"last_updated": "then",
            "listener": {"filter_chains": [{"filters": [filter]}, {"filters": [{"typed_config": {"rds": {}}}]}]}}}]});
        assert_eq!(
            inline_routes_of(&listeners, UNIX_EPOCH),
            [
                json!({"route_config": {"name": "inbound|80||", "@type": type_url::ROUTE}, "last_updated": "then"})
            ]
        );
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let at = |seconds, millis| {
            timestamp(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 7), "2000-02-28T23:59:59.007Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_424_461, 500), "2026-11-23T09:01:01.500Z");
    }
}
