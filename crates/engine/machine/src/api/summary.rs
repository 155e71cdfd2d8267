//! `/tanbark/v1/summary`: what `up` and `status` print, as one object.

use serde_json::{Value, json};

use crate::context::Context;
use crate::controllers::action::{finished, ready};
use crate::object;
use crate::publish::ANNOTATION;
use crate::store::kinds::{EVENTS, PODS, SERVICES};

/// Pods by how they are, published URLs, and everything that went wrong.
///
/// `{"pods": {"total", "ready"}, "notReady": [{"pod", "reason", "message"}], "urls": [{"service", "port", "name", "address"}],
/// "problems": ["file:line:column: text"], "warnings": [{"object", "reason", "message"}]}`
pub fn summary(context: &Context) -> Value {
    let pods = context.store.all(&PODS);
    let fine = |pod: &&std::sync::Arc<Value>| {
        ready(pod) || object::text(pod, "/status/phase") == "Succeeded"
    };
    let not_ready: Vec<Value> = pods
        .iter()
        .filter(|pod| !fine(pod) && !object::deleting(pod))
        .map(|pod| {
            let (reason, message) = waiting(pod);
            json!({"pod": format!("{}/{}", object::namespace(pod), object::name(pod)), "reason": reason, "message": message})
        })
        .collect();
    let mut urls = Vec::new();
    for service in context.store.all(&SERVICES) {
        for entry in object::annotations(&service)
            .get(ANNOTATION)
            .map_or("", String::as_str)
            .split(',')
        {
            let Some((port, address)) = entry.split_once('=') else {
                continue;
            };
            let mut ports = object::list(&service, "/spec/ports").iter();
            let name = ports
                .find(|given| {
                    object::number(given, "/port").is_some_and(|number| number.to_string() == port)
                })
                .map_or("", |given| object::text(given, "/name"));
            urls.push(json!({"service": format!("{}/{}", object::namespace(&service), object::name(&service)), "port": port.parse::<u16>().unwrap_or(0), "name": name, "address": address}));
        }
    }
    let problems: Vec<String> = context
        .problems
        .lock()
        .values()
        .flatten()
        .cloned()
        .collect();
    let warnings: Vec<Value> = context
        .store
        .all(&EVENTS)
        .iter()
        .filter(|event| object::text(event, "/type") == "Warning")
        .filter(|event| !is_over(context, event))
        .map(|event| {
            let about = format!("{} {}/{}", object::text(event, "/involvedObject/kind"), object::text(event, "/involvedObject/namespace"), object::text(event, "/involvedObject/name"));
            json!({"object": about, "reason": object::text(event, "/reason"), "message": object::text(event, "/message"), "time": object::text(event, "/lastTimestamp")})
        })
        .collect();
    json!({
        "pods": {"total": pods.len(), "ready": pods.iter().filter(|pod| fine(pod)).count()}, "notReady": not_ready,
        "settled": not_ready.is_empty() && pods.iter().all(|pod| ready(pod) || finished(pod)),
        "urls": urls, "problems": problems, "warnings": warnings,
    })
}

/// What is not done for a pod matters while there is the pod.
fn is_over(context: &Context, event: &Value) -> bool {
    let of = |field: &str| object::text(event, &format!("/involvedObject/{field}")).to_string();
    if object::text(event, "/reason") != "Unsupported" || of("kind") != "Pod" {
        return false;
    }
    let pod = context.store.find(&PODS, &of("namespace"), &of("name"));
    pod.is_none_or(|pod| object::uid(&pod) != of("uid"))
}

/// Why a pod is not ready: the first container that waits, or that is not ready.
fn waiting(pod: &Value) -> (String, String) {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"]
        .iter()
        .flat_map(|pointer| object::list(pod, pointer));
    let mut reason = ("Pending".to_string(), String::new());
    for status in statuses {
        let name = object::text(status, "/name");
        let of = |state: &str| {
            (
                object::text(status, &format!("/state/{state}/reason")).to_string(),
                object::text(status, &format!("/state/{state}/message")),
            )
        };
        let (waits, message) = of("waiting");
        if !waits.is_empty() && waits != "PodInitializing" {
            return (waits, format!("container {name}: {message}"));
        }
        let (ended, message) = of("terminated");
        if !ended.is_empty() && ended != "Completed" {
            return (ended, format!("container {name}: {message}"));
        }
        if !object::flag(status, "/ready") && status.pointer("/state/running").is_some() {
            reason = ("NotReady".into(), format!("container {name} is not ready"));
        }
    }
    reason
}
