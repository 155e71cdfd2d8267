//! Local rate limits (`envoy.extensions.filters.{http,network}.local_ratelimit.v3`).

use std::{sync::Arc, time::Duration};

use crate::{header::HeaderOperation, matcher::Fraction};

#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimit {
    pub stat_prefix: Arc<str>,
    /// 429 unless set to another code >= 400.
    pub status: http::StatusCode,
    /// `None`: the filter does nothing here.
    pub bucket: Option<TokenBucket>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    pub response_headers: Arc<[HeaderOperation]>,
    /// One bucket for each downstream connection rather than for the proxy.
    pub per_connection: bool,
    pub x_ratelimit_headers: bool,
    /// First whose entries all match; entries `(key, value)` come from the route's rate-limit
    /// actions.
    pub descriptors: Arc<[Descriptor]>,
    /// How a request yields descriptors.
    pub actions: Arc<[DescriptorActions]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    pub entries: Arc<[(Arc<str>, Arc<str>)]>,
    pub bucket: TokenBucket,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DescriptorActions(pub Arc<[DescriptorAction]>);

#[derive(Debug, Clone, PartialEq)]
pub enum DescriptorAction {
    RequestHeader {
        header: crate::matcher::HeaderKey,
        key: Arc<str>,
        skip_if_absent: bool,
    },
    GenericKey {
        key: Arc<str>,
        value: Arc<str>,
    },
    RemoteAddress,
    HeaderValueMatch {
        key: Arc<str>,
        value: Arc<str>,
        expect: bool,
        headers: Arc<[crate::matcher::HeaderMatcher]>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    pub max_tokens: u32,
    pub tokens_per_fill: u32,
    /// At least 50 ms.
    pub fill_interval: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NetworkLocalRateLimit {
    pub stat_prefix: Arc<str>,
    pub bucket: TokenBucket,
    pub enabled: Fraction,
}
