//! `tanbark`: command line, control plane and one-machine runtime in one program.
//!
//! `main → run(parse())`, one match over commands. Every command lives in `commands/<verb>.rs` with its `Args` and `run`; what several
//! share is beside this file: the client of the local API, manifests and their problems, output. Exit codes are kubectl's: 0, 1 for
//! any failure (a mistake on the command line too), and of `exec` the code of the command that was run.

use std::future::Future;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};

mod admin;
mod api;
mod cli;
mod commands;
mod jsonpath;
mod kind;
mod manifests;
mod object;
mod output;
mod problems;
mod scope;
mod session;
mod target;

use cli::{Cli, Command};
use session::Session;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[used]
#[unsafe(link_section = ".init_array.00001")]
static BEFORE_MAIN: extern "C" fn() = stdx::huge_pages::refuse;

fn main() -> ExitCode {
    // One of these stays beside every container for as long as it lives: it must not carry the whole command line's memory.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == cli::CONTAINER_EXEC)
    {
        return machine::container::exec_main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::explain(&error),
    };
    run(cli).unwrap_or_else(|error| {
        output::note(&output::failure(&error));
        if let Some(machine::Error::NotRunning { state }) = error.downcast_ref() {
            for other in session::running_beside(state) {
                output::note(&format!("one is running at {}", other.display()));
            }
        }
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    let Cli {
        state,
        namespace,
        mut command,
    } = cli;
    if let Some(namespace) = namespace {
        let scope = command
            .scope_mut()
            .context("--namespace means nothing to this command")?;
        scope.fall_back_to(namespace);
    }
    let session = Session::new(state);
    match command {
        // Before any thread is started: it changes the namespaces of its process.
        Command::MachineInit => Ok(commands::up::inside()),
        Command::Control(args) => commands::control::run(args),
        Command::Up(args) => wait(commands::up::run(args, &session)),
        Command::Down(args) => wait(commands::down::run(args, &session)),
        Command::Status(args) => wait(commands::status::run(args, &session)),
        Command::Apply(args) => wait(commands::apply::run(args, &session)),
        Command::Create(args) => wait(commands::create::run(args, &session)),
        Command::Describe(args) => wait(commands::describe::run(args, &session)),
        Command::Events(args) => wait(commands::events::run(args, &session)),
        Command::Wait(args) => wait(commands::wait::run(args, &session)),
        Command::Delete(args) => wait(commands::delete::run(args, &session)),
        Command::Get(args) => wait(commands::get::run(args, &session)),
        Command::Logs(args) => wait(commands::logs::run(args, &session)),
        Command::Exec(args) => wait(commands::exec::run(args, &session)),
        Command::Scale(args) => wait(commands::scale::run(args, &session)),
        Command::Rollout(command) => wait(commands::rollout::run(command, &session)),
        Command::ProxyConfig(command) => wait(commands::proxy_config::run(command, &session)),
        Command::ProxyStatus(args) => wait(commands::proxy_status::run(args, &session)),
        Command::Render(args) => commands::render::run(args),
        Command::Validate(args) => commands::validate::run(args),
        Command::Proxy(args) => wait(commands::proxy::run(args, &session)),
        Command::Kubeconfig(args) => commands::kubeconfig::run(args),
        Command::Version(args) => commands::version::run(args),
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
    }
}

/// Runs a command's future on a runtime of its own; one thread is plenty for a client.
fn wait(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let result = runtime.block_on(command);
    // A read of standard input that nobody waits for any more must not hold the program.
    runtime.shutdown_background();
    result
}
