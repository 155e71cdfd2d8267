//! `pods/NAME/log`: a container's output from its file.

use std::convert::Infallible;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::answer::{Answer, text};
use super::route::{self, Target};
use crate::context::Context;
use crate::logs::{parse_line, path_of, previous_path_of};
use crate::object;
use crate::store::Refusal;
use crate::store::kinds::PODS;

/// How often a followed file is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);

struct Wanted {
    path: PathBuf,
    follow: bool,
    tail: Option<usize>,
    timestamps: bool,
    since: Option<jiff::Timestamp>,
    limit: Option<usize>,
}

/// Answers with the log, to its end or as it grows.
pub fn handle(context: &Arc<Context>, target: &Target, query: Option<&str>) -> Answer {
    let namespace = target.namespace.clone().unwrap_or_else(|| "default".into());
    let name = target.name.clone().unwrap_or_default();
    let pod = context.store.read(&PODS, &namespace, &name)?;
    let query = route::query(query);
    let on = |key: &str| {
        query
            .get(key)
            .is_some_and(|value| value == "true" || value == "1")
    };
    let container = container_of(&pod, query.get("container").map(String::as_str))?;
    let logs = context.state.logs();
    let path = match on("previous") {
        true => previous_path_of(&logs, &namespace, &name, &container),
        false => path_of(&logs, &namespace, &name, &container),
    };
    if !path.exists() {
        let message = match on("previous") {
            true => {
                format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
            }
            false => format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                waiting_reason(&pod, &container)
            ),
        };
        return Err(Refusal::BadRequest(message));
    }
    let seconds = query
        .get("sinceSeconds")
        .and_then(|text| text.parse::<i64>().ok());
    let since = query
        .get("sinceTime")
        .map(|text| {
            text.parse::<jiff::Timestamp>().map_err(|_| {
                Refusal::BadRequest(format!("sinceTime={text}: not a time of RFC 3339"))
            })
        })
        .transpose()?;
    let wanted = Wanted {
        path,
        follow: on("follow"),
        tail: query.get("tailLines").and_then(|text| text.parse().ok()),
        timestamps: on("timestamps"),
        since: seconds
            .and_then(|seconds| {
                object::timestamp()
                    .checked_sub(jiff::SignedDuration::from_secs(seconds))
                    .ok()
            })
            .or(since),
        limit: query.get("limitBytes").and_then(|text| text.parse().ok()),
    };
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(64);
    let context = context.clone();
    // task: one log that is read; ends with the log or its client
    tokio::spawn(async move {
        if let Err(error) = send_lines(&context, &pod, &container, wanted, sender).await {
            tracing::debug!(%error, "a log could not be read");
        }
    });
    let mut response = text(Bytes::new());
    *response.body_mut() =
        StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)).boxed_unsync();
    Ok(response)
}

/// Why a container has not started.
fn waiting_reason<'a>(pod: &'a Value, container: &str) -> &'a str {
    let mut statuses = ["/status/containerStatuses", "/status/initContainerStatuses"]
        .iter()
        .flat_map(|pointer| object::list(pod, pointer));
    let status = statuses.find(|status| object::text(status, "/name") == container);
    match status.map_or("", |status| object::text(status, "/state/waiting/reason")) {
        "" => "ContainerCreating",
        reason => reason,
    }
}

/// The named container, or the default one, or the only one.
pub fn container_of(pod: &Value, wanted: Option<&str>) -> Result<String, Refusal> {
    let all: Vec<&str> = ["/spec/containers", "/spec/initContainers"]
        .iter()
        .flat_map(|pointer| object::list(pod, pointer))
        .map(|container| object::text(container, "/name"))
        .collect();
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        return match all.contains(&wanted) {
            true => Ok(wanted.into()),
            false => Err(Refusal::BadRequest(format!(
                "container {wanted} is not valid for pod {}",
                object::name(pod)
            ))),
        };
    }
    let annotations = object::annotations(pod);
    let default = annotations
        .get("kubectl.kubernetes.io/default-container")
        .cloned();
    let first = object::text(pod, "/spec/containers/0/name").to_string();
    Ok(default
        .filter(|name| all.contains(&name.as_str()))
        .unwrap_or(first))
}

async fn send_lines(
    context: &Context,
    pod: &Value,
    container: &str,
    wanted: Wanted,
    sender: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
) -> std::io::Result<()> {
    let mut file = File::open(&wanted.path).await?;
    if let Some(lines) = wanted.tail {
        let start = start_of_tail(&wanted.path, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    let mut read: u64 = 0;
    let mut left = wanted.limit.unwrap_or(usize::MAX);
    loop {
        let length = reader.read_line(&mut line).await?;
        read += length as u64;
        if line.ends_with('\n') {
            let mut output = shown(line.trim_end_matches('\n'), &wanted).into_bytes();
            line.clear();
            output.truncate(left);
            left -= output.len();
            if left == 0 {
                let _ = sender.send(Ok(Frame::data(output.into()))).await;
                return Ok(());
            }
            if !output.is_empty() && sender.send(Ok(Frame::data(output.into()))).await.is_err() {
                return Ok(());
            }
            continue;
        }
        if !wanted.follow {
            return Ok(());
        }
        let over =
            !context.pods.lock().contains_key(object::uid(pod)) || !runs(context, pod, container);
        // A file that was begun anew or rotated is shorter than what was read of it.
        let size = tokio::fs::metadata(&wanted.path)
            .await
            .map_or(0, |metadata| metadata.len());
        if over && length == 0 {
            return Ok(());
        }
        if size < read && length == 0 && wanted.tail.is_none() {
            reader = BufReader::new(File::open(&wanted.path).await?);
            read = 0;
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_PERIOD) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

fn runs(context: &Context, pod: &Value, container: &str) -> bool {
    let pods = context.pods.lock();
    let Some(pod) = pods.get(object::uid(pod)) else {
        return false;
    };
    let containers = pod.containers.lock();
    containers.iter().any(|status| {
        status.name == container && !matches!(status.doing, crate::pod::status::Doing::Ended(_))
    })
}

fn shown(line: &str, wanted: &Wanted) -> String {
    let Some((time, whole, text)) = parse_line(line) else {
        return String::new();
    };
    if let (Some(since), Ok(time)) = (wanted.since, time.parse::<jiff::Timestamp>())
        && time < since
    {
        return String::new();
    }
    let end = if whole { "\n" } else { "" };
    if wanted.timestamps {
        format!("{time} {text}{end}")
    } else {
        format!("{text}{end}")
    }
}

/// Where the last lines begin.
async fn start_of_tail(path: &std::path::Path, lines: usize) -> std::io::Result<u64> {
    let text = tokio::fs::read(path).await?;
    let mut ends = text
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at as u64 + 1);
    Ok(match lines {
        0 => text.len() as u64,
        lines => ends.nth(lines).unwrap_or(0),
    })
}
