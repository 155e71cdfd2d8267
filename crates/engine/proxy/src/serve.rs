//! One request, from its head to its reply: the outline of the data path.
//!
//! The parent owns control flow and state; the leaves are pure or do one piece of IO. Steps in
//! order: the head is made safe ([`admit`]), a route and with it a cluster are chosen
//! ([`choose_route`]), the filters look at it, and what none of them answers is answered by the
//! route: forwarded, redirected, or directly. Whoever makes the reply, it passes the filters in
//! reverse and leaves through `Reply::into_response`, which ties the report to the end of its body.
//!
//! [`admit`]: crate::headers::admit::admit

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use proxy_config::{
    http_connection_manager::RouteSource,
    route::{Redirect, RedirectPath, RequireTls, RouteAction, RouteMatch},
};
use telemetry::record::ResponseFlags;

use crate::{
    exchange::{
        Exchange, forward,
        refusal::late_status,
        reply::{Reply, ReplyBody},
    },
    filters::{self, flow::Flow},
    headers::{admit::admit, operations, text, trace},
    listener::LiveHttp,
    redirect,
    route::{choose_cluster, match_route},
    waiting,
    worker::Worker,
};

/// Serves one request.
pub async fn serve(mut x: Box<Exchange>) -> Response<ReplyBody> {
    let mut reply = match admit(&mut x.request, &x.worker.live.rng) {
        Err(refusal) => refusal.into(),
        Ok(()) => {
            table_is_there(&mut x).await;
            choose_route(&mut x);
            trace::begin(
                &mut x.request,
                x.worker.settings.default_tracer.as_ref(),
                &x.worker.live.rng,
            );
            let (overdue, idle) = (overdue(&x), idle(&x));
            tokio::select! {
                biased;
                reply = respond(&mut x) => reply,
                () = idle => {
                    let status = late_status(&x);
                    Reply::failure(&mut x, status, "stream timeout", ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout")
                }
                () = overdue => Reply::local(&mut x, StatusCode::REQUEST_TIMEOUT, "request timeout", "request_overall_timeout"),
            }
        }
    };
    let (http, worker) = (x.http.clone(), x.worker.clone());
    filters::on_response(
        &filter_chain(&http, &worker),
        &mut x.request,
        &mut reply.head,
    );
    trace::on_response(&mut x.request, &reply.head);
    reply.into_response(x)
}

/// A route table that the control plane has not sent yet is waited for.
async fn table_is_there(x: &mut Exchange) {
    let (live, http) = (x.worker.live.clone(), x.http.clone());
    let (routes, limit) = (&http.config.routes, http.config.timeouts.stream_idle);
    x.config = waiting::for_routes(&live, &x.config, routes, limit).await;
}

/// A cluster that lacks its first endpoints or a secret is waited for, as long as the route lets
/// the request take.
async fn cluster_is_warm(x: &mut Exchange, limit: Option<Duration>) {
    let Some(cluster) = &x.cluster else { return };
    let name = cluster.config.name.clone();
    let live = x.worker.live.clone();
    let config = waiting::for_cluster(&live, &x.config, &name, limit).await;
    if !Arc::ptr_eq(&config, &x.config) {
        x.set_cluster(config.clusters.get(&name).cloned());
    }
}

/// Fills `route`, `cluster` and `weighted`. Pure but for the exchange; the one version of
/// configuration is in it.
pub fn choose_route(x: &mut Exchange) {
    let config = x.config.clone();
    let table = match &x.http.config.routes {
        RouteSource::Inline(_) => x.http.inline_routes.as_ref(),
        RouteSource::Named(name) => config.routes.get(name),
    };
    x.request.route = table.and_then(|table| match_route(table, &x.request.route_facts()));
    let Some(forward) = x.request.forward_rules().cloned() else {
        return;
    };
    if let Some((name, weighted)) =
        choose_cluster(&forward.target, &x.request.head.headers, x.request.random)
    {
        x.request.weighted = weighted;
        x.set_cluster(config.clusters.get(&name).cloned());
    }
}

/// What the filters answer, or else the route.
async fn respond(x: &mut Exchange) -> Reply {
    let (http, worker) = (x.http.clone(), x.worker.clone());
    match filters::on_request(&filter_chain(&http, &worker), &mut x.request).await {
        Flow::Respond(reply) => reply.into(), // not an error
        Flow::Continue => answer(x).await,
    }
}

/// The filters of the connection manager and what they may use.
fn filter_chain<'a>(http: &'a LiveHttp, worker: &'a Worker) -> filters::Chain<'a> {
    filters::Chain {
        filters: &http.config.filters,
        live: &http.filters,
        rate_limits: &worker.live.rate_limits,
        own: &worker.live.own,
        peers: &worker.peers,
        clock: &*worker.live.clock,
        rng: &*worker.live.rng,
    }
}

/// Resolves when the request's body takes longer than the connection manager lets it
/// (`request_timeout`).
fn overdue(x: &Exchange) -> impl Future<Output = ()> + use<> {
    let limit = x.http.config.timeouts.request;
    // The timer is set only for a request that has not come whole.
    let waits = limit
        .filter(|limit| !limit.is_zero() && !x.request.body.is_empty())
        .map(|limit| (x.request.started + limit, x.request.body.clone()));
    async move {
        let Some((end, body)) = waits else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            () = body.complete() => std::future::pending().await,
            () = tokio::time::sleep_until(end.into()) => {}
        }
    }
}

