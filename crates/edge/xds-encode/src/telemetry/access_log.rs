//! Access logs (reference 4.3): which providers, filtered how, in which format.
//!
//! A narrower resource that names providers replaces those of wider ones; a provider that is disabled, or a filter, holds until a narrower
//! resource says otherwise. Without any Telemetry resource about logs, MeshConfig's `accessLogFile` decides.

use std::collections::BTreeMap;

use mesh_model::{
    mesh_config::{AccessLogFile, AccessLogFormat, ProviderKind},
    object::Text,
};
use serde_json::{Value as Json, json};
use wire_envoy::pb::{
    accesslog::{
        AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter,
        access_log::ConfigType, access_log_filter::FilterSpecifier,
        extension_filter::ConfigType as FilterConfig,
    },
    core::{
        DataSource, JsonFormatOptions, SubstitutionFormatString, data_source::Specifier,
        substitution_format_string::Format,
    },
    envoy::extensions::access_loggers::{file::v3 as file, filters::cel::v3::ExpressionFilter},
};

use super::{Reports, provider};
use crate::{packed, wire};

/// Stands for MeshConfig's `accessLogFile` among provider names.
const MESH_FILE: &str = "";

const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
\"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Keys of Istio's JSON log, with their operators.
const JSON: [(&str, &str); 23] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
];
const JSON_FAILURE: (&str, &str) = (
    "upstream_transport_failure_reason",
    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
);

/// A log that is written, and for which requests.
struct Chosen {
    kind: ProviderKind,
    filter: Option<Text>,
}

impl Reports<'_> {
    /// Logs of requests and connections.
    pub fn access_logs(&self) -> Vec<AccessLog> {
        self.chosen_logs()
            .iter()
            .filter_map(|chosen| log(chosen, chosen.filter.as_deref().map(expression)))
            .collect()
    }

    /// Logs of a listener itself: connections that match none of its filter chains.
    pub fn listener_logs(&self) -> Vec<AccessLog> {
        if self.mesh.disable_listener_log {
            return Vec::new();
        }
        let no_route = || {
            filter(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
                flags: vec!["NR".to_owned()],
            }))
        };
        let both = |text: &str| {
            filter(FilterSpecifier::AndFilter(AndFilter {
                filters: vec![no_route(), expression(text)],
            }))
        };
        self.chosen_logs()
            .iter()
            .filter_map(|chosen| {
                log(
                    chosen,
                    Some(chosen.filter.as_deref().map_or_else(no_route, both)),
                )
            })
            .collect()
    }

    fn chosen_logs(&self) -> Vec<Chosen> {
        let speaking: Vec<_> = self
            .telemetries
            .iter()
            .filter(|telemetry| !telemetry.access_logging.is_empty())
            .collect();
        let mut names: Vec<Text> = self.mesh.default_providers.access_logging.to_vec();
        if names.is_empty() && self.mesh.access_log.is_some() {
            names.push(MESH_FILE.into());
        }
        let mut settings: BTreeMap<Text, (bool, Option<Text>)> = BTreeMap::new();
        for telemetry in speaking {
            let entries = || {
                telemetry
                    .access_logging
                    .iter()
                    .filter(|entry| self.side.takes(entry.mode))
            };
            let own: Vec<Text> = entries()
                .flat_map(|entry| entry.providers.iter().cloned())
                .collect();
            if !own.is_empty() {
                names = own;
            }
            for entry in entries() {
                let about: &[Text] = if entry.providers.is_empty() {
                    &names
                } else {
                    &entry.providers
                };
                for name in about {
                    // Who names a provider says all about it; who names none changes what wider resources said.
                    let inherited = settings
                        .get(name)
                        .filter(|_| entry.providers.is_empty())
                        .and_then(|(_, filter)| filter.clone());
                    settings.insert(
                        name.clone(),
                        (
                            entry.disabled == Some(true),
                            entry.filter.clone().or(inherited),
                        ),
                    );
                }
            }
        }
        names
            .iter()
            .filter_map(|name| self.chosen_log(name, settings.get(name)))
            .collect()
    }

    fn chosen_log(&self, name: &Text, setting: Option<&(bool, Option<Text>)>) -> Option<Chosen> {
        if setting.is_some_and(|(disabled, _)| *disabled) {
            return None;
        }
        let kind = match (&**name, &self.mesh.access_log) {
            (MESH_FILE, Some(file)) => of_mesh(file),
            (name, _) => provider(self.mesh, name)?,
        };
        Some(Chosen {
            kind,
            filter: setting.and_then(|(_, filter)| filter.clone()),
        })
    }
}

fn of_mesh(file: &AccessLogFile) -> ProviderKind {
    let format = file.format.clone().or_else(|| {
        file.json
            .then(|| AccessLogFormat::Json(default_json().to_string().into()))
    });
    ProviderKind::FileAccessLog {
        path: file.path.clone(),
        format,
        omit_empty_values: false,
    }
}

fn default_json() -> Json {
    let fields: serde_json::Map<String, Json> = JSON
        .iter()
        .chain([&JSON_FAILURE])
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    fields.into()
}

fn filter(specifier: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter {
        filter_specifier: Some(specifier),
    }
}

/// A CEL expression.
fn expression(text: &str) -> AccessLogFilter {
    let config = FilterConfig::TypedConfig(packed(&ExpressionFilter {
        expression: text.to_owned(),
        ..Default::default()
    }));
    let extension = ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(config),
    };
    filter(FilterSpecifier::ExtensionFilter(extension))
}

/// `None`: a kind of provider that is not supported yet (`problems` names it).
fn log(chosen: &Chosen, filter: Option<AccessLogFilter>) -> Option<AccessLog> {
    let ProviderKind::FileAccessLog {
        path,
        format,
        omit_empty_values,
    } = &chosen.kind
    else {
        return None;
    };
    let (format, json_format_options) = match format {
        None => (text(TEXT), None),
        Some(AccessLogFormat::Text(own)) => (text(own), None),
        Some(AccessLogFormat::Json(own)) => {
            let object: Json = serde_json::from_str(own).unwrap_or_else(|_| json!({}));
            (
                Format::JsonFormat(wire::structure(&object)),
                Some(JsonFormatOptions::default()),
            )
        }
    };
    let format = SubstitutionFormatString {
        format: Some(format),
        omit_empty_values: *omit_empty_values,
        json_format_options,
        ..Default::default()
    };
    let config = file::FileAccessLog {
        path: path.to_string(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(format)),
    };
    Some(AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(ConfigType::TypedConfig(packed(&config))),
    })
}

/// Text ends its line.
fn text(format: &str) -> Format {
    let line = if format.ends_with('\n') {
        format.to_owned()
    } else {
        format!("{format}\n")
    };
    Format::TextFormatSource(DataSource {
        specifier: Some(Specifier::InlineString(line)),
        ..Default::default()
    })
}
