//! Runs the runtime without the command line: `run STATE IMAGES|- DIR…`; SIGTERM or SIGINT stops it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr);
    match arguments.next().as_deref() {
        Some("machine-init") => {
            log.init();
            machine::init::main(machine::init::Hooks::default())
        }
        Some("container-exec") => machine::container::exec_main(),
        Some("down") => {
            let state = PathBuf::from(arguments.next().unwrap_or_default());
            finish(machine::down(&state))
        }
        Some(state) => {
            log.init();
            finish(run(state.into(), arguments.collect()))
        }
        None => {
            eprintln!("run STATE IMAGES|- DIR…");
            ExitCode::FAILURE
        }
    }
}

fn finish(work: impl Future<Output = machine::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(state: PathBuf, mut rest: Vec<String>) -> machine::Result<()> {
    let images = rest.remove(0);
    let mut options = machine::Options::new(rest.into_iter().map(PathBuf::from).collect(), state);
    options.images = (images != "-").then(|| PathBuf::from(images));
    options.search_path = std::env::var("PATH").unwrap_or_default();
    if let Ok(program) = std::env::var("TANBARK_PROXY_PROGRAM") {
        options.proxy_program = program.into();
    }
    options.resolvers = machine::options::resolvers_of(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let begun = std::time::Instant::now();
    let handle = machine::up(options).await?;
    handle.ready().await?;
    eprintln!("up after {:?}", begun.elapsed());
    let summary = handle.settled(Duration::from_secs(20)).await?;
    eprintln!("settled after {:?}\n{summary:#}", begun.elapsed());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    let mut ended = handle.ended();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
    let begun = std::time::Instant::now();
    handle.shutdown().await;
    eprintln!("down after {:?}", begun.elapsed());
    Ok(())
}
