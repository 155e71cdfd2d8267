//! The files that the person edits, as objects of the store: applied, changed and deleted as the
//! files are.
//!
//! Folders are read with their subfolders (`.yaml`, `.yml`, `.json`; hidden ones not) and watched.
//! A change is taken in when nothing more happened for a moment. A file that does not parse changes
//! nothing: its last good objects stay, and the problem is told with file, line and column. An
//! object that is in two files is the first's. Objects that the store refuses are tried again with
//! every change, because what they miss may have come.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use wire_kube::manifest::{Document, load};

use crate::context::Context;
use crate::files;
use crate::hooks::Validate;
use crate::images::ImageMap;
use crate::names::CONTROL_IMAGE;
use crate::namespaces::Privilege;
use crate::object;
use crate::store::kinds::{self, Kind, Support};
use crate::store::{Deletion, Part, Refusal, Store};

/// The image map's name in a folder of YAML.
pub const IMAGES: &str = "images.yaml";
/// Nothing must happen for this long before files are read.
const QUIET: Duration = Duration::from_millis(40);
/// But no change waits longer than this.
const MAX_WAIT: Duration = Duration::from_millis(400);
/// How often all files are looked at, as a safety net and where the kernel cannot watch them.
const POLL: Duration = Duration::from_secs(5);
/// How often links and what lies behind them are looked at: the kernel watches no file by its link.
const LINK_POLL: Duration = Duration::from_millis(250);

type Key = (&'static str, &'static str, String, String);

/// An object that a file defines.
type Wanted<'a> = (Key, &'static Kind, &'a Document);

/// The present contents of the files.
pub struct Source {
    paths: Vec<PathBuf>,
    images_given: Option<PathBuf>,
    validate: Option<Validate>,
    files: BTreeMap<PathBuf, File>,
    applied: HashMap<Key, (&'static Kind, Value)>,
    images_text: Option<String>,
    /// What a watch does not see, as it was when it was last read.
    unwatched: Unwatched,
    /// An edited object waits for the end of the one that has its name.
    replacing: bool,
}

/// Whether a folder is still the same one, and how the contents of what was reached by a link are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Unwatched {
    folders: Vec<Option<Folder>>,
    linked: Vec<(PathBuf, Option<Stamp>)>,
}

/// Device, inode, and when it was made, because the number of a removed folder is given to the next
/// one.
type Folder = (u64, u64, Option<SystemTime>);

/// Device, inode, time of the last change and size.
type Stamp = (u64, u64, i64, i64, u64);

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Source")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Unwatched {
    fn look(paths: &[PathBuf], linked: Vec<PathBuf>) -> Self {
        let number = |path: &PathBuf| {
            let data = fs::metadata(path).ok()?;
            Some((data.dev(), data.ino(), data.created().ok()))
        };
        let stamp = |path: &PathBuf| {
            let data = fs::metadata(path).ok()?;
            let (seconds, nanoseconds) = (data.mtime(), data.mtime_nsec());
            Some((data.dev(), data.ino(), seconds, nanoseconds, data.len()))
        };
        Self {
            folders: paths.iter().map(number).collect(),
            linked: linked
                .into_iter()
                .map(|path| (path.clone(), stamp(&path)))
                .collect(),
        }
    }

    /// The same things as they are now.
    fn again(&self, paths: &[PathBuf]) -> Self {
        let linked = self.linked.iter().map(|(path, _)| path.clone());
        Self::look(paths, linked.collect())
    }
}

struct File {
    text: String,
    documents: Vec<Document>,
    problem: Option<String>,
}

impl Source {
    /// Files of these folders and files. Without an image map the first folder's that has an
    /// [`IMAGES`] is taken.
    pub fn new(
        paths: Vec<PathBuf>,
        images_given: Option<PathBuf>,
        validate: Option<Validate>,
    ) -> Self {
        Self {
            paths,
            images_given,
            validate,
            files: BTreeMap::new(),
            applied: HashMap::new(),
            images_text: None,
            unwatched: Unwatched::default(),
            replacing: false,
        }
    }

