//! The status of gRPC, as a name or a number.

use std::borrow::Cow;

use crate::Error;
use crate::access_log::field::Field;

/// How `%GRPC_STATUS()%` writes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GrpcStatusStyle {
    Camel,
    Snake,
    Number,
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
    /// No style is the first one.
    pub(super) fn parse(style: &str) -> Result<Self, Error> {
        match style {
            "" | "CAMEL_STRING" => Ok(Self::Camel),
            "SNAKE_STRING" => Ok(Self::Snake),
            "NUMBER" => Ok(Self::Number),
            _ => Err(Error::Format(format!(
                "`%GRPC_STATUS%`: `{style}` is not CAMEL_STRING, SNAKE_STRING or NUMBER"
            ))),
        }
    }

    pub(super) fn field<'a>(self, status: Option<u32>) -> Field<'a> {
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
