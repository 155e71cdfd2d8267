//! Reading and writing objects: the verbs of the API server.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{Answer, json as respond, read_body};
use super::route::{self, Target};
use super::shape::Shape;
use super::{connect, logs, patch, review, warnings, watch};
use crate::context::Context;
use crate::object;
use crate::store::kinds::Kind;
use crate::store::selector::{Fields, Labels};
use crate::store::{Deletion, Part, Refusal, Store};

/// Which objects of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// By namespace.
    pub namespace: Option<String>,
    /// By name (a watch on one object).
    pub name: Option<String>,
    /// By labels.
    pub labels: Labels,
    /// By fields.
    pub fields: Fields,
}

impl Filter {
    fn parse(target: &Target, query: Option<&str>) -> Result<Self, Refusal> {
        let query = route::query(query);
        let text = |name: &str| query.get(name).map_or("", String::as_str);
        Ok(Self {
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            labels: Labels::parse(text("labelSelector")).map_err(Refusal::BadRequest)?,
            fields: Fields::parse(text("fieldSelector")).map_err(Refusal::BadRequest)?,
        })
    }

    /// Whether an object is wanted.
    pub fn matches(&self, object: &Value) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| namespace == object::namespace(object))
            && self
                .name
                .as_deref()
                .is_none_or(|name| name == object::name(object))
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

/// An object as the asked version has it.
pub fn versioned(kind: &Kind, version: &str, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = kind.in_version(version).into();
    object["kind"] = kind.kind.into();
    object
}

/// Answers a request about objects.
pub async fn handle(context: Arc<Context>, target: Target, request: Request<Incoming>) -> Answer {
    let query = request.uri().query().map(String::from);
    match (target.part.as_deref(), target.kind.plural) {
        (Some("log"), "pods") => return logs::handle(&context, &target, query.as_deref()),
        (Some("exec"), "pods") => return connect::exec(context, &target, request).await,
        (Some("proxy"), "pods" | "services") => {
            return connect::proxy(context, &target, request).await;
        }
        (Some("token"), "serviceaccounts") => {
            return review::token_request(&context, &target, &read_body(request).await?);
        }
        (Some("scale"), _) => {
            let store = store_for(&context, query.as_deref())?;
            return scale(&store, &target, request).await;
        }
        (None | Some("status" | "finalize"), _) => {}
        (
            Some(part @ ("attach" | "portforward" | "eviction" | "ephemeralcontainers" | "resize")),
            "pods",
        ) => {
            return Err(Refusal::NotImplemented(not_on_one_machine(part).into()));
        }
        (Some(part), _) => {
            return Err(Refusal::NotFound {
                kind: format!("{}/{part}", target.kind.qualified()),
                name: target.name.unwrap_or_default(),
            });
        }
    }
    object_itself(context, target, request, query).await
}

/// What this API has not, with what does the same.
fn not_on_one_machine(part: &str) -> &'static str {
    match part {
        "attach" => {
            "attaching to a container is not supported: use `logs -f` for its output and `exec` for a shell beside it"
        }
        "portforward" => {
            "forwarding ports is not supported: a Service of type LoadBalancer or NodePort is published on 127.0.0.1 (`tanbark status` lists the URLs), and `exec POD -- curl …` asks from within"
        }
        "eviction" => "evicting pods is not supported: delete the pod, or restart its workload",
        "ephemeralcontainers" => {
            "ephemeral containers are not supported: `exec` runs a command in a container of the pod"
        }
        _ => {
            "changing the resources of a running pod is not supported: containers have no limits here"
        }
    }
}

/// The objects themselves, or a copy to try a change on (`dryRun=All`).
fn store_for(context: &Context, query: Option<&str>) -> Result<Arc<Store>, Refusal> {
    match route::query(query).get("dryRun").map(String::as_str) {
        None => Ok(context.store.clone()),
        Some("All") => Ok(Arc::new(context.store.trial())),
        Some(other) => Err(Refusal::BadRequest(format!(
            "dryRun={other} is not known: only dryRun=All is"
        ))),
    }
}

/// As [`store_for`]: a deletion may say it in its options (`DeleteOptions.dryRun`), as kubectl
/// does.
fn store_for_deletion(store: Arc<Store>, options: &Value) -> Result<Arc<Store>, Refusal> {
    match object::list(options, "/dryRun") {
        [] => Ok(store),
        [only] if only == "All" => Ok(Arc::new(store.trial())),
        _ => Err(Refusal::BadRequest(
            "dryRun: only [\"All\"] is known".into(),
        )),
    }
}

