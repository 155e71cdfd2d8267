//! `tanbark-echo`: a test service that answers as each request asks, and the clients that tests hold against a mesh.
//!
//! Servers: `serve` (HTTP/1.1, HTTP/2, gRPC, WebSocket, TCP, TLS), `httpbin` (the same with go-httpbin's defaults), `hello` (Istio's
//! helloworld), `tcp-echo` (Istio's tcp-echo). Clients, each printing JSON: `load`, `ws-hold`, `grpc-hold`, `grpc-call`.
//! Only this file reads the environment. Everything a peer chooses (sizes, delays, counts, connections) is bounded.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod access_log;
mod client;
mod connection;
mod counters;
mod grpc;
mod http;
mod httpbin;
mod query;
mod serve;
mod server;
mod shape;
mod tcp;
mod tls;
mod websocket;

/// A test service whose answers are chosen by the request, and load and connection clients.
#[derive(Parser)]
#[command(name = "tanbark-echo", version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve on the given ports; 0 lets the system choose.
    Serve(Serve),
    /// Serve as mccutchen/go-httpbin does: HTTP on port 8080, CORS headers on every answer.
    Httpbin(Serve),
    /// Serve Istio's helloworld: `/hello` on port 5000.
    Hello(Hello),
    /// Serve Istio's tcp-echo: each line comes back with a word in front.
    TcpEcho(TcpEcho),
    /// Send HTTP/1.1 requests and report statuses and latencies.
    Load(client::load::Load),
    /// Hold WebSockets open and report which broke.
    WsHold(client::websocket_hold::WebSocketHold),
    /// Hold gRPC streams open and report which broke.
    GrpcHold(client::grpc::GrpcHold),
    /// Send unary gRPC requests and report their codes.
    GrpcCall(client::grpc::GrpcCall),
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Ports for HTTP/1.1 and HTTP/2 (prior knowledge), gRPC and WebSocket included.
    #[arg(long, env = "PORT", value_delimiter = ',')]
    http: Vec<u16>,
    /// Ports for gRPC alone: unknown methods get status UNIMPLEMENTED.
    #[arg(long, value_delimiter = ',')]
    grpc: Vec<u16>,
    /// Ports that send back every byte, or every line with --prefix.
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<u16>,
    /// Ports for TLS: HTTP where ALPN chose it, else as the TCP ports.
    #[arg(long, value_delimiter = ',')]
    tls: Vec<u16>,
    /// TCP and TLS ports greet with a line before they read.
    #[arg(long)]
    server_first: bool,
    /// Word that TCP ports put in front of each line.
    #[arg(long)]
    prefix: Option<String>,
    /// Names in the self-signed certificate.
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    tls_name: Vec<String>,
    /// PEM certificate chain in place of the self-signed one.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM private key of --tls-certificate.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Longest wait that httpbin's endpoints allow, seconds.
    #[arg(long, default_value_t = 10)]
    max_duration: u64,
    /// Largest request and generated httpbin body, bytes.
    #[arg(long, env = "MAX_BODY_SIZE", default_value_t = 1024 * 1024)]
    max_body_size: usize,
    /// Headers and arguments as single strings (python httpbin) in place of lists (go-httpbin).
    #[arg(long)]
    single_values: bool,
    /// CORS headers on every answer, as go-httpbin does.
    #[arg(long)]
    cors: bool,
    /// A line on standard output for each request, as httpbin's web server prints it.
    #[arg(long)]
    access_log: bool,
}

/// Where a server listens, and how it names itself.
#[derive(Args)]
struct Place {
    #[arg(long, default_value = "0.0.0.0")]
    address: IpAddr,
    /// Name in answers; the machine's if not given.
    #[arg(long, env = "HOSTNAME")]
    hostname: Option<String>,
    /// Version in answers.
    #[arg(long, env = "SERVICE_VERSION", default_value = "")]
    version: String,
    /// How long requests under way may take after the signal to stop, seconds.
    #[arg(long, default_value_t = 5)]
    drain: u64,
    /// How long new connections are still taken after the signal to stop, seconds: for rolling restarts in which callers learn of the end late.
    #[arg(long, env = "TANBARK_ECHO_LINGER", default_value_t = 0)]
    linger: u64,
}

