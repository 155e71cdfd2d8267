//! `tanbark-proxy agent`: finds Envoy and runs the agent around it.

use std::{env, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use feed::{
    Environment, Role,
    agent::{self, AgentSettings, Ports},
};
use stdx::{SystemClock, SystemRng, drain};

use crate::signals::Terminate;

const DIRECTORY: &str = "/tmp/tanbark-agent";
/// Envoy's drain time, which the agent hands to it. Setting: `drainDuration` of ProxyConfig.
const DRAIN: Duration = Duration::from_secs(45);
/// How long Envoy is given after SIGTERM. Setting: `TERMINATION_DRAIN_DURATION_SECONDS`,
/// `terminationDrainDuration` of ProxyConfig.
const TERMINATION_DRAIN: Duration = Duration::from_secs(5);

pub fn run() -> anyhow::Result<ExitCode> {
    // Envoy chooses for itself.
    stdx::huge_pages::allow();
    let role = match env::var("TANBARK_PROXY_TYPE").as_deref() {
        Ok("gateway" | "router") => Role::Gateway,
        _ => Role::Sidecar,
    };
    let environment = Environment::new(role, env::vars())?;
    let settings = settings(&environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(async {
        let mut signals = Terminate::new()?;
        let (trigger, drain) = drain::channel();
        let agent = agent::run(settings, Arc::new(SystemClock), Arc::new(SystemRng), drain);
        tokio::pin!(agent);
        tokio::select! {
            status = &mut agent => return anyhow::Ok(status?),
            () = signals.wait() => trigger.start(),
        }
        Ok(agent.await?)
    })?;
    Ok(ExitCode::from(
        u8::try_from(status.code().unwrap_or(1)).unwrap_or(1),
    ))
}

fn settings(environment: &Environment) -> anyhow::Result<AgentSettings> {
    let concurrency = environment
        .proxy_number("concurrency")
        .and_then(|n| u32::try_from(n).ok());
    Ok(AgentSettings {
        feed: environment.settings()?,
        envoy: envoy(environment)?,
        directory: environment.path("TANBARK_AGENT_DIR", DIRECTORY),
        concurrency,
        log_level: environment
            .variable("TANBARK_ENVOY_LOG")
            .unwrap_or("warning")
            .to_owned(),
        termination_drain: environment
            .proxy_duration("terminationDrainDuration")
            .unwrap_or(TERMINATION_DRAIN),
        drain: environment.proxy_duration("drainDuration").unwrap_or(DRAIN),
        ports: Ports::default(),
    })
}

/// `TANBARK_ENVOY`, then the search path.
fn envoy(environment: &Environment) -> anyhow::Result<PathBuf> {
    if let Some(named) = environment.variable("TANBARK_ENVOY") {
        return Ok(named.into());
    }
    let search = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&search)
        .map(|directory| directory.join("envoy"))
        .find(|program| program.is_file())
        .context("no Envoy: set TANBARK_ENVOY to the program, or put `envoy` on PATH")
}
