//! What the configuration names and does not have yet, and the doors at which requests and
//! connections wait for it.
//!
//! The feed publishes a cluster, a route table or a listener at once, because the version before
//! may send in plaintext what the new one does not, and tells here what they still lack. Who needs
//! one of these waits until its name is no longer among them: it came, does not exist, or the feed
//! has given it up (`warm_timeout`). That, and the time limit of whoever waits, bound the wait;
//! what is still missing then is answered 503 or refused, never replaced by something laxer.

use std::{sync::Arc, time::Duration};

use proxy_config::{ClusterName, http_connection_manager::RouteSource};

use crate::{
    config::{Config, Waiting},
    publish::Live,
    tls::LiveServerTls,
};

/// The newest configuration in which this cluster is not waited for, or that of the end of the
/// limit (`None`: the feed's own).
pub async fn for_cluster(
    live: &Live,
    config: &Arc<Config>,
    name: &ClusterName,
    limit: Option<Duration>,
) -> Arc<Config> {
    if !config.waiting.clusters.contains(name) {
        return config.clone();
    }
    until(live, limit, |waiting| !waiting.clusters.contains(name)).await
}

/// The same for the route table of a connection manager.
pub async fn for_routes(
    live: &Live,
    config: &Arc<Config>,
    routes: &RouteSource,
    limit: Option<Duration>,
) -> Arc<Config> {
    match routes {
        RouteSource::Named(name) if config.waiting.routes.contains(name.as_str()) => {
            until(live, limit, |waiting| {
                !waiting.routes.contains(name.as_str())
            })
            .await
        }
        RouteSource::Named(_) | RouteSource::Inline(_) => config.clone(),
    }
}

/// The same for the secrets of a filter chain.
pub async fn for_secrets(live: &Live, context: &LiveServerTls, limit: Option<Duration>) {
    if context.is_usable() {
        return;
    }
    let names: Vec<Arc<str>> = context.secrets().map(|name| name.shared()).collect();
    until(live, limit, |waiting| {
        !names.iter().any(|name| waiting.secrets.contains(name))
    })
    .await;
}

async fn until(
    live: &Live,
    limit: Option<Duration>,
    is_over: impl Fn(&Waiting) -> bool,
) -> Arc<Config> {
    let mut versions = live.subscribe();
    let waits = async {
        loop {
            versions.mark_unchanged();
            if is_over(&live.config().waiting) || versions.changed().await.is_err() {
                return;
            }
        }
    };
    match limit {
        // The feed gives up what it waits for.
        None => waits.await,
        Some(limit) => {
            // At the end of the limit there is what there is.
            let _ = tokio::time::timeout(limit, waits).await;
        }
    }
    live.config()
}
