//! The operators: what each reads of a record.
//!
//! Operators without arguments are a table of name and function; the others are variants with
//! parsed arguments.

use std::borrow::Cow;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::field::{Field, cut, without_spaces};
use crate::Error;
use crate::cel::Expression;
use crate::environment::Environment;
use crate::needs::Needs;
use crate::record::Record;
use crate::time_format::TimeFormat;

mod address;
mod duration;
mod grpc;
mod plain;

use address::host_or_network;
use duration::{Point, Unit};
use grpc::GrpcStatusStyle;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Literal(String),
    Operator {
        operator: Operator,
        longest: Option<usize>,
    },
}

/// Where a header operator looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Request,
    Response,
    Trailer,
}

/// Whose metadata `%METADATA()%` reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Owner {
    Dynamic,
    Cluster,
    Route,
    UpstreamHost,
    Listener,
    Chain,
    VirtualHost,
}

/// A parsed operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operator {
    Plain(plain::Plain),
    /// Known when the format was parsed: host name, environment.
    Fixed(Option<String>),
    Header {
        from: Source,
        name: String,
        otherwise: Option<String>,
        without_query: bool,
    },
    QueryParameter(String),
    QueryParameters {
        decoded: bool,
    },
    Path {
        original: Original,
        query: bool,
    },
    Time(Moment, TimeFormat),
    /// An address without its port, as a network where a prefix length is given.
    Host {
        of: plain::End,
        prefix: Option<u8>,
    },
    ServerName {
        sni: Preference,
        host: HostSource,
    },
    Details {
        keep_spaces: bool,
    },
    /// The first of these that is neither absent nor empty.
    Coalesce(Vec<Part>),
    /// Nothing in this proxy can ever set it.
    Never,
    Duration {
        from: Point,
        to: Point,
        unit: Unit,
    },
    GrpcStatus(GrpcStatusStyle),
    Metadata {
        owner: Owner,
        filter: String,
        path: Vec<String>,
    },
    FilterState {
        name: String,
        field: Option<String>,
    },
    /// `typed`: a number or a truth keeps its type in JSON.
    Cel {
        expression: Expression,
        typed: bool,
    },
}

/// A moment that a time operator prints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    Start,
    Emit,
    DownstreamCertificateStart,
    DownstreamCertificateEnd,
    UpstreamCertificateStart,
    UpstreamCertificateEnd,
}

impl Moment {
    /// The operator's moment, and whether it is written in local time.
    fn find(name: &str) -> Option<(Self, bool)> {
        Some(match name {
            "START_TIME" => (Self::Start, false),
            "START_TIME_LOCAL" => (Self::Start, true),
            "EMIT_TIME" => (Self::Emit, false),
            "EMIT_TIME_LOCAL" => (Self::Emit, true),
            "DOWNSTREAM_PEER_CERT_V_START" => (Self::DownstreamCertificateStart, false),
            "DOWNSTREAM_PEER_CERT_V_END" => (Self::DownstreamCertificateEnd, false),
            "UPSTREAM_PEER_CERT_V_START" => (Self::UpstreamCertificateStart, false),
            "UPSTREAM_PEER_CERT_V_END" => (Self::UpstreamCertificateEnd, false),
            _ => return None,
        })
    }

    fn in_format(
        self,
        text: &str,
        is_local: bool,
        environment: &Environment,
    ) -> Result<Operator, Error> {
        let format = match (text, is_local) {
            ("", false) => TimeFormat::parse("%Y-%m-%dT%H:%M:%E3SZ"),
            (text, false) => TimeFormat::parse(text),
            ("", true) => TimeFormat::parse_local("%Y-%m-%dT%H:%M:%E3S%z", environment),
            (text, true) => TimeFormat::parse_local(text, environment),
        };
        Ok(Operator::Time(self, format?))
    }

    fn of(self, record: &Record) -> Option<SystemTime> {
        let downstream = || record.downstream_tls.as_deref();
        let upstream = || record.upstream_tls.as_deref();
        match self {
            Self::Start => record.start,
            Self::Emit => emitted(record),
            Self::DownstreamCertificateStart => downstream()?.peer_valid_from,
            Self::DownstreamCertificateEnd => downstream()?.peer_valid_until,
            Self::UpstreamCertificateStart => upstream()?.peer_valid_from,
            Self::UpstreamCertificateEnd => upstream()?.peer_valid_until,
        }
    }
}

/// Where `%REQUESTED_SERVER_NAME()%` looks first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Preference {
    SniOnly,
    SniFirst,
    HostFirst,
}

