//! Runs the runtime without the command line: `run STATE IMAGES|- DIR…`; SIGTERM or SIGINT stops
//! it.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes and sockets: measured and waited for in real time"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(std::io::stderr);
    match arguments.next().as_deref() {
        Some("machine-init") => {
            log.init();
            machine::init::main(machine::hooks::Hooks::default())
        }
        Some("container-exec") => machine::container::exec_main(),
        Some("down") => {
            let state = PathBuf::from(arguments.next().unwrap_or_default());
            finish(machine::down(&state))
        }
        Some("exec") => {
            let rest: Vec<String> = arguments.collect();
            finish(exec(rest))
        }
        Some("get") => {
            let rest: Vec<String> = arguments.collect();
            finish(get(rest))
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
    options.resolvers = machine::options::resolvers_of(
        &std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    );
    let begun = std::time::Instant::now();
    let handle = machine::up(options).await?;
    handle.ready().await?;
    eprintln!("up after {:?}", begun.elapsed());
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    let mut ended = handle.ended();
    tokio::select! {
        summary = handle.settled(Duration::from_secs(20)) => eprintln!("settled after {:?}\n{:#}", begun.elapsed(), summary?),
        _ = terminate.recv() => {
            handle.shutdown().await;
            return Ok(());
        }
    }
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

/// `get STATE PATH`
async fn get(rest: Vec<String>) -> machine::Result<()> {
    let client = machine::Client::new(PathBuf::from(&rest[0]).join("api.sock"));
    let object = client
        .request(http::Method::GET, &rest[1], "application/json", None)
        .await?;
    println!("{object:#}");
    Ok(())
}

/// `exec STATE NAMESPACE POD[/CONTAINER] COMMAND…`
async fn exec(rest: Vec<String>) -> machine::Result<()> {
    use machine::client::{ExecOptions, ExecOutput};
    use std::io::Write;
    let client = machine::Client::new(PathBuf::from(&rest[0]).join("api.sock"));
    let (pod, container) = rest[2]
        .split_once('/')
        .map_or((rest[2].as_str(), None), |(pod, container)| {
            (pod, Some(container.to_string()))
        });
    let options = ExecOptions {
        container,
        command: rest[3..].to_vec(),
        ..ExecOptions::default()
    };
    let mut session = client.exec(&rest[1], pod, &options).await?;
    while let Some(output) = session.next().await {
        match output {
            ExecOutput::Output(bytes) => std::io::stdout().write_all(&bytes).expect("written"),
            ExecOutput::Errors(bytes) => std::io::stderr().write_all(&bytes).expect("written"),
            ExecOutput::Ended(code) => eprintln!("(ended with {code})"),
            ExecOutput::Failed(message) => eprintln!("(failed: {message})"),
        }
    }
    Ok(())
}
