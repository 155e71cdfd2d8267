//! `--detach`: the same command in a session of its own; this one waits until the mesh is up, says how it is, and ends.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use machine::state::State;

use super::args::{Args, Proxy};
use super::progress::{self, PATIENCE, Show};
use super::{pages, report};
use crate::api::Api;
use crate::output;

/// What the process in the background prints, in the state folder.
const LOG: &str = "up.log";
/// How long the local API may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub async fn run(args: &Args, state: &State) -> Result<ExitCode> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state.root())
        .with_context(|| format!("cannot make the folder {}", state.root().display()))?;
    let log = state.root().join(LOG);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = start(args, state, &file)?;
    let api = Api::at(state);
    wait_for_api(&mut child, &api, &log).await?;
    let show = if output::is_watched() {
        Show::Live
    } else {
        Show::Lines
    };
    let summary = tokio::select! {
        summary = progress::settle(&api, show, PATIENCE) => summary?,
        _ = tokio::signal::ctrl_c() => {
            output::note("interrupted; the mesh goes on starting in the background, `tanbark down` stops it");
            return Ok(ExitCode::from(130));
        }
    };
    output::emit(&report::text(
        &summary,
        &pages::find(&api, &summary).await?,
        output::Colour::of(&std::io::stdout()),
    ));
    output::note(&format!(
        "running in the background (process {}); `tanbark status` shows it, `tanbark down` stops it",
        child.id()
    ));
    Ok(ExitCode::SUCCESS)
}

fn start(args: &Args, state: &State, log: &std::fs::File) -> Result<Child> {
    let Args {
        sources,
        images,
        proxy,
        envoy,
        mesh_config,
        trust_domain,
        no_egress,
        detach: _,
        plain: _,
    } = args;
    let mut command =
        Command::new(std::env::current_exe().context("cannot find this program's file")?);
    command
        .arg("up")
        .arg("--plain")
        .arg("--state")
        .arg(state.root())
        .arg("--trust-domain")
        .arg(trust_domain);
    command.args([
        "--proxy",
        if *proxy == Proxy::Envoy {
            "envoy"
        } else {
            "tanbark"
        },
    ]);
    for (flag, file) in [
        ("--images", images),
        ("--envoy", envoy),
        ("--mesh-config", mesh_config),
    ] {
        if let Some(file) = file {
            command.arg(flag).arg(file);
        }
    }
    if *no_egress {
        command.arg("--no-egress");
    }
    command.arg("--").args(sources);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    // SAFETY: one system call between fork and exec, which allocates nothing.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()
                .map(drop)
                .map_err(std::io::Error::from)
        });
    }
    command
        .spawn()
        .context("cannot start the process in the background")
}

async fn wait_for_api(child: &mut Child, api: &Api, log: &std::path::Path) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if api.client().summary().await.is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let said = said.trim().trim_start_matches("error: ");
            bail!(
                "{}",
                if said.is_empty() {
                    format!(
                        "the process in the background ended ({status}) without a word in {}: is the disk full? Without `--detach` it says why",
                        log.display()
                    )
                } else {
                    said.to_owned()
                }
            );
        }
        if Instant::now() > deadline {
            bail!(
                "the mesh did not come up within {} s; see {}",
                START_TIMEOUT.as_secs(),
                log.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