/// Which host `%REQUESTED_SERVER_NAME()%` falls back to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum HostSource {
    Original,
    Current,
    OriginalOrCurrent,
}

/// Which path `%PATH()%` prints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Original {
    OrRewritten,
    Only,
    Rewritten,
}

impl Operator {
    pub(super) fn parse(
        name: &str,
        arguments: Option<&str>,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let need = |what: &str| match arguments.filter(|text| !text.is_empty()) {
            Some(text) => Ok(text),
            None => Err(Error::Format(format!(
                "`%{name}%` needs {what} in parentheses"
            ))),
        };
        if let Some((moment, is_local)) = Moment::find(name) {
            return moment.in_format(arguments.unwrap_or_default(), is_local, environment);
        }
        let metadata = |owner| {
            let mut keys = need("a namespace")?.split(':').map(str::to_string);
            let filter = keys.next().unwrap_or_default();
            Ok(Self::Metadata {
                owner,
                filter,
                path: keys.collect(),
            })
        };
        match name {
            "REQ" | "REQUEST_HEADER" => header(Source::Request, need("a header")?, false),
            "REQ_WITHOUT_QUERY" => header(Source::Request, need("a header")?, true),
            "RESP" | "RESPONSE_HEADER" => header(Source::Response, need("a header")?, false),
            "TRAILER" | "RESPONSE_TRAILER" => header(Source::Trailer, need("a header")?, false),
            "QUERY_PARAM" => Ok(Self::QueryParameter(need("a name")?.to_string())),
            "QUERY_PARAMS" => query_parameters(arguments.unwrap_or_default()),
            "PATH" => path(arguments.unwrap_or_default()),
            "COMMON_DURATION" => common_duration(need("START:END:PRECISION")?),
            "GRPC_STATUS" => {
                GrpcStatusStyle::parse(arguments.unwrap_or_default()).map(Self::GrpcStatus)
            }
            "REQUESTED_SERVER_NAME" => server_name(arguments.unwrap_or_default()),
            "RESPONSE_CODE_DETAILS" => Ok(Self::Details {
                keep_spaces: arguments == Some("ALLOW_WHITESPACES"),
            }),
            "COALESCE" => coalesce(need("a JSON object")?, environment),
            "DYNAMIC_METADATA" => metadata(Owner::Dynamic),
            "CLUSTER_METADATA" => metadata(Owner::Cluster),
            "UPSTREAM_METADATA" => metadata(Owner::UpstreamHost),
            "METADATA" => typed_metadata(need("TYPE:NAMESPACE:KEY")?),
            "FILTER_STATE" => filter_state(need("a name")?),
            // Of the router's own log, which there is none of.
            "UPSTREAM_FILTER_STATE" => filter_state(need("a name")?).map(|_| Self::Never),
            "CEL" | "TYPED_CEL" => Ok(Self::Cel {
                expression: Expression::parse(need("an expression")?)?,
                typed: name == "TYPED_CEL",
            }),
            // A variable that is not set prints a dash in JSON, too.
            "ENVIRONMENT" => Ok(Self::Fixed(Some(
                environment
                    .variables
                    .get(need("a variable")?)
                    .map_or("-", String::as_str)
                    .to_string(),
            ))),
            "HOSTNAME" => Ok(Self::Fixed(
                Some(environment.hostname.clone()).filter(|name| !name.is_empty()),
            )),
            _ if plain::End::find(name).is_some() => without_port(name, arguments),
            _ => match (plain::find(name), arguments) {
                (Some(read), None | Some("")) => Ok(Self::Plain(read)),
                (Some(_), Some(_)) => Err(Error::Format(format!("`%{name}%` takes no arguments"))),
                (None, _) => Err(Error::Format(format!("unknown operator `%{name}%`"))),
            },
        }
    }

