//! `tanbark exec POD|KIND/NAME -- CMD`: a command in a running container; its exit code becomes ours.
//!
//! With `-t` the terminal is the command's while it runs; a signal that kills the command is its code, 128 and more.

mod terminal;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use machine::client::{ExecOptions, ExecOutput};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::scope::Scope;
use crate::session::Session;
use crate::target::{choose_container, default_container, find_pod};
use crate::{object, output};
use terminal::Raw;
pub use terminal::size as terminal_size;

/// Messages of standard input that wait to be sent.
const QUEUE: usize = 16;

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark exec deploy/curl -- curl -s http://httpbin:8000/get\n  tanbark exec -it deploy/curl -c curl -- sh";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// POD, or KIND/NAME for one of its pods
    pub pod: String,
    #[command(flatten)]
    pub scope: Scope,
    /// Container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// No notes beside what the command prints
    #[arg(short, long)]
    quiet: bool,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn run(args: Args, session: &Session) -> Result<ExitCode> {
    let api = session.api()?;
    let pod = find_pod(&api, args.scope.namespace(), &args.pod).await?;
    let container = match (&args.container, args.quiet) {
        (None, true) => default_container(&pod).0,
        (named, _) => choose_container(&pod, named.as_deref())?,
    };
    let tty = args.tty && terminal::is_terminal();
    if args.tty && !tty && !args.quiet {
        output::note("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let options = ExecOptions {
        container: Some(container),
        command: args.command,
        stdin: args.stdin || tty,
        terminal: tty,
    };
    let stdin = options.stdin;
    let exec = api
        .client()
        .exec(object::namespace(&pod), object::name(&pod), &options)
        .await?;
    talk(exec, stdin, tty, args.quiet).await
}

/// What goes to the command.
enum Input {
    Bytes(Vec<u8>),
    End,
    /// Columns and rows.
    Size(u16, u16),
}

async fn talk(
    mut exec: machine::client::Exec,
    stdin: bool,
    tty: bool,
    quiet: bool,
) -> Result<ExitCode> {
    let (sender, mut typed) = mpsc::channel::<Input>(QUEUE);
    let raw = if tty { Some(Raw::enter()?) } else { None };
    if tty {
        // task: tells sizes of the terminal; ends with the session
        tokio::spawn(terminal::send_sizes(sender.clone()));
    }
    if stdin {
        // task: reads what is typed; ends with the input or the session
        tokio::spawn(read_input(sender.clone()));
    }
    drop(sender);
    let mut typing = true;
    let ended = loop {
        tokio::select! {
            input = typed.recv(), if typing => match input {
                Some(Input::Bytes(bytes)) => exec.input(&bytes).await?,
                Some(Input::End) => exec.end_input().await?,
                Some(Input::Size(columns, rows)) => exec.resize(columns, rows).await?,
                None => typing = false,
            },
            piece = exec.next() => match piece {
                Some(ExecOutput::Output(bytes)) => output::emit_bytes(&bytes),
                Some(ExecOutput::Errors(bytes)) => {
                    let mut errors = std::io::stderr().lock();
                    let _ = errors.write_all(&bytes).and_then(|()| errors.flush());
                }
                Some(ended) => break ended,
                None => bail!("the connection ended before the command did"),
            },
        }
    };
    drop(raw);
    match ended {
        ExecOutput::Failed(message) => bail!("{message}"),
        ExecOutput::Ended(0) => Ok(ExitCode::SUCCESS),
        ExecOutput::Ended(code) => {
            if !quiet {
                output::note(&format!("command terminated with exit code {code}"));
            }
            Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
        }
        ExecOutput::Output(_) | ExecOutput::Errors(_) => bail!("bug: output after the end"),
    }
}

async fn read_input(sender: mpsc::Sender<Input>) {
    let mut input = tokio::io::stdin();
    let mut bytes = vec![0_u8; 16 << 10];
    while let Ok(length @ 1..) = input.read(&mut bytes).await {
        if sender
            .send(Input::Bytes(bytes[..length].to_vec()))
            .await
            .is_err()
        {
            return;
        }
    }
    let _ = sender.send(Input::End).await;
}