    /// Follows the files until the task is dropped. The first synchronisation should have been made
    /// before.
    pub async fn follow(mut self, context: Arc<Context>, images: watch::Sender<Arc<ImageMap>>) {
        let (sender, mut news) = mpsc::channel(1);
        let mut watcher = self.begin_to_watch(&sender);
        // What changed before the watch began is seen by a first look without waiting.
        let mut last = None;
        loop {
            if last.is_some_and(|last: Instant| last.elapsed() < POLL) {
                match timeout(LINK_POLL, news.recv()).await {
                    Ok(_) => {
                        let settle =
                            async { while let Ok(Some(())) = timeout(QUIET, news.recv()).await {} };
                        let _ = timeout(MAX_WAIT, settle).await;
                    }
                    Err(_) if self.replacing => {}
                    Err(_) if self.unwatched.again(&self.paths) == self.unwatched => continue,
                    Err(_) => {}
                }
            }
            let folders = self.unwatched.folders.clone();
            let worker = context.clone();
            let sent = images.clone();
            let result = tokio::task::spawn_blocking(move || {
                self.synchronise_images(&worker, &sent);
                self.synchronise(&worker);
                self
            });
            match result.await {
                Ok(source) => self = source,
                Err(error) => {
                    tracing::error!(%error, "files are no longer followed");
                    return;
                }
            }
            last = Some(Instant::now());
            if folders != self.unwatched.folders {
                drop(watcher);
                watcher = self.begin_to_watch(&sender);
                last = None;
            }
        }
    }

    fn begin_to_watch(&self, news: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let watcher = self.watcher(news.clone());
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files cannot be watched; they are looked at every {} s", POLL.as_secs());
        }
        watcher.ok()
    }

    fn watcher(&self, news: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    // A full queue means that a look is due anyway.
                    let _ = news.try_send(());
                }
            })?;
        let folder_of = |path: &PathBuf| {
            if path.is_dir() {
                Some(path.clone())
            } else {
                path.parent().map(Path::to_path_buf)
            }
        };
        for path in &self.paths {
            let mode = if path.is_dir() {
                RecursiveMode::Recursive
            } else {
                RecursiveMode::NonRecursive
            };
            if let Some(folder) = folder_of(path) {
                watcher.watch(&folder, mode)?;
            }
        }
        if let Some(folder) = self.images_given.as_ref().and_then(folder_of) {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// The image map, if there is one now.
    fn images_file(&self) -> Option<PathBuf> {
        let beside = || self.paths.iter().map(|path| path.join(IMAGES));
        self.images_given
            .clone()
            .or_else(|| beside().find(|file| file.is_file()))
    }

    /// Reads the image map when it changed.
    pub fn synchronise_images(&mut self, context: &Context, images: &watch::Sender<Arc<ImageMap>>) {
        let images_file = self.images_file();
        let text = match &images_file {
            Some(path) => match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => {
                    context.problems.lock().insert(
                        "images".into(),
                        vec![format!("{}: {error}", path.display())],
                    );
                    return;
                }
            },
            None => String::new(),
        };
        if self.images_text.as_ref() == Some(&text) {
            return;
        }
        match image_map(context, images_file.as_deref(), &text) {
            Ok(map) => {
                context.problems.lock().remove("images");
                images.send_replace(Arc::new(map));
            }
            Err(error) => {
                let file = images_file
                    .as_deref()
                    .unwrap_or(Path::new("images"))
                    .display()
                    .to_string();
                context
                    .problems
                    .lock()
                    .insert("images".into(), vec![format!("{file}: {error}")]);
            }
        }
        self.images_text = Some(text);
    }

    /// Makes the store hold what the files say.
    pub fn synchronise(&mut self, context: &Context) {
        let mut problems = self.read_files();
        let (mut wanted, seen) = wanted(&self.files, &mut problems);
        wanted.sort_by_key(|(_, kind, _)| order(kind));
        let gone: Vec<Key> = self
            .applied
            .keys()
            .filter(|key| !seen.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            if let Some((kind, _)) = self.applied.remove(&key)
                && !kept(kind, &key.3)
            {
                let _ = context
                    .store
                    .delete(kind, &key.2, &key.3, &Deletion::default());
            }
        }
        self.replacing = false;
        for (key, kind, document) in wanted {
            let last = self.applied.get(&key).map(|(_, last)| last);
            if last == Some(&document.object) {
                continue;
            }
            if begin_to_replace(&context.store, kind, &document.object, last) {
                self.replacing = true;
                continue;
            }
            match apply(&context.store, kind, &document.object, last) {
                Ok(()) => {
                    self.applied.insert(key, (kind, document.object.clone()));
                }
                Err(refusal) => {
                    let place = match &refusal {
                        Refusal::Field { path, .. } => document.place(path),
                        _ => document.source.to_string(),
                    };
                    problems.push(format!("{place}: {} {}: {refusal}", kind.kind, title(&key)));
                }
            }
        }
        if let Some(validate) = &self.validate {
            let documents: Vec<Document> = self
                .files
                .values()
                .flat_map(|file| file.documents.clone())
                .collect();
            let found = validate(&documents);
            // The same in the same words is said once.
            problems.retain(|problem| !found.iter().any(|line| line.starts_with(problem.as_str())));
            problems.extend(found);
        }
        for problem in &problems {
            tracing::debug!(problem, "source");
        }
        context.problems.lock().insert("source".into(), problems);
    }

    /// Reads what changed; the problems of files. What cannot be read stays as it was.
    fn read_files(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut listed = BTreeSet::new();
        let mut unread = Vec::new();
        let mut linked = Vec::new();
        for path in &self.paths {
            let found = files::find(path);
            problems.extend(found.problems);
            listed.extend(found.files);
            unread.extend(found.unread);
            linked.extend(found.linked);
        }
        // Before they are read, so that a change in between is seen the next time.
        let images_file = self.images_file();
        linked.extend(images_file.clone());
        self.unwatched = Unwatched::look(&self.paths, linked);
        if let Some(images) = &images_file {
            let real = |path: &Path| path.canonicalize().ok();
            listed.retain(|path| {
                path.file_name() != images.file_name() || real(path) != real(images)
            });
        }
        self.files.retain(|path, _| {
            listed.contains(path) || unread.iter().any(|folder| path.starts_with(folder))
        });
        for path in listed {
            let name = path.display().to_string();
            let text = match files::read(&path) {
                Ok(text) => text,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let file = self.files.entry(path).or_insert_with(|| File {
                text: String::new(),
                documents: Vec::new(),
                problem: None,
            });
            if file.text != text {
                match load(&name, &text) {
                    Ok(documents) => (file.documents, file.problem) = (documents, None),
                    Err(error) => file.problem = Some(error.to_string()),
                }
                file.text = text;
            }
            problems.extend(file.problem.clone());
        }
        problems
    }
}

