//! Structure that the compiler does not check: which crate may use which, files that need each
//! other in a circle, tasks without an owner, how long files, functions and comments may be, words
//! that do not belong.
//!
//! The limits are ratchets: lists of the places that exceed them today, which can only get shorter
//! ([`ratchet`], [`circles`]). Clippy has the rest of the rules (`clippy.toml`), cargo-deny those
//! for packages (`deny.toml`).

use std::path::Path;

use anyhow::Result;

mod circles;
pub(crate) mod code;
mod edges;
mod fault;
mod links;
mod ratchet;
mod sizes;
mod source;
mod tasks;
mod words;

pub use fault::Fault;
pub(crate) use ratchet::{Excess, Excesses};
pub(crate) use source::{Source, sources};

/// Every fault of the workspace at `root`, sorted.
pub fn check(root: &Path) -> Result<Vec<Fault>> {
    let sources = sources(root)?;
    let mut faults = edges::check(root)?;
    faults.extend(ratchet::check(root, &measure(&sources))?);
    faults.extend(circles::check(root, &sources)?);
    faults.extend(words::check(&sources));
    faults.extend(links::check(root)?);
    faults.sort();
    Ok(faults)
}

/// Shortens the lists of what exceeds its limit to what still does, and writes the table of limits.
pub fn tighten(root: &Path) -> Result<()> {
    let sources = sources(root)?;
    ratchet::tighten(root, &measure(&sources))?;
    circles::tighten(root, &sources)?;
    crate::limits::renew(root).map(drop)
}

/// The circles of files in the workspace at `root`, with who needs whom.
pub fn describe_circles(root: &Path) -> Result<String> {
    Ok(circles::describe(&sources(root)?))
}

fn measure(sources: &[Source]) -> Excesses {
    let mut found = sizes::measure(sources);
    found.extend(words::measure(sources));
    found.extend(tasks::measure(sources));
    found.extend(crate::limits::measure(sources));
    found
}
