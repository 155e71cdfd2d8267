//! The operators: what each reads of a record.
//!
//! Operators without arguments are a table of name and function; the others are variants with parsed arguments.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::time_format::{TimeFormat, iso_time};
use super::{Environment, Needs};
use crate::Error;
use crate::cel::Expression;
use crate::record::{Address, Record};

mod plain;

/// One operator's value for one record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
    Json(Value),
}

impl<'a> Field<'a> {
    fn text(text: Option<impl Into<Cow<'a, str>>>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.into()))
    }

    fn display(value: Option<impl std::fmt::Display>) -> Self {
        value.map_or(Self::Absent, |value| {
            Self::Text(Cow::Owned(value.to_string()))
        })
    }

    fn json(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Absent,
            Some(Value::String(text)) => Self::Text(Cow::Owned(text.clone())),
            Some(other) => Self::Json(other.clone()),
        }
    }

    /// Appends the text, at most `longest` characters.
    pub(super) fn write_text(self, longest: Option<usize>, out: &mut String) {
        match self {
            Self::Absent => {}
            Self::Text(text) => out.push_str(cut(&text, longest)),
            Self::Number(number) => out.push_str(cut(&number.to_string(), longest)),
            Self::Json(value) => out.push_str(cut(&value.to_string(), longest)),
        }
    }

    pub(super) fn into_json(self, longest: Option<usize>) -> Value {
        match self {
            Self::Absent => Value::Null,
            Self::Text(text) => Value::String(cut(&text, longest).to_string()),
            Self::Number(number) => number.into(),
            Self::Json(value) => value,
        }
    }
}

fn cut(text: &str, longest: Option<usize>) -> &str {
    match longest.and_then(|longest| text.char_indices().nth(longest)) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
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
    Path {
        original: Original,
        query: bool,
    },
    Start(TimeFormat),
    CertificateStart(TimeFormat),
    CertificateEnd(TimeFormat),
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
    Cel(Expression),
}

/// Which path `%PATH()%` prints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Original {
    OrRewritten,
    Only,
    Rewritten,
}

/// A moment of a request, for `%COMMON_DURATION()%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Point {
    DownstreamStart,
    DownstreamRequestEnd,
    DownstreamResponseStart,
    DownstreamResponseEnd,
    UpstreamConnectStart,
    UpstreamConnectEnd,
    UpstreamRequestStart,
    UpstreamRequestEnd,
    UpstreamResponseStart,
    UpstreamResponseEnd,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GrpcStatusStyle {
    Camel,
    Snake,
    Number,
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
        let time = |default: &str| {
            TimeFormat::parse(arguments.filter(|text| !text.is_empty()).unwrap_or(default))
        };
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
            "REQ" => header(Source::Request, need("a header")?, false),
            "REQ_WITHOUT_QUERY" => header(Source::Request, need("a header")?, true),
            "RESP" => header(Source::Response, need("a header")?, false),
            "TRAILER" => header(Source::Trailer, need("a header")?, false),
            "QUERY_PARAM" => Ok(Self::QueryParameter(need("a name")?.to_string())),
            "PATH" => path(arguments.unwrap_or_default()),
            "START_TIME" => Ok(Self::Start(time("%Y-%m-%dT%H:%M:%E3SZ")?)),
            "DOWNSTREAM_PEER_CERT_V_START" => {
                Ok(Self::CertificateStart(time("%Y-%m-%dT%H:%M:%E3SZ")?))
            }
            "DOWNSTREAM_PEER_CERT_V_END" => Ok(Self::CertificateEnd(time("%Y-%m-%dT%H:%M:%E3SZ")?)),
            "COMMON_DURATION" => common_duration(need("START:END:PRECISION")?),
            "GRPC_STATUS" => grpc_status(arguments.unwrap_or("CAMEL_STRING")),
            "DYNAMIC_METADATA" => metadata(Owner::Dynamic),
            "CLUSTER_METADATA" => metadata(Owner::Cluster),
            "UPSTREAM_METADATA" => metadata(Owner::UpstreamHost),
            "METADATA" => typed_metadata(need("TYPE:NAMESPACE:KEY")?),
            "FILTER_STATE" => filter_state(need("a name")?),
            "CEL" => Ok(Self::Cel(Expression::parse(need("an expression")?)?)),
            "ENVIRONMENT" => Ok(Self::Fixed(
                environment.variables.get(need("a variable")?).cloned(),
            )),
            "HOSTNAME" => Ok(Self::Fixed(
                Some(environment.hostname.clone()).filter(|name| !name.is_empty()),
            )),
            _ => match (plain::find(name), arguments) {
                (Some(read), None) => Ok(Self::Plain(read)),
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
                let read = |name: &str| match from {
                    Source::Request => record.request_header(name),
                    Source::Response => record.response_header(name),
                    Source::Trailer => record.trailer(name),
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
            Self::Start(format) => written(format, record.start),
            Self::CertificateStart(format) => written(
                format,
                record
                    .downstream_tls
                    .as_ref()
                    .and_then(|tls| tls.peer_valid_from),
            ),
            Self::CertificateEnd(format) => written(
                format,
                record
                    .downstream_tls
                    .as_ref()
                    .and_then(|tls| tls.peer_valid_until),
            ),
            Self::Duration { from, to, unit } => {
                let span = |from: Duration, to: Duration| to.checked_sub(from);
                let duration = from
                    .offset(record)
                    .zip(to.offset(record))
                    .and_then(|(from, to)| span(from, to));
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
            Self::Cel(expression) => match expression.evaluate(record) {
                Ok(value) => Field::json(Some(&value.to_json())),
                Err(_) => Field::Absent,
            },
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
            Self::Cel(expression) => expression.add_needs(needs),
            Self::Plain(_)
            | Self::Fixed(_)
            | Self::QueryParameter(_)
            | Self::Path { .. }
            | Self::Start(_)
            | Self::CertificateStart(_)
            | Self::CertificateEnd(_)
            | Self::Duration { .. }
            | Self::GrpcStatus(_)
            | Self::FilterState { .. } => {}
        }
    }
}

fn written<'a>(format: &TimeFormat, time: Option<SystemTime>) -> Field<'a> {
    Field::text(time.and_then(|time| format.format(time)))
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

fn common_duration(arguments: &str) -> Result<Operator, Error> {
    let parts: Vec<&str> = arguments.split(':').collect();
    let [from, to, unit] = parts.as_slice() else {
        return Err(Error::Format(format!(
            "`%COMMON_DURATION%`: `{arguments}` is not START:END:PRECISION"
        )));
    };
    let unit = match *unit {
        "ms" => Unit::Milliseconds,
        "us" => Unit::Microseconds,
        "ns" => Unit::Nanoseconds,
        _ => {
            return Err(Error::Format(format!(
                "`%COMMON_DURATION%`: precision `{unit}` is not ms, us or ns"
            )));
        }
    };
    Ok(Operator::Duration {
        from: Point::parse(from)?,
        to: Point::parse(to)?,
        unit,
    })
}

impl Point {
    fn parse(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "DS_RX_BEG" => Self::DownstreamStart,
            "DS_RX_END" => Self::DownstreamRequestEnd,
            "DS_TX_BEG" => Self::DownstreamResponseStart,
            "DS_TX_END" => Self::DownstreamResponseEnd,
            "US_CX_BEG" => Self::UpstreamConnectStart,
            "US_CX_END" => Self::UpstreamConnectEnd,
            "US_TX_BEG" => Self::UpstreamRequestStart,
            "US_TX_END" => Self::UpstreamRequestEnd,
            "US_RX_BEG" => Self::UpstreamResponseStart,
            "US_RX_END" => Self::UpstreamResponseEnd,
            _ => {
                return Err(Error::Format(format!(
                    "`%COMMON_DURATION%`: unknown time point `{name}`"
                )));
            }
        })
    }

    fn offset(self, record: &Record) -> Option<Duration> {
        let timings = &record.timings;
        match self {
            Self::DownstreamStart => Some(Duration::ZERO),
            Self::DownstreamRequestEnd => timings.last_downstream_rx,
            Self::DownstreamResponseStart => timings.first_downstream_tx,
            Self::DownstreamResponseEnd => timings.last_downstream_tx,
            Self::UpstreamConnectStart => timings.upstream_connect_start,
            Self::UpstreamConnectEnd => timings.upstream_connect_complete,
            Self::UpstreamRequestStart => timings.first_upstream_tx,
            Self::UpstreamRequestEnd => timings.last_upstream_tx,
            Self::UpstreamResponseStart => timings.first_upstream_rx,
            Self::UpstreamResponseEnd => timings.last_upstream_rx,
        }
    }
}

