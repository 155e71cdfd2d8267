//! The terminal that `exec -t` lends to the command: raw while it runs, as it was afterwards, and its size on every change.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Input;

/// The terminal in raw mode until this is dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    pub fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)
            .context("cannot change the terminal's settings")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

pub fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Sends the size now and on every change.
pub async fn send_sizes(sender: mpsc::Sender<Input>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Some((columns, rows)) = size()
            && sender.send(Input::Size(columns, rows)).await.is_err()
        {
            return;
        }
        tokio::select! {
            changed = changes.recv() => if changed.is_none() { return },
            () = sender.closed() => return,
        }
    }
}

/// Columns and rows of the terminal on standard output.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request fills the structure that it is given.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}
