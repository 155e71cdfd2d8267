//! No huge pages for the proxy's own memory.
//!
//! The allocator asks for them, and a proxy with some MiB in use fills only corners of each: they would triple its memory. It must be
//! said before the first allocation, so it is said where a process runs what comes before `main`. Processes that we start inherit it;
//! [`allow_huge`] is for what must not.

use nix::sys::prctl::set_thp_disable;

#[used]
#[unsafe(link_section = ".init_array.00001")]
static BEFORE_MAIN: extern "C" fn() = disallow_huge;

extern "C" fn disallow_huge() {
    // A kernel that has no huge pages to refuse is as good.
    let _ = set_thp_disable(true);
}

/// Ends it, for this process and those it starts from now on.
pub fn allow_huge() {
    if let Err(error) = set_thp_disable(false) {
        tracing::debug!(%error, "huge pages stay off");
    }
}
