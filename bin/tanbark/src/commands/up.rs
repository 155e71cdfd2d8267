//! `tanbark up DIR…`: runs a mesh until somebody stops it.
//!
//! This process stays outside of the mesh's namespaces: it starts the runtime, shows how it comes up, then either the live table of who
//! calls whom (on a terminal) or a line for each thing that happens. Ctrl-C and SIGTERM stop everything within five seconds; a second one
//! does not wait. `--detach` leaves such a process behind.

pub mod args;
mod changes;
mod detach;
mod options;
pub mod pages;
mod progress;
pub mod report;
mod screen;
mod traffic;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use machine::Handle;
use machine::hooks::Hooks;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Api;
use crate::output;
use crate::problems;
use crate::session::Session;
use args::Args;
use progress::{PATIENCE, Show};

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let state = session.state()?;
    if let Some(pid) = state.holder() {
        bail!(machine::Error::AlreadyRunning {
            state: state.root().into(),
            pid
        });
    }
    let options = options::resolve(&args, &state)?;
    if args.detach {
        return detach::run(&args, &state).await;
    }
    let show = if output::is_watched() && !args.plain {
        Show::Live
    } else {
        Show::Lines
    };
    let mut stop = Stop::listen()?;
    let handle = tokio::select! {
        handle = machine::up(options) => handle?,
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    let api = Api::at(&state);
    let result = tokio::select! {
        result = follow(&handle, &api, &args, show) => result,
        () = stop.asked() => Ok(()),
    };
    if result.is_ok() {
        output::note("stopping; interrupt again to force");
    }
    tokio::select! {
        () = handle.shutdown() => {}
        // The kernel ends everything inside with this process.
        () = stop.asked() => return Ok(ExitCode::from(130)),
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Shows the mesh until it ends by itself, which it should not.
async fn follow(handle: &Handle, api: &Api, args: &Args, show: Show) -> Result<()> {
    handle.ready().await?;
    let summary = progress::settle(api, show, PATIENCE).await?;
    output::emit(&report::text(
        &summary,
        &pages::find(api, &summary).await?,
        output::Colour::of(&std::io::stdout()),
    ));
    let mut ended = handle.ended();
    let watching = async {
        let mut changes = changes::Changes::new(&args.sources, &summary);
        match show {
            Show::Live => screen::run(api, &mut changes).await,
            Show::Lines => changes.print_all(api).await,
        }
    };
    tokio::select! {
        result = watching => result,
        _ = ended.wait_for(|ended| *ended) => bail!("the runtime ended by itself; its last words are in {}", handle.state().root().join(options::RUNTIME_LOG).display()),
    }
}

/// SIGINT, SIGTERM and SIGHUP.
struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            signals: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            ],
        })
    }

    /// Waits for the next one.
    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The inner process: the hidden command `machine-init`.
pub fn inside() -> ExitCode {
    // A session of its own, so that Ctrl-C reaches the outer process only, which then ends pods in order.
    let _ = nix::unistd::setsid();
    options::log_to_file();
    machine::init::main(Hooks {
        validate: Some(Arc::new(problems::lines_for_runtime)),
    })
}
