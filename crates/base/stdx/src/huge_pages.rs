//! Transparent huge pages, which suit programs that fill their memory.
//!
//! The allocator asks for them, and a program with some MiB in use fills only corners of each: they
//! would triple its memory. A program that refuses them does so before its first allocation, in
//! what runs before `main`:
//!
//! ```text
//! #[used]
//! #[unsafe(link_section = ".init_array.00001")]
//! static BEFORE_MAIN: extern "C" fn() = stdx::huge_pages::refuse;
//! ```
//!
//! The choice survives `fork` and `execve` (prctl(2), PR_SET_THP_DISABLE); [`allow`] is for what
//! must not inherit it.

/// No huge pages for this process and those it starts. A kernel that has none to refuse is as good.
pub extern "C" fn refuse() {
    set(true);
}

/// Huge pages as the machine is set up, for this process and those it starts from now on. Makes no
/// allocation.
pub fn allow() {
    set(false);
}

fn set(refused: bool) {
    // SAFETY: sets one flag of this process; a refusal by the kernel changes nothing.
    unsafe {
        libc::prctl(
            libc::PR_SET_THP_DISABLE,
            libc::c_ulong::from(refused),
            0,
            0,
            0,
        )
    };
}