    pub(super) fn field<'a>(&'a self, record: &'a Record) -> Field<'a> {
        match self {
            Self::Plain(plain) => plain.read(record),
            Self::Fixed(text) => Field::text(text.as_deref()),
            Self::Header {
                from,
                name,
                otherwise,
                without_query,
            } => {
                // Of several values the first, as in Envoy.
                let read = |name: &str| match from {
                    Source::Request => record.first_request_header(name),
                    Source::Response => record.first_response_header(name),
                    Source::Trailer => record.first_trailer(name),
                };
                let found = read(name).or_else(|| read(otherwise.as_deref()?));
                Field::text(if *without_query {
                    found.map(before_query)
                } else {
                    found
                })
            }
            Self::QueryParameter(name) => Field::text(query_parameter(record, name)),
            Self::Path { original, query } => {
                Field::text(requested_path(record, *original, *query))
            }
            Self::QueryParameters { decoded } => {
                Field::text(all_query_parameters(record, *decoded))
            }
            Self::Time(moment, format) => {
                Field::text(moment.of(record).and_then(|time| format.format(time)))
            }
            Self::Host { of, prefix } => Field::text(
                of.address(record)
                    .and_then(|address| host_or_network(address, *prefix)),
            ),
            Self::ServerName { sni, host } => Field::text(requested_name(record, *sni, *host)),
            Self::Details { keep_spaces } => {
                let details = record.response_code_details.as_deref();
                Field::text(details.map(|details| match *keep_spaces {
                    true => Cow::Borrowed(details),
                    false => without_spaces(details),
                }))
            }
            Self::Coalesce(parts) => first_of(parts, record),
            Self::Never => Field::Absent,
            Self::Duration { from, to, unit } => {
                let duration = Point::between(*from, *to, record);
                duration.map_or(Field::Absent, |duration| {
                    Field::Number(unit.count(duration))
                })
            }
            Self::GrpcStatus(style) => style.field(record.grpc_status),
            Self::Metadata {
                owner,
                filter,
                path,
            } => Field::json(owner.read(record, filter, path)),
            Self::FilterState { name, field } => {
                Field::json(filter_state_value(record, name, field.as_deref()))
            }
            Self::Cel { expression, typed } => evaluated(expression, *typed, record),
        }
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::Header {
                from,
                name,
                otherwise,
                ..
            } => {
                for name in std::iter::once(name).chain(otherwise) {
                    match from {
                        Source::Request => needs.add_request(Some(name)),
                        Source::Response => needs.add_response(Some(name)),
                        Source::Trailer => needs.add_trailer(Some(name)),
                    }
                }
            }
            Self::Metadata {
                owner: Owner::Dynamic,
                ..
            } => {}
            Self::Metadata { .. } => needs.metadata = true,
            Self::Cel { expression, .. } => expression.add_needs(needs),
            Self::Coalesce(parts) => add_needs(parts, needs),
            Self::ServerName { sni, .. } => {
                if *sni != Preference::SniOnly {
                    needs.add_request(Some("x-envoy-original-host"));
                }
            }
            Self::Plain(_)
            | Self::Fixed(_)
            | Self::QueryParameter(_)
            | Self::QueryParameters { .. }
            | Self::Path { .. }
            | Self::Time(..)
            | Self::Host { .. }
            | Self::Details { .. }
            | Self::Never
            | Self::Duration { .. }
            | Self::GrpcStatus(_)
            | Self::FilterState { .. } => {}
        }
    }
}

/// What the operators among `parts` read.
pub(super) fn add_needs(parts: &[Part], needs: &mut Needs) {
    for part in parts {
        if let Part::Operator { operator, .. } = part {
            operator.add_needs(needs);
        }
    }
}

fn common_duration(arguments: &str) -> Result<Operator, Error> {
    let (from, to, unit) = duration::parse(arguments)?;
    Ok(Operator::Duration { from, to, unit })
}

fn header(from: Source, arguments: &str, without_query: bool) -> Result<Operator, Error> {
    let mut names = arguments
        .split('?')
        .map(|name| name.trim().to_ascii_lowercase());
    match (
        names.next().filter(|name| !name.is_empty()),
        names.next(),
        names.next(),
    ) {
        (Some(name), otherwise, None) => Ok(Operator::Header {
            from,
            name,
            otherwise,
            without_query,
        }),
        _ => Err(Error::Format(format!(
            "header operator: `{arguments}` is not NAME or NAME?OTHER"
        ))),
    }
}

fn path(arguments: &str) -> Result<Operator, Error> {
    let (query, original) = arguments.split_once(':').unwrap_or((arguments, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => {
            return Err(Error::Format(format!(
                "`%PATH%`: `{query}` is not WQ or NQ"
            )));
        }
    };
    let original = match original {
        "" | "ORIG_OR_PATH" => Original::OrRewritten,
        "ORIG" => Original::Only,
        "PATH" => Original::Rewritten,
        _ => {
            return Err(Error::Format(format!(
                "`%PATH%`: `{original}` is not ORIG, PATH or ORIG_OR_PATH"
            )));
        }
    };
    Ok(Operator::Path { original, query })
}

fn requested_path(record: &Record, original: Original, query: bool) -> Option<Cow<'_, str>> {
    let first = || record.request_header("x-envoy-original-path");
    let sent = || record.request_header(":path");
    let path = match original {
        Original::OrRewritten => first().or_else(sent),
        Original::Only => first(),
        Original::Rewritten => sent(),
    }?;
    Some(if query { path } else { before_query(path) })
}

