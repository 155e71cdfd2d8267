//! Small pieces of Envoy configuration that several generators need.

use std::time::Duration;

use ipnet::IpNet;
use mesh_model::{ObjectRef, matching::Millionths, object::Meta};
use prost::{Message, Name};
use serde_json::Value as Json;
use wire_envoy::pb::{self, Any, BoolValue, Struct, UInt32Value, core, google, matcher};

use crate::packed;

pub fn duration(value: Duration) -> pb::Duration {
    pb::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}

pub fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub fn long(value: u64) -> google::protobuf::UInt64Value {
    google::protobuf::UInt64Value { value }
}

pub fn boolean(value: bool) -> BoolValue {
    BoolValue { value }
}

pub fn percent(value: f64) -> pb::kind::Percent {
    pb::kind::Percent { value }
}

/// A share in millionths.
pub fn millionths(share: Millionths) -> pb::kind::FractionalPercent {
    pb::kind::FractionalPercent {
        numerator: share.value(),
        denominator: pb::kind::fractional_percent::DenominatorType::Million.into(),
    }
}

/// 100 in a hundred.
pub fn always() -> pb::kind::FractionalPercent {
    pb::kind::FractionalPercent {
        numerator: 100,
        denominator: pb::kind::fractional_percent::DenominatorType::Hundred.into(),
    }
}

pub fn structure(json: &Json) -> Struct {
    wire_envoy::structs::from_json(json).unwrap_or_default()
}

/// Filter metadata under one or several names.
pub fn metadata<const N: usize>(filters: [(&str, Json); N]) -> core::Metadata {
    core::Metadata {
        filter_metadata: filters
            .into_iter()
            .map(|(name, json)| (name.to_owned(), structure(&json)))
            .collect(),
        ..Default::default()
    }
}

/// A message that stock Envoy does not know by type: name and content as a Struct.
pub fn typed_struct(type_name: &str, value: &Json) -> Any {
    packed(&pb::typed_struct::Udpa {
        type_url: format!("type.googleapis.com/{type_name}"),
        value: Some(structure(value)),
    })
}

pub fn typed_extension<M: Message + Name>(name: &str, message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(packed(message)),
    }
}

pub fn transport_socket<M: Message + Name>(name: &str, message: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(packed(
            message,
        ))),
    }
}

/// Aggregated discovery; no limit for the first answer.
pub fn ads() -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: Some(pb::Duration::default()),
        ..ads_with_default_timeout()
    }
}

pub fn ads_with_default_timeout() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

pub fn socket_address(address: &str, port: u16) -> core::Address {
    let port = Some(core::socket_address::PortSpecifier::PortValue(port.into()));
    let socket = core::SocketAddress {
        address: address.to_owned(),
        port_specifier: port,
        ..Default::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

pub fn pipe(path: &str) -> core::Address {
    let pipe = core::Pipe {
        path: path.to_owned(),
        ..Default::default()
    };
    core::Address {
        address: Some(core::address::Address::Pipe(pipe)),
    }
}

pub fn range(net: &IpNet) -> core::CidrRange {
    core::CidrRange {
        address_prefix: net.addr().to_string(),
        prefix_len: Some(number(net.prefix_len().into())),
    }
}

pub fn exact(text: impl Into<String>) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::Exact(text.into()))
}

pub fn prefix(text: impl Into<String>) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::Prefix(text.into()))
}

pub fn suffix(text: impl Into<String>) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::Suffix(text.into()))
}

pub fn pattern(expression: impl Into<String>) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::SafeRegex(regex(
        expression,
    )))
}

pub fn regex(expression: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: expression.into(),
        ..Default::default()
    }
}

fn string_matcher(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    }
}

/// Istio's `config` value of a user's object: `/apis/<group>/<version>/namespaces/<namespace>/<kind>/<name>`.
pub fn config_path(meta: &Meta) -> String {
    let ObjectRef {
        kind,
        namespace,
        name,
    } = &meta.object;
    format!(
        "/apis/{}/namespaces/{namespace}/{}/{name}",
        meta.api_version,
        kebab(kind)
    )
}

/// `VirtualService` → `virtual-service`.
fn kebab(kind: &str) -> String {
    let mut out = String::with_capacity(kind.len() + 3);
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
