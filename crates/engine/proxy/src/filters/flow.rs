//! What filters share: what they are run with, what they decide, what the route says about them,
//! what they tell others.

use std::{sync::Arc, time::Instant};

use proxy_config::{
    filter::{PerRouteConfig, PerRouteFilter},
    metadata::{Metadata, Value},
};
use stdx::Rng;

use crate::{local_reply::LocalReply, request::Request};

/// What a filter is run with, beside its configuration, its state and the request.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The filter's name, by which routes override it.
    pub name: &'a str,
    pub now: Instant,
    pub rng: &'a dyn Rng,
}

/// What a filter decided about a request.
pub enum Flow {
    Continue,
    Respond(LocalReply),
}

/// What the route says about a filter: the most specific of weighted cluster, route, virtual host
/// and table.
pub fn per_route<'x>(request: &'x Request, name: &str) -> Option<&'x PerRouteConfig> {
    let matched = request.route.as_ref()?;
    let of = |filters: &'x Arc<[PerRouteFilter]>| {
        filters
            .iter()
            .find(|filter| *filter.name == *name)
            .map(|filter| &filter.config)
    };
    request
        .weighted_cluster()
        .and_then(|weighted| of(&weighted.filters))
        .or_else(|| of(&matched.route.filters))
        .or_else(|| of(&matched.virtual_host.filters))
        .or_else(|| of(&matched.table.filters))
}

/// Adds fields to a filter's dynamic metadata.
pub fn note(
    metadata: &mut Metadata,
    filter: &str,
    fields: impl IntoIterator<Item = (Arc<str>, Value)>,
) {
    let all = Arc::make_mut(&mut metadata.0);
    match all.get_mut(filter) {
        Some(Value::Struct(known)) => Arc::make_mut(known).extend(fields),
        _ => drop(all.insert(
            Arc::from(filter),
            Value::Struct(Arc::new(fields.into_iter().collect())),
        )),
    }
}
