//! Blocking work off the async workers.

use crate::error::{Error, Result};

/// Runs blocking work on a thread of the runtime's own pool for it.
///
/// # Errors
/// Those of the work; [`Error::Peer`] when it panicked or the runtime stops.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Peer("a worker ended unexpectedly".into())))
}
