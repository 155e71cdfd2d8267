//! What every command may ask for: the state folder and the local API of the runtime there.
//!
//! Resolved when asked for, because some commands (`version`, the hidden ones) run where no home folder is known.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use machine::state::{State, default_folder};
use nix::unistd::{Uid, User};

use crate::api::Api;

/// Meshes that are named when another one was meant.
const MAX_TOLD: usize = 10;

/// The state folder that was chosen, if one was.
#[derive(Debug, Clone)]
pub struct Session {
    chosen: Option<PathBuf>,
}

impl Session {
    pub fn new(chosen: Option<PathBuf>) -> Self {
        Self { chosen }
    }

    /// The state folder, as an absolute path.
    ///
    /// # Errors
    /// No folder was chosen and no home folder is known.
    pub fn state(&self) -> Result<State> {
        let folder = match &self.chosen {
            Some(folder) => folder.clone(),
            None => default_folder(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME")).context("no home folder is known (HOME is not set): choose a state folder with `--state DIR`")?,
        };
        let folder = std::path::absolute(&folder)
            .with_context(|| format!("the state folder {}", folder.display()))?;
        refuse_strangers(&folder)?;
        Ok(State::at(folder))
    }

    /// The local API of the runtime with this state.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::at(&self.state()?))
    }
}

/// Other meshes of this user that run: those whose state folders stand beside this one.
pub fn running_beside(folder: &Path) -> Vec<PathBuf> {
    let beside = folder
        .parent()
        .and_then(|parent| std::fs::read_dir(parent).ok());
    let mut running: Vec<PathBuf> = beside
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path != folder && path.join("lock").is_file())
        .filter(|path| State::at(path).holder().is_some())
        .take(MAX_TOLD)
        .collect();
    running.sort();
    running
}

/// A mesh of another user can be neither seen nor stopped; without this it would look as if nothing ran.
fn refuse_strangers(folder: &Path) -> Result<()> {
    let (me, Ok(found)) = (Uid::effective(), std::fs::metadata(folder)) else {
        return Ok(());
    };
    if me.is_root() || me.as_raw() == found.uid() {
        return Ok(());
    }
    bail!(stranger(
        folder,
        &user(Uid::from_raw(found.uid())),
        &user(me)
    ));
}

fn user(id: Uid) -> String {
    match User::from_uid(id) {
        Ok(Some(user)) => user.name,
        _ => format!("number {id}"),
    }
}

fn stranger(folder: &Path, owner: &str, me: &str) -> String {
    format!(
        "the state folder {} belongs to user {owner}, and you are {me}: run this as {owner}, or choose another folder with `--state DIR`",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_mesh_is_named() {
        let text = stranger(Path::new("/s"), "ada", "bob");
        assert!(
            text.contains("/s belongs to user ada, and you are bob"),
            "{text}"
        );
    }

    #[test]
    fn meshes_that_run_beside_are_named() {
        use nix::fcntl::{Flock, FlockArg};
        let folder = tempfile::tempdir().expect("a folder");
        let lock = |name: &str| {
            let state = folder.path().join(name);
            std::fs::create_dir(&state).expect("a folder");
            std::fs::File::create(state.join("lock")).expect("a file")
        };
        drop(lock("ended"));
        let held = Flock::lock(lock("shop"), FlockArg::LockExclusiveNonblock).expect("locked");
        let found = running_beside(&folder.path().join("default"));
        assert_eq!(found, [folder.path().join("shop")]);
        drop(held);
    }

    #[test]
    fn an_own_folder_and_a_missing_one_are_fine() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(refuse_strangers(folder.path()).is_ok());
        assert!(refuse_strangers(&folder.path().join("none")).is_ok());
    }
}
