//! Session resumption that ends with the identity it was made under.
//!
//! A resumed handshake does not look at certificates again: the peer is who it was. That holds
//! while our own identity and trust bundle are the same; when the handle's generation grows,
//! tickets and remembered sessions of before are useless.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    Error, NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::aws_lc_rs::Ticketer,
    server::ProducesTickets,
};
use rustls_pki_types::ServerName;

use crate::IdentityHandle;

/// Remembered servers per client configuration.
const REMEMBERED_SERVERS: usize = 64;

/// A server's tickets.
#[derive(Debug)]
pub(super) struct Tickets {
    handles: Vec<IdentityHandle>,
    current: ArcSwap<TicketEpoch>,
}

#[derive(Debug)]
struct TicketEpoch {
    generation: u64,
    ticketer: Arc<dyn ProducesTickets>,
}

impl Tickets {
    pub(super) fn new(handles: Vec<IdentityHandle>) -> Result<Self, Error> {
        let epoch = TicketEpoch {
            generation: generation(&handles),
            ticketer: Ticketer::new()?,
        };
        Ok(Self {
            handles,
            current: ArcSwap::from_pointee(epoch),
        })
    }

    fn current(&self) -> Option<Arc<dyn ProducesTickets>> {
        let generation = generation(&self.handles);
        let epoch = self.current.load();
        if epoch.generation == generation {
            return Some(epoch.ticketer.clone());
        }
        let ticketer = Ticketer::new().ok()?;
        self.current.store(Arc::new(TicketEpoch {
            generation,
            ticketer: ticketer.clone(),
        }));
        Some(ticketer)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.current().map_or(0, |t| t.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.current()?.decrypt(cipher)
    }
}

/// What a client remembers of its servers.
#[derive(Debug)]
pub(super) struct Remembered {
    handles: Vec<IdentityHandle>,
    current: ArcSwap<MemoryEpoch>,
}

#[derive(Debug)]
struct MemoryEpoch {
    generation: u64,
    memory: ClientSessionMemoryCache,
}

impl Remembered {
    pub(super) fn new(handles: Vec<IdentityHandle>) -> Self {
        let generation = generation(&handles);
        let memory = ClientSessionMemoryCache::new(REMEMBERED_SERVERS);
        Self {
            handles,
            current: ArcSwap::from_pointee(MemoryEpoch { generation, memory }),
        }
    }

    fn current(&self) -> Arc<MemoryEpoch> {
        let generation = generation(&self.handles);
        let epoch = self.current.load_full();
        if epoch.generation == generation {
            return epoch;
        }
        let fresh = Arc::new(MemoryEpoch {
            generation,
            memory: ClientSessionMemoryCache::new(REMEMBERED_SERVERS),
        });
        self.current.store(fresh.clone());
        fresh
    }
}

impl ClientSessionStore for Remembered {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.current().memory.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.current().memory.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.current().memory.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.current().memory.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.current().memory.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.current()
            .memory
            .insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.current().memory.take_tls13_ticket(server_name)
    }
}

/// Generations only grow, so their sum changes whenever one does.
fn generation(handles: &[IdentityHandle]) -> u64 {
    handles.iter().map(IdentityHandle::generation).sum()
}