/// Resolves when neither side sent anything for the stream's idle time before the response began;
/// afterwards its body looks to that.
fn idle(x: &Exchange) -> impl Future<Output = ()> + use<> {
    let waits = x
        .request
        .stream_idle_timeout()
        .map(|limit| (limit, x.request.body.clone()));
    async move {
        let Some((limit, body)) = waits else {
            return std::future::pending().await;
        };
        let mut seen = body.progress();
        loop {
            tokio::time::sleep(limit).await;
            let before = std::mem::replace(&mut seen, body.progress());
            if seen == before {
                return;
            }
        }
    }
}

/// What the route answers.
async fn answer(x: &mut Exchange) -> Reply {
    let Some(matched) = x.request.route.clone() else {
        return Reply::failure(
            x,
            StatusCode::NOT_FOUND,
            "",
            ResponseFlags::NO_ROUTE_FOUND,
            "route_not_found",
        );
    };
    if let Some(location) = required_https(x, matched.virtual_host.require_tls) {
        // No route of the virtual host has any part in it.
        x.request.route = None;
        x.set_cluster(None);
        let mut reply = Reply::local(x, StatusCode::MOVED_PERMANENTLY, "", "direct_response");
        reply.head.headers.insert(LOCATION, location);
        return reply;
    }
    match &matched.route.action {
        RouteAction::Forward(rules) => {
            cluster_is_warm(x, rules.timeout).await;
            forward::forward(x, rules)
                .await
                .unwrap_or_else(|refusal| refusal)
        }
        RouteAction::Redirect(rules) => {
            let location = redirect::location(
                rules,
                &matched.route.matches,
                &redirect::Request::of(&x.request),
            );
            let mut reply = Reply::local(x, rules.status, "", "direct_response");
            reply.head.headers.insert(LOCATION, text(&location));
            note_new_path(x, rules, &matched.route.matches);
            operations::on_response(&mut x.request, &mut reply.head);
            reply
        }
        RouteAction::DirectResponse { status, body } => {
            let mut reply = Reply::local(x, *status, body.clone(), "direct_response");
            let form = reply.head.headers.get(CONTENT_TYPE).cloned();
            operations::on_response(&mut x.request, &mut reply.head);
            if let Some(form) = form.filter(|_| x.request.is_grpc) {
                // What a gRPC client gets is gRPC.
                reply.head.headers.insert(CONTENT_TYPE, form);
            }
            reply
        }
        RouteAction::Refused(refused) => filters::refused::route(refused, &mut x.request).into(),
        RouteAction::NonForwarding => Reply::failure(
            x,
            StatusCode::SERVICE_UNAVAILABLE,
            "",
            ResponseFlags::NO_CLUSTER_FOUND,
            "cluster_not_found",
        ),
    }
}

/// A redirect that rewrites the path is logged with both paths.
fn note_new_path(x: &mut Exchange, rules: &Redirect, matches: &RouteMatch) {
    if matches!(rules.path, RedirectPath::Prefix(_) | RedirectPath::Regex(_)) {
        let new = redirect::path(rules, matches, x.request.path());
        x.request.record.original_path = x.request.head.uri.path_and_query().cloned();
        x.request.record.path = new.parse().ok().or_else(|| x.request.record.path.take());
    }
}

/// Where a plaintext request must go instead, if the virtual host wants TLS.
fn required_https(x: &Exchange, rule: RequireTls) -> Option<HeaderValue> {
    match rule {
        RequireTls::No => None,
        RequireTls::All | RequireTls::ExternalOnly if x.request.is_https => None,
        RequireTls::ExternalOnly if x.request.is_internal => None,
        RequireTls::All | RequireTls::ExternalOnly => Some(text(&format!(
            "https://{}{}",
            x.request.authority.to_str().unwrap_or_default(),
            x.request.path()
        ))),
    }
}