fn before_query(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.find('?') {
        None => text,
        Some(end) => match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or(text)),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        },
    }
}

fn query_parameter<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let pairs = record.path.as_ref()?.query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn typed_metadata(arguments: &str) -> Result<Operator, Error> {
    let mut keys = arguments.split(':');
    let owner = match keys.next().unwrap_or_default() {
        "DYNAMIC" => Owner::Dynamic,
        "CLUSTER" => Owner::Cluster,
        "ROUTE" => Owner::Route,
        "UPSTREAM_HOST" => Owner::UpstreamHost,
        "LISTENER" => Owner::Listener,
        "LISTENER_FILTER_CHAIN" => Owner::Chain,
        "VIRTUAL_HOST" => Owner::VirtualHost,
        other => {
            return Err(Error::Format(format!(
                "`%METADATA%`: type `{other}` is not supported"
            )));
        }
    };
    let Some(filter) = keys.next() else {
        return Err(Error::Format(format!(
            "`%METADATA%`: `{arguments}` has no namespace"
        )));
    };
    Ok(Operator::Metadata {
        owner,
        filter: filter.to_string(),
        path: keys.map(str::to_string).collect(),
    })
}

impl Owner {
    fn read<'a>(self, record: &'a Record, filter: &str, path: &[String]) -> Option<&'a Value> {
        let map = match self {
            Self::Dynamic => record.dynamic_metadata.as_deref(),
            Self::Cluster => record.cluster_metadata.as_deref(),
            Self::Route => record.route_metadata.as_deref(),
            Self::UpstreamHost => record.host_metadata.as_deref(),
            Self::Listener => record.listener_metadata.as_deref(),
            Self::Chain => record.chain_metadata.as_deref(),
            Self::VirtualHost => record.virtual_host_metadata.as_deref(),
        };
        metadata(map, filter, path)
    }
}

/// The value under `filter` and then along `path`.
pub(crate) fn metadata<'a>(
    map: Option<&'a Map<String, Value>>,
    filter: &str,
    path: &[String],
) -> Option<&'a Value> {
    path.iter()
        .try_fold(map?.get(filter)?, |value, key| value.get(key.as_str()))
}

fn filter_state_value<'a>(
    record: &'a Record,
    name: &str,
    field: Option<&str>,
) -> Option<&'a Value> {
    let object = record.filter_state.as_ref()?.get(name)?;
    match field {
        Some(field) => object.get(field),
        None => Some(object),
    }
}

/// `NAME`, `NAME:PLAIN`, `NAME:TYPED`, `NAME:FIELD:field`.
fn filter_state(arguments: &str) -> Result<Operator, Error> {
    let mut parts = arguments.split(':').map(str::to_string);
    let name = parts.next().unwrap_or_default();
    match (parts.next().as_deref(), parts.next(), parts.next()) {
        (None | Some("PLAIN" | "TYPED"), None, None) => {
            Ok(Operator::FilterState { name, field: None })
        }
        (Some("FIELD"), Some(field), None) => Ok(Operator::FilterState {
            name,
            field: Some(field),
        }),
        _ => Err(Error::Format(format!(
            "`%FILTER_STATE%`: `{arguments}` is not NAME[:PLAIN|TYPED|FIELD:name]"
        ))),
    }
}

/// `%…_ADDRESS_WITHOUT_PORT(PREFIX_LENGTH)%`.
fn without_port(name: &str, arguments: Option<&str>) -> Result<Operator, Error> {
    let bad = |text: &str| {
        Error::Format(format!(
            "`%{name}%`: `{text}` is not a prefix length from 0 to 128"
        ))
    };
    let prefix = match arguments.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse::<u8>()
                .ok()
                .filter(|length| *length <= 128)
                .ok_or_else(|| bad(text))?,
        ),
    };
    let of = plain::End::find(name)
        .ok_or_else(|| Error::Format(format!("unknown operator `%{name}%`")))?;
    Ok(Operator::Host { of, prefix })
}

fn query_parameters(style: &str) -> Result<Operator, Error> {
    match style {
        "" | "ORIG" => Ok(Operator::QueryParameters { decoded: false }),
        "DECODED" => Ok(Operator::QueryParameters { decoded: true }),
        _ => Err(Error::Format(format!(
            "`%QUERY_PARAMS%`: `{style}` is not ORIG or DECODED"
        ))),
    }
}

