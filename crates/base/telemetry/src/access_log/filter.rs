//! Log filters: which records are logged (Envoy's AccessLogFilter messages).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::cel::Expression;
use crate::needs::Needs;
use crate::record::{Record, ResponseFlags};
use crate::stats::StringMatch;

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    GreaterOrEqual,
    LessOrEqual,
    NotEqual,
}

impl Comparison {
    fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::GreaterOrEqual => left >= right,
            Self::LessOrEqual => left <= right,
            Self::NotEqual => left != right,
        }
    }
}

/// A condition over a finished record.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// The status (0 when there is none) against a number.
    StatusCode(Comparison, u64),
    /// The duration in milliseconds against a number.
    Duration(Comparison, Duration),
    NotHealthCheck,
    Traceable,
    /// At random, `per_million` of 1,000,000; by the request id unless `independent`, so that all
    /// hops agree.
    RuntimeFraction {
        per_million: u32,
        independent: bool,
    },
    /// Any of these flags; empty: any flag at all.
    ResponseFlag(ResponseFlags),
    /// A request header: present, and matching when a pattern is given. `invert` turns the result
    /// around.
    Header {
        name: HeaderName,
        value: Option<StringMatch>,
        invert: bool,
    },
    /// The gRPC status is (or with `exclude` is not) one of these.
    GrpcStatus {
        statuses: Vec<u32>,
        exclude: bool,
    },
    /// Dynamic metadata at a path has this value; `or_absent`: also when it is absent.
    Metadata {
        filter: String,
        path: Vec<String>,
        value: StringMatch,
        or_absent: bool,
    },
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Expression(Expression),
}

impl Filter {
    /// Whether the record is logged. `random`: uniform bits for this record.
    pub fn admits(&self, record: &Record, random: u64) -> bool {
        match self {
            Self::StatusCode(comparison, code) => {
                comparison.holds(u64::from(record.status.unwrap_or(0)), *code)
            }
            Self::Duration(comparison, limit) => record
                .timings
                .total
                .is_some_and(|total| comparison.holds(milliseconds(total), milliseconds(*limit))),
            Self::NotHealthCheck => !record.health_check,
            Self::Traceable => record.traced,
            Self::RuntimeFraction {
                per_million,
                independent,
            } => {
                let drawn = match record
                    .request_id
                    .as_ref()
                    .filter(|_| !independent)
                    .and_then(of_request_id)
                {
                    Some(number) => number,
                    None => random,
                };
                drawn % 1_000_000 < u64::from(*per_million)
            }
            Self::ResponseFlag(flags) if flags.is_empty() => !record.flags.is_empty(),
            Self::ResponseFlag(flags) => record.flags.intersects(*flags),
            Self::Header {
                name,
                value,
                invert,
            } => {
                let found = record.request_header(name.as_str());
                let matched = match value {
                    None => found.is_some(),
                    Some(value) => found.is_some_and(|text| value.matches(&text)),
                };
                matched != *invert
            }
            Self::GrpcStatus { statuses, exclude } => {
                record
                    .grpc_status
                    .is_some_and(|status| statuses.contains(&status))
                    != *exclude
            }
            Self::Metadata {
                filter,
                path,
                value,
                or_absent,
            } => {
                match super::operator::metadata(record.dynamic_metadata.as_deref(), filter, path) {
                    Some(serde_json::Value::String(text)) => value.matches(text),
                    Some(other) => value.matches(&other.to_string()),
                    None => *or_absent,
                }
            }
            Self::And(filters) => filters.iter().all(|filter| filter.admits(record, random)),
            Self::Or(filters) => filters.iter().any(|filter| filter.admits(record, random)),
            Self::Expression(expression) => expression.matches(record),
        }
    }

    /// Adds the headers that it reads.
    pub fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::Header { name, .. } => needs.add_request(Some(name.as_str())),
            Self::And(filters) | Self::Or(filters) => {
                filters.iter().for_each(|filter| filter.add_needs(needs))
            }
            Self::Expression(expression) => expression.add_needs(needs),
            Self::StatusCode(..)
            | Self::Duration(..)
            | Self::NotHealthCheck
            | Self::Traceable
            | Self::RuntimeFraction { .. }
            | Self::ResponseFlag(_)
            | Self::GrpcStatus { .. }
            | Self::Metadata { .. } => {}
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn of_request_id(id: &HeaderValue) -> Option<u64> {
    crate::trace::request_id_number(id.as_bytes())
}
