//! Clients for tests and measurements. Each prints JSON objects, one per line, on standard output: events first, a report at the end.
//!
//! Exit codes: 0 = done as wished, 1 = it was not as wished (`--expect`, broken connections), 2 = wrong use.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Uri;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

pub mod grpc;
mod latency;
pub mod load;
pub mod websocket_hold;

/// Different texts that a tally keeps; the rest is counted under `(other)`.
const MAX_TALLY: usize = 50;

/// Counts by text, bounded.
#[derive(Default, serde::Serialize)]
#[serde(transparent)]
pub struct Tally(std::collections::BTreeMap<String, u64>);

impl Tally {
    pub fn add(&mut self, text: &str) {
        let full = self.0.len() >= MAX_TALLY && !self.0.contains_key(text);
        *self
            .0
            .entry(if full { "(other)" } else { text }.to_owned())
            .or_default() += 1;
    }

    pub fn only(&self, text: &str) -> bool {
        self.0.keys().all(|key| key == text)
    }
}

/// One line on standard output. The reader may have gone; that is no reason to stop working.
fn print(value: &Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// Host and port of a URL with one of `schemes`, whose default port is 80.
fn authority(url: &Uri, schemes: &[&str]) -> anyhow::Result<(String, u16)> {
    let scheme = url.scheme_str().unwrap_or_default();
    if !schemes.contains(&scheme) {
        bail!("{url}: only {} is supported", schemes.join(" and "));
    }
    let host = url.host().with_context(|| format!("{url}: no host"))?;
    Ok((
        host.trim_matches(['[', ']']).to_owned(),
        url.port_u16().unwrap_or(80),
    ))
}

/// `name: value` of the command line.
fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `name: value`")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| format!("{name:?} is no header name"))?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("{value:?} is no header value"))?;
    Ok((name, value))
}

/// Ends after `duration`, if there is one, or by SIGTERM or SIGINT.
async fn until(duration: Option<Duration>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let timer = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = timer => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
