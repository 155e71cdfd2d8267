//! What tools ask over ADS: istioctl's `proxy-status`, `version` and `internal-debug` (reference
//! 4.6).
//!
//! A request of a type below `istio.io/debug` is a question, not a subscription: it is answered
//! once, from the same pages that HTTP shows. `istio.io/debug/syncz` answers one `ClientConfig` for
//! each connected proxy, `istio.io/debug/config_dump` the parts of the dump of the proxy that is
//! named,
//! `istio.io/debug` the body of the page that is named (`adsz`, `edsz?proxyID=…`).
//!
//! Callers of the root namespace may ask everything; others only for dumps and endpoints of proxies
//! of their own namespace, as with istiod.

use std::net::SocketAddr;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::Request,
};
use serde_json::{Value, json};
use tonic::Status;
use tower::ServiceExt as _;
use wire_envoy::{
    Descriptors, Unknown, any,
    pb::{
        Any,
        core::{ControlPlane, Node},
        envoy::service::status::v3::{ClientConfig, ConfigStatus, client_config::GenericXdsConfig},
    },
    structs,
};
use xds_protocol::TypeStatus;

use crate::{
    authenticate::Caller,
    debug::{self, Pages},
    proxies::ProxyStatus,
};

const PAGE: &str = "istio.io/debug";
const SYNC: &str = "istio.io/debug/syncz";
const DUMP: &str = "istio.io/debug/config_dump";
/// Pages that a caller of any namespace may read of the proxies of its own.
const OWN_PAGES: [&str; 3] = ["config_dump", "edsz", "ndsz"];
/// Largest page that is sent as a message.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// Answers tools.
pub struct Tools {
    pages: Pages,
    router: Router,
    root_namespace: String,
}

/// Whether a request of this type is a tool's question.
pub fn is_question(type_url: &str) -> bool {
    type_url == PAGE || type_url.starts_with("istio.io/debug/")
}

impl Tools {
    pub fn new(pages: Pages, root_namespace: &str) -> Self {
        Self {
            router: debug::router(pages.clone()),
            pages,
            root_namespace: root_namespace.to_owned(),
        }
    }

    /// The resources of the answer. Errors: a caller who may not ask that, a type or a proxy that
    /// is not known.
    pub async fn answer(
        &self,
        caller: &Caller,
        type_url: &str,
        names: &[String],
    ) -> Result<Vec<Any>, Status> {
        match (type_url, names) {
            (SYNC, _) => {
                self.allow(caller, "syncz", None)?;
                let proxies = self.pages.proxies.list();
                Ok(proxies
                    .iter()
                    .map(|(_, proxy)| any(&sync_of(proxy)))
                    .collect())
            }
            (DUMP, [proxy]) => {
                self.allow(caller, "config_dump", Some(proxy))?;
                let body = self.page(&format!("config_dump?proxyID={proxy}")).await?;
                parts_of_dump(&body)
            }
            (PAGE, [page]) => {
                let (name, query) = page.split_once('?').unwrap_or((page, ""));
                let named = query
                    .split('&')
                    .find_map(|part| part.strip_prefix("proxyID="));
                self.allow(caller, name, named)?;
                Ok(vec![Any {
                    type_url: PAGE.to_owned(),
                    value: self.page(page).await?,
                }])
            }
            (DUMP | PAGE, _) => Err(Status::invalid_argument(format!(
                "{type_url} needs exactly one resource name"
            ))),
            _ => Err(Status::invalid_argument(format!("{type_url} is not known"))),
        }
    }

    fn allow(&self, caller: &Caller, page: &str, proxy: Option<&str>) -> Result<(), Status> {
        let namespace = caller.account.namespace();
        if namespace == self.root_namespace {
            return Ok(());
        }
        let of_own = proxy
            .and_then(|proxy| self.pages.proxies.find(proxy))
            .is_some_and(|proxy| &*proxy.client.namespace == namespace);
        if OWN_PAGES.contains(&page) && of_own {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "{} may not read the page {page}: callers outside of {} see only proxies of their own namespace",
            caller.id, self.root_namespace
        )))
    }

    /// The body of a page below `/debug/`.
    async fn page(&self, page: &str) -> Result<Vec<u8>, Status> {
        let mut request = Request::get(format!("/debug/{page}"))
            .body(Body::empty())
            .map_err(|error| Status::invalid_argument(format!("{page}: {error}")))?;
        // Who may ask was decided above, by more than where the call comes from.
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        request.extensions_mut().insert(ConnectInfo(here));
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let body = to_bytes(response.into_body(), MAX_PAGE_BYTES)
            .await
            .map_err(|error| Status::resource_exhausted(format!("{page}: {error}")))?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let why = String::from_utf8_lossy(&body);
        Err(Status::not_found(format!(
            "{page}: {status}: {}",
            why.trim()
        )))
    }
}

/// The messages of `{"configs": […]}`.
fn parts_of_dump(body: &[u8]) -> Result<Vec<Any>, Status> {
    let broken = |why: String| Status::internal(format!("config_dump: {why}"));
    let mut dump: Value =
        serde_json::from_slice(body).map_err(|error| broken(error.to_string()))?;
    let descriptors = Descriptors::load().map_err(|error| broken(error.to_string()))?;
    let configs = dump.get_mut("configs").and_then(Value::as_array_mut);
    let configs = configs.map(std::mem::take).unwrap_or_default();
    configs
        .into_iter()
        .map(|config| {
            descriptors
                .any_from_json(config, Unknown::Deny)
                .map_err(|error| broken(error.to_string()))
        })
        .collect()
}

fn sync_of(proxy: &ProxyStatus) -> ClientConfig {
    let client = &proxy.client;
    let metadata = json!({
        "CLUSTER_ID": &*client.cluster_id,
        "ISTIO_VERSION": &*client.version,
        "NAMESPACE": &*client.namespace,
    });
    let subscribed = proxy.watches.keys().chain(proxy.types.keys());
    let mut types: Vec<&String> = subscribed.collect();
    types.sort();
    types.dedup();
    let configs = types.into_iter().map(|type_url| GenericXdsConfig {
        type_url: type_url.clone(),
        config_status: config_status(proxy.types.get(type_url)).into(),
        ..GenericXdsConfig::default()
    });
    ClientConfig {
        node: Some(Node {
            id: proxy.name.clone(),
            metadata: structs::from_json(&metadata),
            ..Node::default()
        }),
        generic_xds_configs: configs.collect(),
        ..ClientConfig::default()
    }
}

fn config_status(status: Option<&TypeStatus>) -> ConfigStatus {
    match status {
        None => ConfigStatus::NotSent,
        Some(status) if status.sent_nonce.is_empty() => ConfigStatus::NotSent,
        Some(status) if status.last_rejection.is_some() => ConfigStatus::Error,
        Some(status) if status.sent_nonce == status.acknowledged_nonce => ConfigStatus::Synced,
        Some(_) => ConfigStatus::Stale,
    }
}

/// Who answers, as istioctl shows it in the column ISTIOD and in `version`.
pub fn control_plane(instance: &str) -> ControlPlane {
    let version = env!("CARGO_PKG_VERSION");
    let identifier = json!({
        "Component": "istiod",
        "ID": instance,
        "Info": {
            "version": format!("tanbark-{version}"),
            "revision": "",
            "golang_version": "",
            "status": "Clean",
            "tag": version,
        },
    });
    ControlPlane {
        identifier: identifier.to_string(),
    }
}
