//! Watches: the changes of a list as a stream of lines.
//!
//! A client that cannot keep up is slowed by its connection, not by memory here: changes are read
//! from the store's history when there is room for them; who falls out of the history gets `410
//! Expired` and lists again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answer::Body;
use super::resource::{Filter, versioned};
use super::route::Target;
use super::shape::Shape;
use crate::object;
use crate::store::{Change, Happening, Store, status_object};

/// Lines that wait for a client.
const MAX_WAITING_LINES: usize = 64;
/// Changes that are read from the history at once.
const BATCH: usize = 256;
/// How often a client that asked for it learns the version.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// The longest watch, as the API server's.
const MAX_DURATION: Duration = Duration::from_secs(3_600);

/// How a client wants to watch.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// From here on; 0: from what is there, which comes first.
    pub version: u64,
    /// It lists by watching (`sendInitialEvents`): what is there comes first, and then a bookmark
    /// that says so.
    pub lists: bool,
    /// It wants to learn the version from time to time.
    pub bookmarks: bool,
    /// After which the watch ends.
    pub seconds: Option<u64>,
    /// Objects or rows.
    pub shape: Shape,
}

/// The response of a watch.
pub fn respond(store: Arc<Store>, target: &Target, filter: Filter, wish: Wish) -> Response<Body> {
    let Wish {
        version,
        lists,
        bookmarks,
        seconds,
        shape,
    } = wish;
    let version = if lists { 0 } else { version };
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(MAX_WAITING_LINES);
    let watch = Watch {
        store,
        target: target.clone(),
        filter,
        lists,
        bookmarks,
        shape,
        sender,
    };
    let end = Instant::now()
        + seconds
            .map_or(MAX_DURATION, Duration::from_secs)
            .min(MAX_DURATION);
    // task: one watch; ends with its client, or at the asked time, MAX_DURATION at the latest
    tokio::spawn(async move {
        tokio::select! {
            _ = watch.run(version) => {}
            () = sleep_until(end) => {}
        }
    });
    let body =
        StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

struct Watch {
    store: Arc<Store>,
    target: Target,
    filter: Filter,
    lists: bool,
    bookmarks: bool,
    shape: Shape,
    sender: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
}

impl Watch {
    /// `None` when the client is gone.
    async fn run(self, from: u64) -> Option<()> {
        let mut news = self.store.version();
        let mut version = from;
        if from == 0 {
            let (objects, now) = self
                .store
                .list(self.target.kind, self.target.namespace.as_deref());
            version = now;
            for object in objects.iter().filter(|object| self.filter.matches(object)) {
                self.send(
                    "ADDED",
                    &versioned(self.target.kind, &self.target.version, object),
                )
                .await?;
            }
        }
        if self.lists {
            let mut object = self.bookmark(version);
            object::annotate(&mut object, "k8s.io/initial-events-end", "true");
            self.send("BOOKMARK", &object).await?;
        }
        let mut bookmark = tokio::time::interval(BOOKMARK_PERIOD);
        bookmark.tick().await;
        loop {
            news.mark_unchanged();
            let changes = match self.store.changes_since(version, BATCH) {
                Ok(changes) => changes,
                Err(refusal) => {
                    self.send("ERROR", &status_object(&refusal)).await?;
                    return None;
                }
            };
            for change in &changes {
                version = change.version;
                if let Some((kind, object)) = seen(&self.filter, &self.target, change) {
                    self.send(
                        kind,
                        &versioned(self.target.kind, &self.target.version, object),
                    )
                    .await?;
                }
            }
            if changes.len() == BATCH {
                continue;
            }
            tokio::select! {
                changed = news.changed() => changed.ok()?,
                _ = bookmark.tick(), if self.bookmarks => {
                    self.send("BOOKMARK", &self.bookmark(version)).await?;
                }
                () = self.sender.closed() => return None,
            }
        }
    }

    async fn send(&self, kind: &str, object: &Value) -> Option<()> {
        let object = match kind {
            "ERROR" => object.clone(),
            "BOOKMARK" => self.dressed(&[], object),
            _ => self.dressed(std::slice::from_ref(object), object),
        };
        let mut line = json!({"type": kind, "object": object}).to_string();
        line.push('\n');
        self.sender.send(Ok(Frame::data(line.into()))).await.ok()
    }
}

impl Watch {
    fn bookmark(&self, version: u64) -> Value {
        let kind = self.target.kind;
        json!({"kind": kind.kind, "apiVersion": kind.in_version(&self.target.version), "metadata": {"resourceVersion": version.to_string()}})
    }

    fn dressed(&self, rows: &[Value], object: &Value) -> Value {
        let version = object::text(object, "/metadata/resourceVersion");
        self.shape
            .dress(self.target.kind, rows, version, object.clone())
    }
}

/// How a watch with this filter sees a change: an object that comes to match is added, one that
/// ceases to is deleted.
fn seen<'a>(
    filter: &Filter,
    target: &Target,
    change: &'a Change,
) -> Option<(&'static str, &'a Value)> {
    if change.kind.id != target.kind.id {
        return None;
    }
    let now = change.happening != Happening::Deleted && filter.matches(&change.object);
    let before = change
        .previous
        .as_ref()
        .is_some_and(|previous| filter.matches(previous));
    let kind = match (before, now) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    let _ = object::version(&change.object);
    Some((kind, &change.object))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::api::route::{self, Route};
    use crate::store::kinds::NAMESPACES;

    async fn lines(wish: Wish, count: usize) -> Vec<Value> {
        let store = Arc::new(Store::default());
        for name in ["a", "b"] {
            let object = json!({"metadata": {"name": name}});
            store.create(&NAMESPACES, object).expect("created");
        }
        let Some(Route::Resource(target)) = route::parse("/api/v1/namespaces") else {
            panic!("a list")
        };
        let response = respond(store, &target, Filter::default(), wish);
        let mut data = response.into_body().into_data_stream();
        let mut lines = Vec::new();
        while lines.len() < count {
            let line = data.next().await.expect("a line").expect("no failure");
            lines.push(serde_json::from_slice(&line).expect("JSON"));
        }
        lines
    }

    #[tokio::test]
    async fn who_lists_by_watching_is_told_when_all_was_sent() {
        let wish = Wish {
            version: 1,
            lists: true,
            bookmarks: true,
            seconds: None,
            shape: Shape::Objects,
        };
        let lines = lines(wish, 3).await;
        let kinds: Vec<&Value> = lines.iter().map(|line| &line["type"]).collect();
        assert_eq!(kinds, ["ADDED", "ADDED", "BOOKMARK"]);
        let end = &lines[2]["object"]["metadata"];
        assert_eq!(end["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(end["resourceVersion"], "3");
    }

    #[tokio::test]
    async fn rows_are_watched_as_tables_of_one_row() {
        let wish = Wish {
            version: 0,
            lists: false,
            bookmarks: false,
            seconds: None,
            shape: Shape::Table(crate::table::Carried::Metadata),
        };
        let lines = lines(wish, 2).await;
        assert_eq!(lines[1]["object"]["kind"], "Table");
        assert_eq!(lines[1]["object"]["rows"][0]["cells"][0], "b");
    }
}
