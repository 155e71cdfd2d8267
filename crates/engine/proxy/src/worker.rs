//! What belongs to one worker thread: its connection pools and small caches, and what it shares
//! with the others.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use proxy_config::{ListenerName, tracing::TracingProvider};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{peers::PeerCache, publish::Live, report::Reporter, upstream::pool::Pools};

/// One worker. Its tasks run on one thread; the locks inside are never contended.
pub struct Worker {
    pub live: Arc<Live>,
    pub pools: Pools,
    /// Owns what nobody waits for (mirrored requests); each task has a limit of its own.
    pub background: TaskTracker,
    pub peers: PeerCache,
    pub reporter: Arc<dyn Reporter>,
    pub settings: Settings,
    bound: Mutex<Vec<(ListenerName, SocketAddr)>>,
}

/// Limits and times of the data path that do not come by xDS.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long connections of a listener that went away may go on (Envoy's `--drain-time-s`; Istio
    /// sets 45 s).
    pub drain_time: Duration,
    /// Downstream connections that one worker takes; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Bytes of a request's body kept for retries (Envoy's per-connection buffer limit).
    pub retry_buffer_bytes: usize,
    /// Size of each of the two buffers of a TCP connection, held only while data flow.
    pub tcp_buffer_bytes: usize,
    /// The bootstrap's tracer, for connection managers that name none.
    pub default_tracer: Option<Arc<TracingProvider>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_time: Duration::from_secs(45),
            max_connections: 1 << 16,
            retry_buffer_bytes: 1 << 20,
            tcp_buffer_bytes: 128 << 10,
            default_tracer: None,
        }
    }
}

impl Worker {
    pub fn new(live: Arc<Live>, reporter: Arc<dyn Reporter>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            live,
            pools: Pools::default(),
            background: TaskTracker::new(),
            peers: PeerCache::default(),
            reporter,
            settings,
            bound: Mutex::default(),
        })
    }

    /// Addresses that it listens on, or did; a port of 0 in the configuration is a real one here.
    pub fn bound(&self) -> Vec<(ListenerName, SocketAddr)> {
        self.bound.lock().clone()
    }

    pub(crate) fn note_bound(&self, name: &ListenerName, socket: &TcpListener) {
        if let Ok(address) = socket.local_addr() {
            let mut bound = self.bound.lock();
            bound.retain(|(_, before)| *before != address);
            bound.push((name.clone(), address));
        }
    }
}
