//! In which order types are pushed, and which of them are whole sets.

use wire_envoy::type_url;

/// CDS, EDS, LDS, RDS, SDS, then everything else (reference CP-002): what is referred to comes
/// before what refers to it.
const ORDER: [&str; 9] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::SCOPED_ROUTE,
    type_url::ROUTE,
    type_url::VIRTUAL_HOST,
    type_url::SECRET,
    type_url::EXTENSION_CONFIG,
    type_url::NAME_TABLE,
];

/// Lower comes first; types without a place come last.
pub fn push_rank(type_url: &str) -> usize {
    ORDER
        .iter()
        .position(|t| *t == type_url)
        .unwrap_or(ORDER.len())
}

/// Types whose state-of-the-world response is the whole set, so that what is absent has been
/// removed.
pub(crate) fn is_whole_set(type_url: &str) -> bool {
    type_url == type_url::CLUSTER || type_url == type_url::LISTENER
}

/// Types that are only ever asked for by name: an empty list of names is none, not all.
pub(crate) fn is_by_name(type_url: &str) -> bool {
    [
        type_url::ENDPOINT,
        type_url::ROUTE,
        type_url::SECRET,
        type_url::EXTENSION_CONFIG,
    ]
    .contains(&type_url)
}

/// Types that refer to clusters, and so wait for them.
pub(crate) fn refers_to_clusters(type_url: &str) -> bool {
    [
        type_url::LISTENER,
        type_url::SCOPED_ROUTE,
        type_url::ROUTE,
        type_url::VIRTUAL_HOST,
    ]
    .contains(&type_url)
}
