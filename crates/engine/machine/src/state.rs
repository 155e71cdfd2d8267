//! The state folder: what it holds, who may open it, and the lock that says whether a runtime
//! lives.
//!
//! `api.sock` is the local API, `logs/` the containers' output, `token-key.pem` the key of service-account tokens,
//! `control/` belongs to the control plane (its CA). `run/` is a mount point: a memory file system inside the runtime's
//! namespaces, empty on the machine itself. The folder and all in it are for the owner only.
//!
//! The lock is a kernel lock on the open file `lock`, so it goes with its holder however that ends.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Result};

/// Longest path of a Unix socket that the kernel takes, without its final NUL.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A state folder's paths.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

/// The lock of a living runtime.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// `$XDG_STATE_HOME/tanbark/default`, or `~/.local/state/tanbark/default`; `None` when neither is known.
pub fn default_folder(xdg_state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let base = match xdg_state_home
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
    {
        Some(base) => base,
        None => PathBuf::from(home.filter(|home| !home.is_empty())?).join(".local/state"),
    };
    Some(base.join("tanbark/default"))
}

impl State {
    /// The folder at this path, which need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the folder and its parts, for the owner only.
    ///
    /// # Errors
    /// When a part cannot be made or the socket's path would be too long.
    pub fn prepare(&self) -> Result<()> {
        if self.socket().as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(Error::Configuration(format!(
                "the state folder's path {} is too long for a socket in it; choose a shorter one with `--state`",
                self.root.display()
            )));
        }
        for folder in [self.root.clone(), self.logs(), self.run(), self.control()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .context(|| format!("make the folder {}", folder.display()))?;
        }
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))
            .context(|| format!("restrict the folder {}", self.root.display()))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The local API's socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("api.sock")
    }
    /// The containers' output.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// The memory file system inside the namespaces.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// The control plane's own folder.
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }
    /// The key that signs service-account tokens.
    pub fn token_key(&self) -> PathBuf {
        self.root.join("token-key.pem")
    }

    /// Takes the lock and writes this process's id into it.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] when another process holds it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)
                    .context(|| format!("write {}", path.display()))?;
                write!(file, "{}", std::process::id())
                    .context(|| format!("write {}", path.display()))?;
                Ok(Lock { _file: file })
            }
            Err((mut file, _)) => Err(Error::AlreadyRunning {
                state: self.root.clone(),
                pid: read_pid(&mut file),
            }),
        }
    }

    /// The outer process of the runtime that holds the lock, if one does.
    pub fn holder(&self) -> Option<i32> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join("lock"))
            .ok()?;
        let pid = read_pid(&mut file);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_free) => None,
            Err(_) => Some(pid),
        }
    }

    /// Removes what only means something while a runtime lives.
    pub fn clean(&self) {
        let _ = fs::remove_file(self.socket());
    }
}

fn read_pid(file: &mut File) -> i32 {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_folder_prefers_xdg_and_falls_back_to_home() {
        assert_eq!(
            default_folder(Some("/x".into()), Some("/h".into())),
            Some("/x/tanbark/default".into())
        );
        assert_eq!(
            default_folder(None, Some("/h".into())),
            Some("/h/.local/state/tanbark/default".into())
        );
        assert_eq!(
            default_folder(Some("relative".into()), Some("/h".into())),
            Some("/h/.local/state/tanbark/default".into())
        );
        assert_eq!(default_folder(None, None), None);
    }

    #[test]
    fn a_second_lock_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::at(folder.path().join("s"));
        state.prepare().expect("prepare");
        assert_eq!(state.holder(), None);
        let lock = state.lock().expect("first lock");
        assert!(
            matches!(state.lock(), Err(Error::AlreadyRunning { pid, .. }) if pid == std::process::id() as i32)
        );
        assert_eq!(state.holder(), Some(std::process::id() as i32));
        drop(lock);
        assert_eq!(state.holder(), None);
    }
}
