//! Reading and writing objects: the verbs of the API server.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::route::{self, Target};
use super::{Answer, connect, json as respond, logs, patch, read_body, review, watch};
use crate::kubelet::Context;
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
    if route::query(query.as_deref()).contains_key("dryRun") {
        return Err(Refusal::BadRequest("dryRun is not supported".into()));
    }
    match (target.part.as_deref(), target.kind.plural) {
        (Some("log"), "pods") => return logs::handle(&context, &target, query.as_deref()),
        (Some("exec"), "pods") => return connect::exec(context, &target, request).await,
        (Some("proxy"), "pods" | "services") => {
            return connect::proxy(context, &target, request).await;
        }
        (Some("token"), "serviceaccounts") => {
            return review::token_request(&context, &target, &read_body(request).await?);
        }
        (Some("scale"), _) => return scale(&context.store, &target, request).await,
        (None | Some("status" | "finalize"), _) => {}
        (Some(part), _) => {
            return Err(Refusal::NotFound {
                kind: format!("{}/{part}", target.kind.qualified()),
                name: target.name.unwrap_or_default(),
            });
        }
    }
    object_itself(context, target, request, query).await
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
    match (method, target.name.clone()) {
        (Method::GET, Some(name)) if watching(query.as_deref()).is_none() => {
            let object = context
                .store
                .read(target.kind, namespace_of(&target), &name)?;
            Ok(respond(
                StatusCode::OK,
                &versioned(target.kind, &target.version, &object),
            ))
        }
        (Method::GET, _) => list(&context, &target, query.as_deref()),
        (Method::POST, None) => create(&context.store, &target, read_body(request).await?),
        (Method::PUT, Some(name)) => {
            let object = placed(&target, &name, read_body(request).await?)?;
            let object = context.store.update(target.kind, object, part)?;
            Ok(respond(
                StatusCode::OK,
                &versioned(target.kind, &target.version, &object),
            ))
        }
        (Method::PATCH, Some(name)) => {
            patch_object(&context.store, &target, &name, part, request).await
        }
        (Method::DELETE, Some(name)) => {
            let how = deletion(query.as_deref(), &read_body(request).await?);
            let object = context
                .store
                .delete(target.kind, namespace_of(&target), &name, &how)?;
            Ok(respond(
                StatusCode::OK,
                &versioned(target.kind, &target.version, &object),
            ))
        }
        (Method::DELETE, None) => {
            let body = read_body(request).await?;
            delete_all(&context.store, &target, query.as_deref(), &body)
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

fn list(context: &Arc<Context>, target: &Target, query: Option<&str>) -> Answer {
    let filter = Filter::parse(target, query)?;
    if let Some(version) = watching(query) {
        let bookmarks = route::query(query)
            .get("allowWatchBookmarks")
            .is_some_and(|value| value != "false");
        let seconds = route::query(query)
            .get("timeoutSeconds")
            .and_then(|text| text.parse().ok());
        return Ok(watch::respond(
            context.store.clone(),
            target,
            filter,
            version,
            bookmarks,
            seconds,
        ));
    }
    let (objects, version) = context.store.list(target.kind, target.namespace.as_deref());
    let items: Vec<Value> = objects
        .iter()
        .filter(|object| filter.matches(object))
        .map(|object| versioned(target.kind, &target.version, object))
        .collect();
    Ok(respond(
        StatusCode::OK,
        &json!({
            "kind": format!("{}List", target.kind.kind), "apiVersion": target.kind.in_version(&target.version),
            "metadata": {"resourceVersion": version.to_string()}, "items": items,
        }),
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

fn create(store: &Store, target: &Target, object: Value) -> Answer {
    if !object.is_object() {
        return Err(Refusal::BadRequest("the body is not an object".into()));
    }
    let object = store.create(target.kind, in_namespace(target, object)?)?;
    Ok(respond(
        StatusCode::CREATED,
        &versioned(target.kind, &target.version, &object),
    ))
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

async fn patch_object(
    store: &Store,
    target: &Target,
    name: &str,
    part: Part,
    request: Request<Incoming>,
) -> Answer {
    let kind = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_string();
    let body = read_body(request).await?;
    let namespace = namespace_of(target);
    if kind == "application/apply-patch+yaml" && store.find(target.kind, namespace, name).is_none()
    {
        return create(store, target, placed(target, name, body)?);
    }
    let object = store.change(target.kind, namespace, name, part, |present| {
        let mut next = present.clone();
        match kind.as_str() {
            "application/json-patch+json" => {
                patch::apply_json(&mut next, &body).map_err(Refusal::Invalid)?
            }
            "application/merge-patch+json" => patch::merge(&mut next, &body),
            "application/strategic-merge-patch+json" | "application/apply-patch+yaml" => {
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
    Ok(respond(
        StatusCode::OK,
        &versioned(target.kind, &target.version, &object),
    ))
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