async fn object_itself(
    context: Arc<Context>,
    target: Target,
    request: Request<Incoming>,
    query: Option<String>,
) -> Answer {
    let part = if target.part.as_deref() == Some("status") {
        Part::Status
    } else {
        Part::Main
    };
    let method = request.method().clone();
    let shape = Shape::of(request.headers(), query.as_deref());
    let store = store_for(&context, query.as_deref())?;
    let one = |code: StatusCode, object: &Value| {
        let object = versioned(target.kind, &target.version, object);
        let version = object::text(&object, "/metadata/resourceVersion").to_owned();
        let rows = std::slice::from_ref(&object);
        respond(
            code,
            &shape.dress(target.kind, rows, &version, object.clone()),
        )
    };
    let written = |code: StatusCode, object: &Value| {
        let mut response = one(code, object);
        if part == Part::Main {
            warnings::add(&mut response, &context, &target, object);
        }
        Ok(response)
    };
    match (method, target.name.clone()) {
        (Method::GET, Some(name)) if watching(query.as_deref()).is_none() => {
            let object = store.read(target.kind, namespace_of(&target), &name)?;
            Ok(one(StatusCode::OK, &object))
        }
        (Method::GET, _) => list(&context, &target, query.as_deref(), shape),
        (Method::POST, None) => {
            let object = create(&store, &target, read_body(request).await?)?;
            written(StatusCode::CREATED, &object)
        }
        (Method::PUT, Some(name)) => {
            let object = placed(&target, &name, read_body(request).await?)?;
            let object = store.update(target.kind, object, part)?;
            written(StatusCode::OK, &object)
        }
        (Method::PATCH, Some(name)) => {
            let applies = patch_type(&request) == APPLY;
            let (code, object) = patch_object(&store, &target, &name, part, request).await?;
            let mut response = written(code, &object)?;
            if applies && code == StatusCode::OK {
                warnings::push(&mut response, ONLY_MERGED);
            }
            Ok(response)
        }
        (Method::DELETE, name) => {
            let options = read_body(request).await?;
            let store = store_for_deletion(store, &options)?;
            let Some(name) = name else {
                return delete_all(&store, &target, query.as_deref(), &options);
            };
            let how = deletion(query.as_deref(), &options);
            let object = store.delete(target.kind, namespace_of(&target), &name, &how)?;
            Ok(one(StatusCode::OK, &object))
        }
        (method, _) => Err(Refusal::NotAllowed(format!(
            "the server does not allow {method} on this path"
        ))),
    }
}

fn delete_all(store: &Store, target: &Target, query: Option<&str>, body: &Value) -> Answer {
    let filter = Filter::parse(target, query)?;
    let how = deletion(query, body);
    let (objects, _) = store.list(target.kind, target.namespace.as_deref());
    for object in objects.iter().filter(|object| filter.matches(object)) {
        let (namespace, name) = (object::namespace(object), object::name(object));
        // One that went meanwhile is what was asked for.
        let _ = store.delete(target.kind, namespace, name, &how);
    }
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(respond(StatusCode::OK, &done))
}

fn namespace_of(target: &Target) -> &str {
    match target.kind.namespaced() {
        true => target.namespace.as_deref().unwrap_or("default"),
        false => "",
    }
}

fn watching(query: Option<&str>) -> Option<u64> {
    let query = route::query(query);
    let on = query
        .get("watch")
        .is_some_and(|value| !matches!(value.as_str(), "0" | "false"));
    on.then(|| {
        query
            .get("resourceVersion")
            .and_then(|version| version.parse().ok())
            .unwrap_or(0)
    })
}

fn list(context: &Arc<Context>, target: &Target, query: Option<&str>, shape: Shape) -> Answer {
    let filter = Filter::parse(target, query)?;
    if let Some(version) = watching(query) {
        let bookmarks = route::query(query)
            .get("allowWatchBookmarks")
            .is_some_and(|value| value != "false");
        let seconds = route::query(query)
            .get("timeoutSeconds")
            .and_then(|text| text.parse().ok());
        let lists = route::query(query)
            .get("sendInitialEvents")
            .is_some_and(|value| value == "true");
        let wish = watch::Wish {
            version,
            lists,
            bookmarks,
            seconds,
            shape,
        };
        return Ok(watch::respond(context.store.clone(), target, filter, wish));
    }
    let (objects, version) = context.store.list(target.kind, target.namespace.as_deref());
    let items: Vec<Value> = objects
        .iter()
        .filter(|object| filter.matches(object))
        .map(|object| versioned(target.kind, &target.version, object))
        .collect();
    let version = version.to_string();
    let plain = match shape {
        Shape::Table(_) => Value::Null,
        Shape::Objects => json!({
            "kind": format!("{}List", target.kind.kind), "apiVersion": target.kind.in_version(&target.version),
            "metadata": {"resourceVersion": version}, "items": items,
        }),
    };
    Ok(respond(
        StatusCode::OK,
        &shape.dress(target.kind, &items, &version, plain),
    ))
}

