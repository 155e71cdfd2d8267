//! The local API: Kubernetes' paths and objects over HTTP/1.1, on a socket that only the owner can
//! open.
//!
//! The socket's mode is 0600 and each connection's user is checked as well. Discovery, list, watch,
//! patch, logs and exec are those of the API server, so that its clients (the control plane's
//! watches, kubectl through a forwarder) work unchanged. A handler that refuses answers with a
//! `Status` object.

pub mod answer;
pub mod connect;
pub mod discovery;
pub mod logs;
pub mod openapi;
pub mod patch;
pub mod resource;
pub mod review;
pub mod route;
pub mod shape;
pub mod summary;
pub mod warnings;
pub mod watch;

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::error::{Context as _, Result};
use crate::store::{Refusal, status_object};
use answer::{Answer, Body, json, read_body, text};
use route::Route;

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 1_024;

/// Opens the socket.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).context(|| format!("open {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .context(|| format!("restrict {}", path.display()))?;
    Ok(listener)
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, context: Arc<Context>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let owner = nix::unistd::geteuid().as_raw();
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        if stream.peer_cred().map(|peer| peer.uid()).ok() != Some(owner) {
            tracing::warn!("a process of another user was refused at the local API");
            continue;
        }
        let context = context.clone();
        // task: one connection of the local API; holds one of MAX_CONNECTIONS places, ends with its
        // client
        tokio::spawn(async move {
            let _permit = permit;
            serve_connection(stream, context).await;
        });
    }
}

async fn serve_connection(stream: UnixStream, context: Arc<Context>) {
    let service = service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(answer(context, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of the local API ended");
    }
}

async fn answer(context: Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    let what = format!("{} {}", request.method(), request.uri());
    match dispatch(context, request).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(%refusal, what, "refused");
            let code = StatusCode::from_u16(refusal.status().0)
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            json(code, &status_object(&refusal))
        }
    }
}

async fn dispatch(context: Arc<Context>, request: Request<Incoming>) -> Answer {
    let aggregated = shape::accepts(
        request.headers(),
        &["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"],
    );
    let path = request.uri().path().to_string();
    let nothing = || Refusal::NotFound {
        kind: "path".into(),
        name: path.clone(),
    };
    let ok = |value: Value| Ok(json(StatusCode::OK, &value));
    match route::parse(&path).ok_or_else(nothing)? {
        Route::Version => ok(discovery::version()),
        Route::Health => Ok(text("ok")),
        Route::CoreVersions if aggregated => Ok(aggregate(&discovery::aggregated(true))),
        Route::Groups if aggregated => Ok(aggregate(&discovery::aggregated(false))),
        Route::CoreVersions => ok(discovery::core_versions()),
        Route::Groups => ok(discovery::groups()),
        Route::Group(group) => ok(discovery::group(&group).ok_or_else(nothing)?),
        Route::Resources(group, version) => {
            ok(discovery::resources(&group, &version).ok_or_else(nothing)?)
        }
        Route::KeySet => {
            ok(serde_json::from_str(&context.tokens.signer.jwks()).unwrap_or_default())
        }
        Route::Summary => ok(summary::summary(&context)),
        Route::OpenApi => ok(openapi::index()),
        Route::OpenApiOf(group, version) => {
            ok(openapi::document(&group, &version).ok_or_else(nothing)?)
        }
        Route::AccessReview => review::access_review(),
        Route::SelfReview => review::self_review(),
        Route::TokenReview if request.method() == Method::POST => {
            review::token_review(&context, &read_body(request).await?)
        }
        Route::SubjectAccessReview if request.method() == Method::POST => {
            review::subject_access_review(&context, &read_body(request).await?)
        }
        Route::TokenReview | Route::SubjectAccessReview => {
            Err(Refusal::NotAllowed("reviews are created".into()))
        }
        Route::Resource(target) => resource::handle(context, target, request).await,
    }
}

fn aggregate(value: &Value) -> Response<Body> {
    let mut response = json(StatusCode::OK, value);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ),
    );
    response
}
