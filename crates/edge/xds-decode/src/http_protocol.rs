//! Settings of the HTTP versions, which listeners and clusters share.

use std::time::Duration;

use proxy_config::http_connection_manager::{Http2Options, UnderscoresAction};
use wire_envoy::pb::{
    self,
    core::{
        Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
        http_protocol_options::HeadersWithUnderscoresAction,
        http1_protocol_options::header_key_format::HeaderFormat,
    },
    envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
};

use crate::{
    context::Cx,
    extension,
    judgement::{enumerated, take},
    reject::{Refusal, Within},
    scalar,
};

/// Envoy's default.
const MAX_HEADERS: u32 = 100;

pub(crate) struct Common {
    pub(crate) idle: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) max_headers: u32,
    pub(crate) max_requests_per_connection: Option<u32>,
    pub(crate) underscores: UnderscoresAction,
}

pub(crate) fn common(
    cx: &mut Cx,
    value: HttpProtocolOptions,
    idle: Duration,
) -> Result<Common, Refusal> {
    take!(cx, value => HttpProtocolOptions {
        read { idle_timeout, max_connection_duration, max_stream_duration, headers_with_underscores_action, max_requests_per_connection, max_headers_count }
        ignore "connections end within the duration, without jitter" { max_connection_duration_jitter }
        ignore "the HTTP library has limits of its own" { max_response_headers_kb }
    });
    Ok(Common {
        idle: scalar::limit("idle_timeout", idle_timeout, Some(idle))?,
        max_connection_duration: scalar::limit(
            "max_connection_duration",
            max_connection_duration,
            None,
        )?,
        max_stream_duration: scalar::limit("max_stream_duration", max_stream_duration, None)?,
        max_headers: scalar::count_or(max_headers_count, MAX_HEADERS),
        max_requests_per_connection: scalar::count(max_requests_per_connection).filter(|n| *n > 0),
        underscores: match enumerated!(headers_with_underscores_action => HeadersWithUnderscoresAction, "headers_with_underscores_action")?
        {
            HeadersWithUnderscoresAction::Allow => UnderscoresAction::Allow,
            HeadersWithUnderscoresAction::RejectRequest => UnderscoresAction::Reject,
            HeadersWithUnderscoresAction::DropHeader => UnderscoresAction::Drop,
        },
    })
}

pub(crate) struct Http1 {
    pub(crate) accept_http10: bool,
    pub(crate) custom_methods: bool,
    pub(crate) preserve_header_case: bool,
}

pub(crate) fn http1(cx: &mut Cx, value: Http1ProtocolOptions) -> Result<Http1, Refusal> {
    take!(cx, value => Http1ProtocolOptions {
        read { accept_http_10, header_key_format, allow_custom_methods }
        ignore "absolute URLs are always understood" { allow_absolute_url }
        ignore "trailers are always passed on" { enable_trailers }
        ignore "an invalid message ends its connection" { override_stream_error_on_invalid_http_message }
        ignore "which parser is used decides nothing" { use_balsa_parser }
        reject "requests without a host are refused" { default_host_for_http_10 }
        reject "requests with both lengths are refused" { allow_chunked_length }
        reject "requests are sent with a path" { send_fully_qualified_url }
        reject "is not supported" { ignore_http_11_upgrade }
    });
    let preserve_header_case = match header_key_format.and_then(|f| f.header_format) {
        None => false,
        Some(HeaderFormat::StatefulFormatter(config)) => {
            preserves_case(cx, config).within("header_key_format.stateful_formatter")?
        }
        Some(HeaderFormat::ProperCaseWords(_)) => {
            return Err(Refusal::at(
                "header_key_format.proper_case_words",
                "is not supported",
            ));
        }
    };
    Ok(Http1 {
        accept_http10: accept_http_10,
        custom_methods: allow_custom_methods,
        preserve_header_case,
    })
}

fn preserves_case(cx: &mut Cx, config: pb::core::TypedExtensionConfig) -> Result<bool, Refusal> {
    let (_, extension) = extension::typed(config)?;
    let message: PreserveCaseFormatterConfig = extension.message(cx)?;
    take!(cx, message => PreserveCaseFormatterConfig {
        ignore "reason phrases are the standard ones" { forward_reason_phrase }
        ignore "headers that this proxy adds are lower case" { formatter_type_on_envoy_headers }
    });
    Ok(true)
}

pub(crate) fn http2(cx: &mut Cx, value: Http2ProtocolOptions) -> Result<Http2Options, Refusal> {
    take!(cx, value => Http2ProtocolOptions {
        read { max_concurrent_streams, initial_stream_window_size, initial_connection_window_size, allow_connect, connection_keepalive }
        ignore "the HTTP library's own table size is announced" { hpack_table_size }
        ignore "METADATA frames are skipped" { allow_metadata, max_metadata_size }
        ignore "flood protection is the HTTP library's" {
            max_outbound_frames, max_outbound_control_frames, max_consecutive_inbound_frames_with_empty_payload,
            max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent,
            stream_reset_burst, stream_reset_rate,
        }
        ignore "an invalid message ends its stream" {
            stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message,
        }
        ignore "which codec is used decides nothing" { use_oghttp2_codec, enable_huffman_encoding }
        ignore "the HTTP library has limits of its own" { max_header_field_size_kb, disallow_obs_text }
        reject "custom SETTINGS are not sent" { custom_settings_parameters }
    });
    let keepalive = connection_keepalive.unwrap_or_default();
    take!(cx, keepalive => KeepaliveSettings {
        read { interval, timeout }
        ignore "pings are sent without jitter" { interval_jitter }
        ignore "pings follow the interval only" { connection_idle_interval }
    });
    Ok(Http2Options {
        max_concurrent_streams: scalar::count(max_concurrent_streams),
        initial_stream_window_bytes: scalar::count(initial_stream_window_size),
        initial_connection_window_bytes: scalar::count(initial_connection_window_size),
        keepalive_interval: scalar::limit("connection_keepalive.interval", interval, None)?,
        keepalive_timeout: scalar::limit("connection_keepalive.timeout", timeout, None)?,
        allow_connect,
    })
}
