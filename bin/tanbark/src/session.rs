//! What every command may ask for: the state folder and the local API of the runtime there.
//!
//! Resolved when asked for, because some commands (`version`, the hidden ones) run where no home folder is known.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use machine::state::{State, default_folder};

use crate::api::Api;

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
        Ok(State::at(folder))
    }

    /// The local API of the runtime with this state.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::at(&self.state()?))
    }
}