impl Unit {
    fn count(self, duration: Duration) -> u64 {
        let count = match self {
            Self::Milliseconds => duration.as_millis(),
            Self::Microseconds => duration.as_micros(),
            Self::Nanoseconds => duration.as_nanos(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

fn grpc_status(style: &str) -> Result<Operator, Error> {
    match style {
        "" | "CAMEL_STRING" => Ok(Operator::GrpcStatus(GrpcStatusStyle::Camel)),
        "SNAKE_STRING" => Ok(Operator::GrpcStatus(GrpcStatusStyle::Snake)),
        "NUMBER" => Ok(Operator::GrpcStatus(GrpcStatusStyle::Number)),
        _ => Err(Error::Format(format!(
            "`%GRPC_STATUS%`: `{style}` is not CAMEL_STRING, SNAKE_STRING or NUMBER"
        ))),
    }
}

/// gRPC status names by number.
const GRPC_STATUS: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

impl GrpcStatusStyle {
    fn field<'a>(self, status: Option<u32>) -> Field<'a> {
        let Some(status) = status else {
            return Field::Absent;
        };
        let names = usize::try_from(status)
            .ok()
            .and_then(|at| GRPC_STATUS.get(at));
        match (self, names) {
            (Self::Number, _) => Field::Number(u64::from(status)),
            (Self::Camel, Some((camel, _))) => Field::Text(Cow::Borrowed(camel)),
            (Self::Snake, Some((_, snake))) => Field::Text(Cow::Borrowed(snake)),
            (_, None) => Field::Text(Cow::Owned(status.to_string())),
        }
    }
}

fn typed_metadata(arguments: &str) -> Result<Operator, Error> {
    let mut keys = arguments.split(':');
    let owner = match keys.next().unwrap_or_default() {
        "DYNAMIC" => Owner::Dynamic,
        "CLUSTER" => Owner::Cluster,
        "ROUTE" => Owner::Route,
        "UPSTREAM_HOST" => Owner::UpstreamHost,
        "LISTENER" => Owner::Listener,
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

/// The host part of an address.
fn host(address: &Address) -> Option<String> {
    match address {
        Address::Socket(socket) => Some(socket.ip().to_string()),
        Address::Pipe(path) => Some(path.to_string()),
        Address::Internal(_) => None,
    }
}

fn port(address: &Address) -> Option<u64> {
    match address {
        Address::Socket(socket) => Some(u64::from(socket.port())),
        Address::Pipe(_) | Address::Internal(_) => None,
    }
}

/// When the record ended: the log is written then.
fn now_text(record: &Record) -> Option<String> {
    let ended = record
        .start?
        .checked_add(record.timings.total.unwrap_or_default())?;
    Some(iso_time(ended))
}
