//! What the names of a dynamic forward cluster resolve to: looked up beside the requests that ask.
//!
//! A look-up is a task of the cluster. Requests for the same name wait for the same one, and a
//! request that gives up does not end it. Look-ups under way, names that are kept and the time of a
//! look-up are bounded, because names come from clients. A failure is remembered for
//! [`FAILURE_HOLDS`]. An address that is due for a new look-up goes on being used meanwhile, and
//! after a failure too, as in Envoy.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use stdx::Clock;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::upstream::shrink;

/// Names that are kept for one cluster; a request for one more is answered as if it did not
/// resolve.
const MAX_NAMES: usize = 4096;
/// Look-ups under way for one cluster; further ones wait, within their time.
const MAX_LOOKUPS: usize = 16;
/// How long a look-up may take, waiting included (Envoy's `dns_query_timeout`).
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// How long a name that did not resolve is not looked up again.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);
/// A name that nobody asked for this long is forgotten (Envoy's `host_ttl`).
const UNUSED_HOLDS: Duration = Duration::from_secs(300);

/// Looks names up. A call blocks its thread, which is none of a worker's.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of a name, in order of preference.
    fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the system (`getaddrinfo`).
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0)
            .to_socket_addrs()?
            .map(|address| address.ip())
            .collect())
    }
}

/// The names of one cluster, shared by all workers.
pub struct Names {
    entries: Mutex<HashMap<Box<str>, Entry, RandomState>>,
    resolver: Arc<dyn Resolve>,
    clock: Arc<dyn Clock>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

struct Entry {
    /// The addresses that were found last.
    addresses: Arc<[IpAddr]>,
    /// When they, or the failure, are to be looked up again.
    until: Instant,
    asked: Instant,
    /// Closes when the look-up that is under way has ended.
    pending: Option<watch::Receiver<()>>,
}

/// What is known about a name.
pub enum Known {
    /// At least one.
    Addresses(Arc<[IpAddr]>),
    /// It does not resolve.
    Nothing,
    /// The first look-up is under way; closes when it has ended.
    Pending(watch::Receiver<()>),
    /// As many names as may be are kept.
    Overflow,
}

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    Found,
    Failed,
    TooLong,
}

impl Names {
    pub fn new(resolver: Arc<dyn Resolve>, clock: Arc<dyn Clock>) -> Self {
        Self {
            entries: Mutex::default(),
            resolver,
            clock,
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            tasks: TaskTracker::new(),
        }
    }

    /// What is known now. Starts a look-up when there is none and what is known is older than
    /// `holds`;
    /// `looked` hears how it ended.
    pub fn ask(
        self: &Arc<Self>,
        name: &str,
        holds: Duration,
        looked: impl FnOnce(Looked) + Send + 'static,
    ) -> Known {
        let now = self.clock.now();
        let mut entries = self.entries.lock();
        if !entries.contains_key(name) && entries.len() >= MAX_NAMES {
            return Known::Overflow;
        }
        let entry = entries.entry(name.into()).or_insert_with(|| Entry {
            addresses: Arc::from([]),
            until: now,
            asked: now,
            pending: None,
        });
        entry.asked = now;
        // One whose task has gone without a word (its worker ended) is under way no more.
        let is_pending = |done: &watch::Receiver<()>| done.has_changed().is_ok();
        if entry.until <= now && !entry.pending.as_ref().is_some_and(is_pending) {
            let (done, pending) = watch::channel(());
            entry.pending = Some(pending);
            let names = self.clone();
            let name: Box<str> = name.into();
            self.tasks.spawn(async move {
                looked(names.look_up(&name, holds).await);
                drop(done);
            });
        }
        match &entry.pending {
            _ if !entry.addresses.is_empty() => Known::Addresses(entry.addresses.clone()),
            Some(pending) if entry.until <= now => Known::Pending(pending.clone()),
            Some(_) | None => Known::Nothing,
        }
    }

    async fn look_up(&self, name: &str, holds: Duration) -> Looked {
        let found = tokio::time::timeout(LOOKUP_TIME, async {
            let place = self.places.clone().acquire_owned().await;
            let place = place.map_err(io::Error::other)?;
            let (resolver, name) = (self.resolver.clone(), name.to_owned());
            let found = tokio::task::spawn_blocking(move || {
                // The thread holds the place, as it goes on when nobody waits for it any more.
                let _place = place;
                resolver.addresses(&name)
            });
            found.await.map_err(io::Error::other)?
        })
        .await;
        let looked = match &found {
            Ok(Ok(addresses)) if !addresses.is_empty() => Looked::Found,
            Ok(Ok(_) | Err(_)) => Looked::Failed,
            Err(_) => Looked::TooLong,
        };
        let now = self.clock.now();
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(name) {
            match found {
                Ok(Ok(addresses)) if !addresses.is_empty() => {
                    entry.addresses = addresses.into();
                    entry.until = now + holds;
                }
                Ok(_) | Err(_) => entry.until = now + FAILURE_HOLDS.min(holds),
            }
            entry.pending = None;
        }
        looked
    }

    /// Forgets names that nobody asked for a long time, and failures that are over.
    pub fn sweep(&self) {
        let now = self.clock.now();
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| {
            let is_old = now.saturating_duration_since(entry.asked) >= UNUSED_HOLDS;
            let is_over = entry.addresses.is_empty() && entry.until <= now;
            entry.pending.is_some() || !(is_old || is_over)
        });
        shrink(&mut entries);
    }

    /// Names that are kept now.
    pub fn count(&self) -> usize {
        self.entries.lock().len()
    }
}