fn all_query_parameters(record: &Record, decoded: bool) -> Option<Cow<'_, str>> {
    let query = record.path.as_ref()?.query()?;
    Some(match decoded {
        true => Cow::Owned(crate::stats::percent_decode(query)),
        false => Cow::Borrowed(query),
    })
}

/// `%REQUESTED_SERVER_NAME(PREFERENCE:HOST)%`.
fn server_name(arguments: &str) -> Result<Operator, Error> {
    let (sni, host) = arguments.split_once(':').unwrap_or((arguments, ""));
    let sni = match sni {
        "" | "SNI_ONLY" => Preference::SniOnly,
        "SNI_FIRST" => Preference::SniFirst,
        "HOST_FIRST" => Preference::HostFirst,
        _ => {
            return Err(Error::Format(format!(
                "`%REQUESTED_SERVER_NAME%`: `{sni}` is not SNI_ONLY, SNI_FIRST or HOST_FIRST"
            )));
        }
    };
    let host = match host {
        "" | "ORIG_OR_HOST" => HostSource::OriginalOrCurrent,
        "ORIG" => HostSource::Original,
        "HOST" => HostSource::Current,
        _ => {
            return Err(Error::Format(format!(
                "`%REQUESTED_SERVER_NAME%`: `{host}` is not ORIG, HOST or ORIG_OR_HOST"
            )));
        }
    };
    Ok(Operator::ServerName { sni, host })
}

fn requested_name(record: &Record, sni: Preference, host: HostSource) -> Option<Cow<'_, str>> {
    let by_sni = || record.requested_server_name.as_deref().map(Cow::Borrowed);
    let original = || record.request_header("x-envoy-original-host");
    let current = || record.request_header(":authority");
    let by_host = || match host {
        HostSource::Original => original(),
        HostSource::Current => current(),
        HostSource::OriginalOrCurrent => original().or_else(current),
    };
    match sni {
        Preference::SniOnly => by_sni(),
        Preference::SniFirst => by_sni().or_else(by_host),
        Preference::HostFirst => by_host().or_else(by_sni),
    }
}

/// `{"operators": ["NAME", {"command": "NAME", "param": "…", "max_length": N}]}`.
fn coalesce(json: &str, environment: &Environment) -> Result<Operator, Error> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Choice {
        operators: Vec<Command>,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Command {
        Name(String),
        Full {
            command: String,
            param: Option<String>,
            max_length: Option<usize>,
        },
    }
    let wrong = |why: String| Error::Format(format!("`%COALESCE%`: {why}"));
    let Choice { operators } =
        serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
    if operators.is_empty() {
        return Err(wrong("`operators` is empty".to_string()));
    }
    let part = |command: Command| {
        let (name, param, longest) = match command {
            Command::Name(name) => (name, None, None),
            Command::Full {
                command,
                param,
                max_length,
            } => (command, param, max_length),
        };
        // One level is enough for every choice, and keeps formats from nesting without end.
        if name == "COALESCE" {
            return Err(wrong("it cannot hold itself".to_string()));
        }
        Ok(Part::Operator {
            operator: Operator::parse(&name, param.as_deref(), environment)?,
            longest,
        })
    };
    let parts = operators.into_iter().map(part);
    Ok(Operator::Coalesce(parts.collect::<Result<_, _>>()?))
}

fn first_of<'a>(parts: &'a [Part], record: &'a Record) -> Field<'a> {
    let fields = parts.iter().filter_map(|part| match part {
        Part::Operator { operator, longest } => Some((operator.field(record), *longest)),
        Part::Literal(_) => None,
    });
    for (field, longest) in fields {
        match field {
            Field::Absent => {}
            Field::Text(text) if text.is_empty() => {}
            Field::Text(text) if longest.is_some() => {
                return Field::Text(Cow::Owned(cut(&text, longest).to_string()));
            }
            found => return found,
        }
    }
    Field::Absent
}

/// When the record ended: the log is written then.
fn emitted(record: &Record) -> Option<SystemTime> {
    record
        .start?
        .checked_add(record.timings.total.unwrap_or_default())
}

fn evaluated<'a>(expression: &Expression, typed: bool, record: &Record) -> Field<'a> {
    let Ok(value) = expression.evaluate(record) else {
        return Field::Absent;
    };
    match value.to_json() {
        json if typed => Field::json(Some(&json)),
        Value::Null => Field::Absent,
        _ => Field::Text(Cow::Owned(value.to_text())),
    }
}
