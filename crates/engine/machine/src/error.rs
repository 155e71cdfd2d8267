//! What can go wrong in the runtime, grouped by who can mend it.
//!
//! Every text is meant for the person at the terminal: it names the object or the setting and what
//! to do.

use std::io;
use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the one-machine runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or a security module does not let this user make namespaces.
    #[error("this machine does not let you create user namespaces: {why}\n  to allow it: {remedy}")]
    NamespacesRefused {
        /// What was tried and what the kernel said.
        why: String,
        /// The command that changes the setting.
        remedy: String,
    },
    /// Another runtime holds the state folder.
    #[error(
        "already running (process {pid}) with state {state}; stop it with `tanbark down` or choose another `--state`"
    )]
    AlreadyRunning {
        /// The state folder.
        state: PathBuf,
        /// The outer process of the other runtime.
        pid: i32,
    },
    /// Nothing runs with this state folder.
    #[error(
        "no mesh is running at {state}; start one with `tanbark up DIR`, or name another's state folder with `--state DIR`"
    )]
    NotRunning {
        /// The state folder.
        state: PathBuf,
    },
    /// A program that the runtime calls is not installed.
    #[error("`{program}` is not installed; install it with `apt install {package}`")]
    MissingProgram {
        /// Name of the program, or names with "or".
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// What the operator or a file says cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done, with the object's name.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A helper program ended with an error.
    #[error("`{program}` failed: {message}")]
    Program {
        /// The command line.
        program: String,
        /// Its standard error, shortened.
        message: String,
    },
    /// The runtime is there and says nothing.
    #[error(
        "the mesh at {state} does not answer within {seconds} s: its last words are in {state}/runtime.log; `tanbark down` stops it"
    )]
    Silent {
        /// The state folder.
        state: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The local API refused a request.
    #[error("{message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// Kubernetes' reason, such as `NotFound`.
        reason: String,
        /// Text for people.
        message: String,
    },
    /// The other process of the runtime went away or speaks another protocol.
    #[error("{0}")]
    Peer(String),
}

impl Error {
    /// A system call's failure with what was being done.
    pub fn system(what: impl Into<String>, source: io::Error) -> Self {
        Error::System {
            what: what.into(),
            source,
        }
    }
}

/// Adds what was being done to a failure of the system.
pub trait Context<T> {
    /// Names the attempt; called only on failure.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System {
            what: what(),
            source,
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::System {
            what: what(),
            source: io::Error::from(errno),
        })
    }
}
