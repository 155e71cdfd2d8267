//! Answers of the proxy itself, in Envoy's form: a status with a short text, or for gRPC status 200
//! with `grpc-status`.
//!
//! What makes one (a filter, a refusal, a redirect) sees the request only; the exchange turns it
//! into a reply like any other.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    response::Parts,
};
use telemetry::record::ResponseFlags;

use crate::{
    grpc,
    headers::{
        self,
        names::{GRPC_MESSAGE, GRPC_STATUS},
    },
    request::Request,
};

/// An answer with its whole body.
pub struct LocalReply {
    pub head: Parts,
    pub body: Bytes,
}

impl LocalReply {
    /// An answer of the proxy itself; notes `details` in the record. Flags are the caller's.
    pub fn new(
        request: &mut Request,
        status: StatusCode,
        body: impl Into<Bytes>,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        let body: Bytes = body.into();
        request.record.response_code_details = Some(details.into());
        request.record.local_reply_body =
            (!body.is_empty()).then(|| String::from_utf8_lossy(&body).into());
        let (mut head, ()) = Response::new(()).into_parts();
        if request.is_grpc {
            head.headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            head.headers.insert(
                GRPC_STATUS,
                headers::number(grpc::status_of_http(status).into()),
            );
            if !body.is_empty() {
                head.headers
                    .insert(GRPC_MESSAGE, headers::text(&grpc::encode_message(&body)));
            }
            return Self {
                head,
                body: Bytes::new(),
            };
        }
        head.status = status;
        if body.is_empty() {
            return Self {
                head,
                body: Bytes::new(),
            };
        }
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        head.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Self { head, body }
    }

    /// As [`LocalReply::new`], with a flag.
    pub fn failure(
        request: &mut Request,
        status: StatusCode,
        body: impl Into<Bytes>,
        flag: ResponseFlags,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        request.record.flags.insert(flag);
        Self::new(request, status, body, details)
    }
}
