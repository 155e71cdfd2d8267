//! Our own log, on standard error, with a level that the admin page can change.

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Changes the level while running.
#[derive(Clone)]
pub struct Levels(reload::Handle<EnvFilter, Registry>);

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
    Ok(Levels(handle))
}

impl Levels {
    /// Envoy's or our names; `None`: it is not a level.
    pub fn set(&self, level: &str) -> Option<()> {
        let ours = match level {
            "warning" => "warn",
            "critical" => "error",
            "off" | "error" | "warn" | "info" | "debug" | "trace" => level,
            _ => return None,
        };
        self.0.reload(EnvFilter::try_new(ours).ok()?).ok()
    }
}
