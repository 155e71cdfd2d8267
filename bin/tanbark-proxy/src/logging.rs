//! Our own log, on standard error, with a level that the admin page can change.

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Changes the level while running.
#[derive(Clone)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    started_with: String,
}

pub fn start(directives: &str) -> Result<Levels, String> {
    let filter = EnvFilter::try_new(directives).map_err(|e| e.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(Levels {
        handle,
        started_with: directives.to_owned(),
    })
}

impl Levels {
    /// The directives of the start.
    pub fn directives(&self) -> &str {
        &self.started_with
    }

    /// Other directives from now on; `None`: they are none.
    pub fn set(&self, directives: &str) -> Option<()> {
        let filter = EnvFilter::try_new(directives).ok()?;
        self.handle.reload(filter).ok()
    }
}