#[derive(Args)]
struct Hello {
    #[command(flatten)]
    place: Place,
    #[arg(long, default_value_t = 5000)]
    http: u16,
}

#[derive(Args)]
struct TcpEcho {
    #[command(flatten)]
    place: Place,
    /// Ports, separated by commas.
    ports: Ports,
    /// Word in front of each line.
    #[arg(default_value = "")]
    prefix: String,
}

/// A list that is one word on the command line, because another word follows it.
#[derive(Clone)]
struct Ports(Vec<u16>);

impl std::str::FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = text.split(',').map(|port| {
            port.trim()
                .parse()
                .map_err(|_| format!("{port:?} is no port"))
        });
        ports.collect::<Result<_, _>>().map(Ports)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(command.verb))
}

async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Serve(flags) => serve(flags).await?,
        Verb::Httpbin(mut flags) => {
            flags.cors = true;
            flags.access_log = true;
            if flags.http.is_empty() {
                flags.http = vec![8080];
            }
            serve(flags).await?;
        }
        Verb::Hello(flags) => {
            let plan = serve::Plan {
                http: vec![at(&flags.place, flags.http)],
                ..serve::Plan::default()
            };
            serve::serve(plan, settings(&flags.place), ending(&flags.place)).await?;
        }
        Verb::TcpEcho(flags) => {
            let plan = serve::Plan {
                tcp: flags
                    .ports
                    .0
                    .iter()
                    .map(|port| at(&flags.place, *port))
                    .collect(),
                line: tcp::Conversation {
                    prefix: Some(flags.prefix),
                    greeting: None,
                },
                ..serve::Plan::default()
            };
            serve::serve(plan, settings(&flags.place), ending(&flags.place)).await?;
        }
        Verb::Load(load) => return client::load::run(load).await,
        Verb::WsHold(hold) => return client::websocket_hold::run(hold).await,
        Verb::GrpcHold(hold) => return client::grpc::hold(hold).await,
        Verb::GrpcCall(call) => return client::grpc::call(call).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(flags: Serve) -> anyhow::Result<()> {
    let mut settings = settings(&flags.place);
    settings.max_duration = Duration::from_secs(flags.max_duration);
    settings.max_body_bytes = flags.max_body_size;
    settings.single_values = flags.single_values;
    settings.cors = flags.cors;
    settings.access_log = flags.access_log;
    let places = |ports: &[u16]| ports.iter().map(|port| at(&flags.place, *port)).collect();
    let acceptor = match (&flags.tls_certificate, &flags.tls_key) {
        _ if flags.tls.is_empty() => None,
        (Some(certificate), Some(key)) => Some(tls::from_files(certificate, key)?),
        _ => Some(tls::self_signed(flags.tls_name)?),
    };
    let greeting = flags
        .server_first
        .then(|| format!("220 {} ready\r\n", settings.hostname));
    let plan = serve::Plan {
        http: places(&flags.http),
        grpc: places(&flags.grpc),
        tcp: places(&flags.tcp),
        tls: places(&flags.tls),
        acceptor,
        line: tcp::Conversation {
            prefix: flags.prefix,
            greeting,
        },
    };
    serve::serve(plan, settings, ending(&flags.place)).await
}

fn ending(place: &Place) -> serve::Ending {
    serve::Ending {
        linger: Duration::from_secs(place.linger),
        drain: Duration::from_secs(place.drain),
    }
}

fn at(place: &Place, port: u16) -> SocketAddr {
    SocketAddr::new(place.address, port)
}

fn settings(place: &Place) -> server::Settings {
    let hostname = place.hostname.clone().or_else(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned())
    });
    server::Settings {
        hostname: Arc::from(hostname.unwrap_or_else(|| "localhost".to_owned())),
        version: Arc::from(place.version.as_str()),
        max_duration: Duration::from_secs(10),
        max_body_bytes: 1024 * 1024,
        single_values: false,
        cors: false,
        access_log: false,
    }
}