/// The object with the namespace and name of its path.
fn placed(target: &Target, name: &str, mut object: Value) -> Result<Value, Refusal> {
    if !object.is_object() {
        return Err(Refusal::BadRequest("the body is not an object".into()));
    }
    let own = object::name(&object);
    if !own.is_empty() && own != name {
        return Err(Refusal::BadRequest(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    object::set_metadata(&mut object, "name", name);
    in_namespace(target, object)
}

fn in_namespace(target: &Target, mut object: Value) -> Result<Value, Refusal> {
    let kind = object::text(&object, "/kind");
    if !kind.is_empty() && kind != target.kind.kind {
        return Err(Refusal::BadRequest(format!(
            "{kind} in the body, {} on the URL",
            target.kind.kind
        )));
    }
    if target.kind.namespaced() {
        let wanted = namespace_of(target);
        let own = object::namespace(&object);
        if !own.is_empty() && own != wanted {
            return Err(Refusal::BadRequest(format!(
                "the namespace of the object ({own}) does not match the namespace on the URL ({wanted})"
            )));
        }
        object::set_metadata(&mut object, "namespace", wanted);
    }
    Ok(object)
}

fn create(store: &Store, target: &Target, object: Value) -> Result<Arc<Value>, Refusal> {
    if !object.is_object() {
        return Err(Refusal::BadRequest("the body is not an object".into()));
    }
    store.create(target.kind, in_namespace(target, object)?)
}

fn deletion(query: Option<&str>, options: &Value) -> Deletion {
    let query = route::query(query);
    let text = |name: &str| {
        query
            .get(name)
            .cloned()
            .or_else(|| options.get(name)?.as_str().map(String::from))
    };
    let grace = query
        .get("gracePeriodSeconds")
        .and_then(|text| text.parse().ok())
        .or_else(|| object::number(options, "/gracePeriodSeconds"));
    let uid = options
        .pointer("/preconditions/uid")
        .and_then(Value::as_str)
        .map(String::from);
    Deletion {
        grace_seconds: grace,
        uid,
        orphan: text("propagationPolicy").as_deref() == Some("Orphan"),
    }
}

/// What a server-side apply of a present object is answered with.
const ONLY_MERGED: &str = "server-side apply only merges here, since fields have no owners: what the object no longer says stays (apply without --server-side removes it)";
/// The type of a server-side apply's body.
const APPLY: &str = "application/apply-patch+yaml";

fn patch_type(request: &Request<Incoming>) -> String {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    let kind = kind
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().to_string()
}

async fn patch_object(
    store: &Store,
    target: &Target,
    name: &str,
    part: Part,
    request: Request<Incoming>,
) -> Result<(StatusCode, Arc<Value>), Refusal> {
    let kind = patch_type(&request);
    let body = read_body(request).await?;
    let namespace = namespace_of(target);
    if kind == APPLY && store.find(target.kind, namespace, name).is_none() {
        let object = create(store, target, placed(target, name, body)?)?;
        return Ok((StatusCode::CREATED, object));
    }
    let object = store.change(target.kind, namespace, name, part, |present| {
        let mut next = present.clone();
        match kind.as_str() {
            "application/json-patch+json" => {
                patch::apply_json(&mut next, &body).map_err(Refusal::Invalid)?
            }
            "application/merge-patch+json" => json_patch::merge(&mut next, &body),
            "application/strategic-merge-patch+json" | APPLY => {
                patch::merge_strategic(&mut next, &body)
            }
            other => {
                return Err(Refusal::BadRequest(format!(
                    "patches of type `{other}` are not supported"
                )));
            }
        }
        let wanted = object::version(&body);
        if wanted != 0 && wanted != object::version(present) {
            return Err(Refusal::Conflict {
                kind: target.kind.qualified(),
                name: name.into(),
            });
        }
        Ok(next)
    })?;
    Ok((StatusCode::OK, object))
}

async fn scale(store: &Store, target: &Target, request: Request<Incoming>) -> Answer {
    let name = target.name.clone().unwrap_or_default();
    let namespace = namespace_of(target).to_string();
    let method = request.method().clone();
    let mut object = store.read(target.kind, &namespace, &name)?;
    if method == Method::PUT || method == Method::PATCH {
        let body = read_body(request).await?;
        let replicas = object::number(&body, "/spec/replicas").filter(|replicas| *replicas >= 0);
        let replicas = replicas.ok_or_else(|| {
            Refusal::Invalid("spec.replicas: must be a number that is not negative".into())
        })?;
        object = store.change(target.kind, &namespace, &name, Part::Main, |present| {
            let mut next = present.clone();
            object::entry(&mut next, "spec").insert("replicas".into(), replicas.into());
            Ok(next)
        })?;
    } else if method != Method::GET {
        return Err(Refusal::NotAllowed(format!(
            "the server does not allow {method} on scale"
        )));
    }
    let labels: Vec<String> = object::texts(&object, "/spec/selector/matchLabels")
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Ok(respond(
        StatusCode::OK,
        &json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": name, "namespace": namespace, "uid": object::uid(&object), "resourceVersion": object::text(&object, "/metadata/resourceVersion")},
            "spec": {"replicas": object::number(&object, "/spec/replicas").unwrap_or(0)},
            "status": {"replicas": object::number(&object, "/status/replicas").unwrap_or(0), "selector": labels.join(",")},
        }),
    ))
}
