//! `/config_dump`: what the control plane sent, in the shape of Envoy's admin page. Private keys are redacted.
//!
//! Made from the resources as they came, so it shows names and fields that tools look for. Descriptors are loaded for the one call.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use identity::WorkloadIdentity;
use serde_json::{Map, Value, json};
use wire_envoy::{Descriptors, JsonError, Names, any, pb::core::Node, type_url};

use crate::status::{ResourceState, Status, TypeState};

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
    /// The whole dump; endpoints only where asked for (`?include_eds`). Takes some milliseconds and, while it runs, some memory.
    pub fn config_dump(
        &self,
        node: &Node,
        identity: Option<&WorkloadIdentity>,
        include_endpoints: bool,
    ) -> Result<Value, JsonError> {
        let descriptors = Descriptors::load()?;
        let types = self.types();
        let mut configs = vec![json!({
            "@type": format!("{ADMIN}BootstrapConfigDump"),
            "bootstrap": {"node": descriptors.to_json(node, Names::Snake)?},
        })];
        for section in &SECTIONS {
            if section.type_url == type_url::ENDPOINT && !include_endpoints {
                continue;
            }
            let state = types.get(section.type_url).cloned().unwrap_or_default();
            configs.push(section.dump(&state, &descriptors)?);
        }
        let secrets = types.get(type_url::SECRET).cloned().unwrap_or_default();
        configs.push(secret_dump(&secrets, identity));
        Ok(json!({ "configs": configs }))
    }
}

impl Section {
    fn dump(&self, state: &TypeState, descriptors: &Descriptors) -> Result<Value, JsonError> {
        let mut resources = Vec::with_capacity(state.resources.len());
        for (name, resource) in &state.resources {
            let body = descriptors.any_to_json(&resource.body, Names::Snake)?;
            let mut entry = entry(resource);
            entry.insert(self.field.into(), body);
            if let Some(error) = &resource.error {
                entry.insert("error_state".into(), json!({ "details": error }));
            }
            resources.push(match self.field {
                "listener" => json!({ "name": name, "active_state": entry }),
                _ => Value::Object(entry),
            });
        }
        let mut section = Map::new();
        section.insert("@type".into(), json!(format!("{ADMIN}{}", self.name)));
        if matches!(self.field, "cluster" | "listener") {
            section.insert("version_info".into(), json!(state.version));
        }
        section.insert(self.list.into(), json!(resources));
        Ok(Value::Object(section))
    }
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
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

/// The civil date of a day since 1970-01-01 (proleptic Gregorian), by 400-year eras that start in March.
fn date_of(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