/// The objects that the files define, each once, and where each was first defined.
fn wanted<'a>(
    files: &'a BTreeMap<PathBuf, File>,
    problems: &mut Vec<String>,
) -> (Vec<Wanted<'a>>, HashMap<Key, String>) {
    let mut wanted: Vec<Wanted<'a>> = Vec::new();
    let mut seen: HashMap<Key, String> = HashMap::new();
    for document in files.values().flat_map(|file| &file.documents) {
        match identify(document) {
            Err(problem) => problems.push(problem),
            Ok((key, kind)) => {
                if let Some(first) = seen.get(&key) {
                    problems.push(format!(
                        "{}: {} {} is defined at {first} already; this one is not used",
                        document.source,
                        kind.kind,
                        title(&key)
                    ));
                    continue;
                }
                if kind.support == Support::Inert {
                    problems.push(format!(
                        "{}: {} {} has no effect on one machine",
                        document.source,
                        kind.kind,
                        title(&key)
                    ));
                }
                seen.insert(key.clone(), document.source.to_string());
                wanted.push((key, kind, document));
            }
        }
    }
    (wanted, seen)
}

/// The image map with the runtime's own programs.
pub fn image_map(context: &Context, file: Option<&Path>, text: &str) -> Result<ImageMap, String> {
    let beside = file
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"))
        .to_path_buf();
    let options = &context.options;
    let programs = options
        .proxy_program
        .parent()
        .unwrap_or(Path::new("/"))
        .to_path_buf();
    let mut map = ImageMap::parse(text, &beside, &programs, &options.search_path)?;
    if context.privilege == Privilege::Root {
        map = map.for_anyone();
    }
    let proxy = options.proxy_program.display().to_string();
    let envoy = options.envoy_program.iter();
    let environment = envoy.map(|file| ("TANBARK_ENVOY".to_string(), file.display().to_string()));
    let map = map.with_entry(inject::PROXY_IMAGE, vec![proxy], environment.collect());
    Ok(match options.control_command.is_empty() {
        true => map,
        false => map.with_entry(
            CONTROL_IMAGE,
            options.control_command.clone(),
            BTreeMap::new(),
        ),
    })
}

fn identify(document: &Document) -> Result<(Key, &'static Kind), String> {
    let (api_version, kind_name) = document
        .type_meta()
        .ok_or_else(|| {
            format!(
                "{}: not a Kubernetes object: apiVersion and kind are missing; if it is another program's file, keep it in another folder",
                document.source
            )
        })?;
    let kind =
        kinds::by_object(api_version, kind_name).ok_or_else(|| {
            match wire_kube::kinds::find(api_version, kind_name) {
                Some(known) => format!(
                    "{}: {kind_name} is not served in version {api_version}: use one of {}",
                    document.place("apiVersion"),
                    known.versions.join(", ")
                ),
                None => format!(
                    "{}: kind {kind_name} of {api_version} is not supported",
                    document.place("kind")
                ),
            }
        })?;
    let name = object::name(&document.object);
    if name.is_empty() {
        return Err(format!(
            "{}: {kind_name}: metadata.name is missing",
            document.source
        ));
    }
    let namespace = match (kind.namespaced(), object::namespace(&document.object)) {
        (false, _) => String::new(),
        (true, "") => "default".into(),
        (true, namespace) => namespace.into(),
    };
    Ok(((kind.group, kind.plural, namespace, name.into()), kind))
}

