//! Subsets: the hosts whose `envoy.lb` metadata has what a route asks for. Follows Envoy's load
//! balancer subsets.

use std::{collections::BTreeMap, sync::Arc};

use proxy_config::{
    cluster::{SubsetConfig, SubsetFallback},
    metadata::{Metadata, Value},
};

use crate::{
    balance::level::{Levels, Rules},
    endpoint::LiveEndpoint,
};

const NAMESPACE: &str = "envoy.lb";

type Fields = BTreeMap<Arc<str>, Value>;

/// All subsets of a cluster.
pub struct Subsets {
    fallback: SubsetFallback,
    selectors: Box<[Selector]>,
    default: Option<Levels>,
}

/// The subsets by one set of keys.
struct Selector {
    /// Sorted.
    keys: Box<[Arc<str>]>,
    /// By the values of the keys.
    subsets: Vec<(Vec<Value>, Levels)>,
}

/// Where to pick.
pub enum Found<'s> {
    Subset(&'s Levels),
    /// `None`: the whole cluster.
    Fallback(Option<&'s Levels>),
    Nothing,
}

impl Subsets {
    pub fn new(config: &SubsetConfig, rules: Rules<'_>, hosts: &[Arc<LiveEndpoint>]) -> Self {
        let selectors = config
            .selectors
            .iter()
            .map(|keys| Selector::new(keys, rules, hosts))
            .collect();
        let default = (config.fallback == SubsetFallback::DefaultSubset).then(|| {
            let chosen: Vec<_> = hosts
                .iter()
                .filter(|host| is_in(&config.default_subset, host))
                .cloned()
                .collect();
            Levels::new(rules, &chosen)
        });
        Self {
            fallback: config.fallback,
            selectors,
            default,
        }
    }

    /// The subset with exactly the keys that are asked for, if it has hosts; else the fallback.
    pub fn find(&self, asked: Option<&Metadata>) -> Found<'_> {
        let fields = asked.and_then(fields).filter(|fields| !fields.is_empty());
        let selector = fields.and_then(|fields| {
            self.selectors
                .iter()
                .find(|selector| selector.keys.iter().eq(fields.keys()))
        });
        let subset = fields.zip(selector).and_then(|(fields, selector)| {
            selector
                .subsets
                .iter()
                .find(|(values, _)| values.iter().eq(fields.values()))
                .map(|(_, levels)| levels)
        });
        match (subset, self.fallback) {
            (Some(subset), _) => Found::Subset(subset),
            (None, SubsetFallback::NoFallback) => Found::Nothing,
            (None, SubsetFallback::AnyEndpoint) => Found::Fallback(None),
            (None, SubsetFallback::DefaultSubset) => Found::Fallback(self.default.as_ref()),
        }
    }
}

impl Selector {
    fn new(keys: &[Arc<str>], rules: Rules<'_>, hosts: &[Arc<LiveEndpoint>]) -> Self {
        let mut keys: Vec<Arc<str>> = keys.to_vec();
        keys.sort();
        keys.dedup();
        let mut sets: Vec<(Vec<Value>, Vec<Arc<LiveEndpoint>>)> = Vec::new();
        for host in hosts {
            let fields = fields(&host.config.metadata);
            let Some(values) = keys
                .iter()
                .map(|key| fields?.get(key).cloned())
                .collect::<Option<Vec<Value>>>()
            else {
                continue;
            };
            match sets.iter_mut().find(|(known, _)| *known == values) {
                Some((_, members)) => members.push(host.clone()),
                None => sets.push((values, vec![host.clone()])),
            }
        }
        let subsets = sets
            .into_iter()
            .map(|(values, members)| (values, Levels::new(rules, &members)))
            .collect();
        Self {
            keys: keys.into(),
            subsets,
        }
    }
}

fn fields(metadata: &Metadata) -> Option<&Fields> {
    match metadata.0.get(NAMESPACE)? {
        Value::Struct(fields) => Some(fields),
        _ => None,
    }
}

fn is_in(wanted: &Value, host: &LiveEndpoint) -> bool {
    let Value::Struct(wanted) = wanted else {
        return true;
    };
    let fields = fields(&host.config.metadata);
    wanted
        .iter()
        .all(|(key, value)| fields.and_then(|fields| fields.get(key)) == Some(value))
}
