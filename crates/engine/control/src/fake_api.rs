//! A Kubernetes-shaped API for tests: objects in memory, list and watch, status, token reviews, on
//! a Unix socket in a temporary folder.
//!
//! Versions are one counter over all kinds, as a real API server's. `remove_while_watches_are_down`
//! forgets the history, so that watches end and clients must list again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};

use crate::api::{ApiAddress, connect};

/// How long a test waits for something to become true.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct FakeApi {
    pub client: Client,
    state: Arc<Shared>,
    _folder: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    state: Mutex<Objects>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    version: u64,
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    events: Vec<(u64, String, Value)>,
    /// Watches from before this version are refused.
    oldest: u64,
    unserved: BTreeSet<String>,
    /// Token → user and audiences.
    tokens: BTreeMap<String, (String, Vec<String>)>,
    reviews: usize,
    /// Users that may list the Secrets of their namespaces.
    readers: BTreeSet<String>,
    failing_writes: usize,
    failing_object: Option<String>,
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeApi {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path: PathBuf = folder.path().join("api.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let state = Arc::new(Shared {
            state: Mutex::default(),
            version: watch::Sender::new(0),
        });
        let router = Router::new().fallback(answer).with_state(state.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the API serves");
        });
        Self {
            client: connect(&ApiAddress::UnixSocket(path)).expect("a client"),
            state,
            _folder: folder,
            server,
        }
    }

    /// Puts an object; the plural is the kind's in lower case with `s`, or as given by `plural_of`.
    pub fn put(&self, object: Value) {
        self.state
            .put(&plural_of(object["kind"].as_str().expect("a kind")), object);
    }

    pub fn put_yaml(&self, text: &str) {
        for document in wire_kube::manifest::load("test.yaml", text).expect("YAML") {
            self.put(document.object);
        }
    }

    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        self.state.remove(plural, namespace, name, Announce::Yes);
    }

    /// Removes an object and ends the watches, so that no event ever tells of it.
    pub fn remove_while_watches_are_down(&self, plural: &str, namespace: &str, name: &str) {
        self.state.remove(plural, namespace, name, Announce::No);
    }

    pub fn do_not_serve(&self, plural: &str) {
        self.state.state.lock().unserved.insert(plural.to_owned());
    }

    pub fn accept_token(&self, token: &str, user: &str, audiences: &[&str]) {
        let audiences = audiences
            .iter()
            .map(|audience| (*audience).to_owned())
            .collect();
        self.state
            .state
            .lock()
            .tokens
            .insert(token.to_owned(), (user.to_owned(), audiences));
    }

    /// A user who may list the Secrets of a namespace.
    pub fn let_read_secrets(&self, user: &str, namespace: &str) {
        let reader = format!("{user} {namespace}");
        self.state.state.lock().readers.insert(reader);
    }

    /// Every write of objects of this name answers 500.
    pub fn fail_writes_of(&self, name: &str) {
        self.state.state.lock().failing_object = Some(name.to_owned());
    }

    /// The next `count` writes answer 500.
    pub fn fail_writes(&self, count: usize) {
        self.state.state.lock().failing_writes = count;
    }

    pub fn reviews(&self) -> usize {
        self.state.state.lock().reviews
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state
            .state
            .lock()
            .objects
            .get(&(plural.to_owned(), namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Waits until an object is as wanted.
    pub async fn wait_for(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut version = self.state.version.subscribe();
        let found = async {
            loop {
                version.borrow_and_update();
                if let Some(object) = self
                    .get(plural, namespace, name)
                    .filter(|object| wanted(object))
                {
                    return object;
                }
                version.changed().await.expect("the API lives");
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| {
            panic!(
                "{plural} {namespace}/{name} is {:?}",
                self.get(plural, namespace, name)
            )
        })
    }
}

enum Announce {
    Yes,
    No,
}

impl Shared {
    /// A kind's events after `position`, and whether some before them are forgotten.
    fn news(&self, plural: &str, position: u64) -> (Vec<(u64, Value)>, bool) {
        let state = self.state.lock();
        let events = state
            .events
            .iter()
            .filter(|(at, kind, _)| *at > position && kind == plural);
        (
            events.map(|(at, _, event)| (*at, event.clone())).collect(),
            position < state.oldest,
        )
    }

    fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let key = (
            plural.to_owned(),
            text("/metadata/namespace"),
            text("/metadata/name"),
        );
        let known = state.objects.insert(key, object.clone()).is_some();
        state.events.push((
            version,
            plural.to_owned(),
            json!({"type": if known { "MODIFIED" } else { "ADDED" }, "object": object}),
        ));
        drop(state);
        self.version.send_replace(version);
    }

    fn remove(&self, plural: &str, namespace: &str, name: &str, announce: Announce) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let mut object = state
            .objects
            .remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned()))
            .expect("an object to remove");
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        match announce {
            Announce::Yes => state.events.push((
                version,
                plural.to_owned(),
                json!({"type": "DELETED", "object": object}),
            )),
            Announce::No => {
                state.events.clear();
                state.oldest = version;
            }
        }
        drop(state);
        self.version.send_replace(version);
    }
}

pub fn plural_of(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.strip_suffix('y') {
        Some(stem) if !lower.ends_with("ay") => format!("{stem}ies"),
        _ if lower == "endpoints" => lower,
        _ => format!("{lower}s"),
    }
}

/// `plural`, namespace and name out of a path.
struct Target {
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
    is_status: bool,
}

fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] => {
            (Some((*namespace).to_owned()), [&[*plural], rest].concat())
        }
        other => (None, other.to_vec()),
    };
    let own = |part: Option<&&str>| part.map(|part| (*part).to_owned());
    Some(Target {
        plural: own(rest.first())?,
        namespace,
        name: own(rest.get(1)),
        is_status: rest.get(2) == Some(&"status"),
    })
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": reason, "code": code.as_u16()})
}

fn failure(code: StatusCode, reason: &str) -> Response {
    (code, axum::Json(status(code, reason))).into_response()
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let Some(target) = target(uri.path()) else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    if shared.state.lock().unserved.contains(&target.plural) {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    }
    let query = uri.query().unwrap_or_default();
    match (&method, target.plural.as_str()) {
        (&Method::GET, _) if target.name.is_some() => read(&shared, &target),
        (&Method::GET, plural) if query.contains("watch=true") => {
            events(shared.clone(), plural.to_owned(), query)
        }
        (&Method::GET, plural) => list(&shared, plural),
        (&Method::POST, "tokenreviews") => review(&shared, &body),
        (&Method::POST, "subjectaccessreviews") => access_review(&shared, &body),
        _ => write(&shared, &target, &body),
    }
}

fn read(shared: &Shared, target: &Target) -> Response {
    let key = (
        target.plural.clone(),
        target.namespace.clone().unwrap_or_default(),
        target.name.clone().unwrap_or_default(),
    );
    match shared.state.lock().objects.get(&key) {
        Some(object) => axum::Json(object).into_response(),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// As an API server's: items without their kind.
fn list(shared: &Shared, plural: &str) -> Response {
    let state = shared.state.lock();
    let mut items: Vec<Value> = state
        .objects
        .iter()
        .filter(|((kind, _, _), _)| kind == plural)
        .map(|(_, object)| object.clone())
        .collect();
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("kind");
        item.remove("apiVersion");
    }
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string()}, "items": items})).into_response()
}

fn events(shared: Arc<Shared>, plural: String, query: &str) -> Response {
    let since = query
        .split('&')
        .find_map(|part| part.strip_prefix("resourceVersion="))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move {
        let mut position = since;
        let mut version = shared.version.subscribe();
        loop {
            version.borrow_and_update();
            let (news, is_expired) = shared.news(&plural, position);
            for (at, event) in news {
                position = at;
                if sender.send(Ok(line(&event))).await.is_err() {
                    return;
                }
            }
            if is_expired {
                // As a real API server: the refusal is an event of the watch. Nobody listening is
                // no matter.
                let _ = sender
                    .send(Ok(line(
                        &json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")}),
                    )))
                    .await;
                return;
            }
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

fn review(shared: &Shared, body: &[u8]) -> Response {
    let review: Value = serde_json::from_slice(body).expect("a review");
    let mut state = shared.state.lock();
    state.reviews += 1;
    let asked: Vec<String> =
        serde_json::from_value(review["spec"]["audiences"].clone()).expect("audiences");
    let found = state
        .tokens
        .get(review["spec"]["token"].as_str().unwrap_or_default());
    let status = match found {
        None => json!({"authenticated": false, "error": "unknown token"}),
        Some((user, audiences)) => {
            let common: Vec<&String> = audiences
                .iter()
                .filter(|audience| asked.contains(audience))
                .collect();
            json!({"authenticated": true, "user": {"username": user}, "audiences": common})
        }
    };
    let answer = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": status});
    (StatusCode::CREATED, axum::Json(answer)).into_response()
}

fn access_review(shared: &Shared, body: &[u8]) -> Response {
    let review: Value = serde_json::from_slice(body).expect("a review");
    let text = |pointer: &str| review.pointer(pointer).and_then(Value::as_str);
    let asked = "/spec/resourceAttributes";
    let what = [
        text(&format!("{asked}/resource")),
        text(&format!("{asked}/verb")),
    ];
    let reader = [text("/spec/user"), text(&format!("{asked}/namespace"))]
        .map(Option::unwrap_or_default)
        .join(" ");
    let allowed =
        what == [Some("secrets"), Some("list")] && shared.state.lock().readers.contains(&reader);
    let answer = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {}, "status": {"allowed": allowed}});
    (StatusCode::CREATED, axum::Json(answer)).into_response()
}

/// Create, or a merge patch or an apply of the whole object or of its status, refused for another
/// version.
fn write(shared: &Shared, target: &Target, body: &[u8]) -> Response {
    {
        let mut state = shared.state.lock();
        if target.name.is_some() && state.failing_object == target.name {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        if state.failing_writes > 0 {
            state.failing_writes -= 1;
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
    }
    let sent: Value = serde_json::from_slice(body).expect("JSON");
    let namespace = target.namespace.clone().unwrap_or_default();
    let object = match &target.name {
        None => {
            let mut object = sent;
            object["metadata"]["namespace"] = json!(namespace);
            object
        }
        Some(name) => {
            let key = (target.plural.clone(), namespace, name.clone());
            let Some(mut object) = shared.state.lock().objects.get(&key).cloned() else {
                return failure(StatusCode::NOT_FOUND, "NotFound");
            };
            let before = object.clone();
            let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
            if version(&sent).is_some_and(|sent| Some(sent) != version(&object)) {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
            let patch = if target.is_status {
                json!({"status": sent["status"]})
            } else {
                sent
            };
            merge(&mut object, &patch);
            // A patch that changes nothing makes no event.
            if object == before {
                return axum::Json(object).into_response();
            }
            object
        }
    };
    shared.put(&target.plural, object.clone());
    axum::Json(object).into_response()
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut into[name.as_str()], value);
        }
    }
}