fn title(key: &Key) -> String {
    if key.2.is_empty() {
        key.3.clone()
    } else {
        format!("{}/{}", key.2, key.3)
    }
}

/// What others need comes first: namespaces, then what pods read, then Services, then what makes
/// pods.
fn order(kind: &Kind) -> u8 {
    match kind.plural {
        "namespaces" => 0,
        "serviceaccounts" | "configmaps" | "secrets" => 1,
        "services" => 2,
        "deployments" | "statefulsets" | "daemonsets" | "replicasets" | "jobs" | "pods" => 4,
        _ => 3,
    }
}

/// Namespaces of the runtime itself, which a file may describe but not delete.
fn kept(kind: &Kind, name: &str) -> bool {
    kind.plural == "namespaces" && ["default", "istio-system", "kube-system"].contains(&name)
}

/// What a Pod or a Job runs cannot be changed, so an edited one is deleted, and made anew when it
/// has ended. True until then.
fn begin_to_replace(
    store: &Store,
    kind: &'static Kind,
    wanted: &Value,
    last: Option<&Value>,
) -> bool {
    let lasting = ![kinds::PODS.id, kinds::JOBS.id].contains(&kind.id);
    let Some(last) = last.filter(|last| !lasting && last.get("spec") != wanted.get("spec")) else {
        return false;
    };
    let namespace = match object::namespace(last) {
        "" => "default",
        namespace => namespace,
    };
    let Some(present) = store.find(kind, namespace, object::name(last)) else {
        return false;
    };
    if !object::deleting(&present) {
        let _ = store.delete(kind, namespace, object::name(last), &Deletion::default());
    }
    store.find(kind, namespace, object::name(last)).is_some()
}

/// Creates an object or makes the present one say what `wanted` says; `last` is what was applied
/// before.
pub fn apply(
    store: &Store,
    kind: &'static Kind,
    wanted: &Value,
    last: Option<&Value>,
) -> Result<(), Refusal> {
    let namespace = match (kind.namespaced(), object::namespace(wanted)) {
        (false, _) => "",
        (true, "") => "default",
        (true, namespace) => namespace,
    };
    if store.find(kind, namespace, object::name(wanted)).is_none() {
        return store.create(kind, wanted.clone()).map(drop);
    }
    store
        .change(
            kind,
            namespace,
            object::name(wanted),
            Part::Main,
            |present| {
                let mut next = merged(present, wanted, last);
                // A pod's has the sidecar in it, and stays as it is.
                if kind.id == kinds::PODS.id
                    && let Some(spec) = present.get("spec")
                {
                    next["spec"] = spec.clone();
                }
                Ok(next)
            },
        )
        .map(drop)
}

/// The present object with the fields of `wanted`; labels and annotations that others set stay.
fn merged(present: &Value, wanted: &Value, last: Option<&Value>) -> Value {
    let mut next = wanted.clone();
    object::entry(&mut next, "metadata");
    for part in ["labels", "annotations"] {
        let pointer = format!("/metadata/{part}");
        let given = object::texts(wanted, &pointer);
        let before = last
            .map(|last| object::texts(last, &pointer))
            .unwrap_or_default();
        let mut all = object::texts(present, &pointer);
        all.retain(|key, _| !before.contains_key(key));
        all.extend(given);
        if !all.is_empty() {
            object::set_metadata(&mut next, part, serde_json::json!(all));
        }
    }
    for key in ["ownerReferences", "finalizers"] {
        if let (Some(value), None) = (
            present.pointer(&format!("/metadata/{key}")),
            wanted.pointer(&format!("/metadata/{key}")),
        ) {
            object::set_metadata(&mut next, key, value.clone());
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_applied_object_keeps_what_others_added_and_loses_what_the_file_dropped() {
        let present = json!({"metadata": {"name": "a", "labels": {"old": "1", "other": "2"}}, "spec": {"x": 1}});
        let last = json!({"metadata": {"name": "a", "labels": {"old": "1"}}, "spec": {"x": 1}});
        let wanted = json!({"metadata": {"name": "a", "labels": {"new": "3"}}, "spec": {"y": 2}});
        let next = merged(&present, &wanted, Some(&last));
        assert_eq!(
            next["metadata"]["labels"],
            json!({"other": "2", "new": "3"})
        );
        assert_eq!(next["spec"], json!({"y": 2}));
    }

    #[test]
    fn documents_are_identified_or_refused_with_their_place() {
        let documents = load("f.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: x/v1\nkind: Thing\nmetadata: {name: t}\n").expect("parses");
        let (key, kind) = identify(&documents[0]).expect("a pod");
        assert_eq!((kind.kind, title(&key).as_str()), ("Pod", "default/p"));
        assert_eq!(
            identify(&documents[1]).expect_err("unknown"),
            "f.yaml:6:1: kind Thing of x/v1 is not supported"
        );
    }
}
