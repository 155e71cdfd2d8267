//! Where a referred resource is fetched. A proxy has one ADS stream and one secret source, so only
//! the kind is checked.

use wire_envoy::pb::{self, core::config_source::ConfigSourceSpecifier};

use crate::{context::Cx, judgement::take, reject::Refusal};

/// Accepts sources that are streams: ADS, the stream itself, or a gRPC service (`sds-grpc`). Files
/// are refused.
pub(crate) fn subscribed(
    cx: &mut Cx,
    value: Option<pb::core::ConfigSource>,
) -> Result<(), Refusal> {
    let value = value.ok_or_else(|| Refusal::new("is required"))?;
    take!(cx, value => pb::core::ConfigSource {
        read { config_source_specifier }
        ignore "warming has its own limit" { initial_fetch_timeout }
        ignore "only version 3 exists" { resource_api_version }
        reject "resource authorities are not supported" { authorities }
    });
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            use pb::core::api_config_source::ApiType;
            match ApiType::try_from(api.api_type) {
                Ok(
                    ApiType::Grpc
                    | ApiType::DeltaGrpc
                    | ApiType::AggregatedGrpc
                    | ApiType::AggregatedDeltaGrpc,
                ) => Ok(()),
                _ => Err(Refusal::at(
                    "api_config_source.api_type",
                    "only gRPC is supported",
                )),
            }
        }
        Some(ConfigSourceSpecifier::Path(_) | ConfigSourceSpecifier::PathConfigSource(_)) => Err(
            Refusal::at("path_config_source", "files are not supported as sources"),
        ),
        None => Err(Refusal::missing("config_source_specifier")),
    }
}
