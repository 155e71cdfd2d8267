//! A running proxy with one worker, fed as the feed does it; and upstreams that count who came.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use feed::warm::{Change, Kind, Warming};
use proxy::{Live, Settings, Worker, listen, report::NoReporter};
use stdx::drain;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use wire_envoy::{Descriptors, any, pb};
use xds_decode::{Decoder, Resource};

/// What a test waits for comes within this time, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long the feed waits for what is missing; tests let it pass by giving `settle_at` a later
/// time.
pub const WARM: Duration = Duration::from_secs(15);
pub const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions";

pub struct Proxy {
    pub live: Arc<Live>,
    worker: Arc<Worker>,
    pub warming: Warming,
    _drain: drain::DrainTrigger,
}

impl Proxy {
    pub fn start() -> Self {
        let live = Arc::new(Live::default());
        let worker = Worker::new(live.clone(), Arc::new(NoReporter), Settings::default());
        let (trigger, draining) = drain::channel();
        tokio::spawn(listen::run(worker.clone(), draining));
        Self {
            live,
            worker,
            warming: Warming::new(WARM, WARM, true),
            _drain: trigger,
        }
    }

    /// Takes one resource, without publishing; returns what was refused.
    pub fn take<M: prost::Message + prost::Name + Default>(&mut self, yaml: &str) -> Vec<String> {
        let message: M = Descriptors::load()
            .expect("built-in")
            .from_yaml(yaml)
            .expect("the test's own YAML");
        let taken = Decoder::default().take(&any(&message));
        let change = match taken.resource.expect("taken") {
            Resource::Cluster(cluster) => Change::Cluster(cluster.into()),
            Resource::Endpoints(endpoints) => Change::Endpoints(endpoints.into()),
            Resource::Listener(listener) => Change::Listener(listener.into()),
            Resource::Routes(table) => Change::Routes(table.into()),
            Resource::Secret(secret) => Change::Secret(secret.into()),
        };
        self.warming.set(change, self.live.clock.now());
        taken.refused.iter().map(ToString::to_string).collect()
    }

    pub fn publish(&mut self) {
        self.settle_at(self.live.clock.now());
    }

    pub fn settle_at(&mut self, now: Instant) {
        self.live.publish(self.warming.settle(now));
    }

    /// The control plane, or the agent, has no such secret.
    pub fn without_secret(&mut self, name: &str) {
        let now = self.live.clock.now();
        self.warming.remove(Kind::Secret, name, now);
        self.publish();
    }

    /// Takes and publishes the only listener, with these chains; returns what was refused.
    pub fn listener(&mut self, chains: &str) -> Vec<String> {
        let refused = self.take::<pb::listener::Listener>(&format!(
            "{{name: virtualInbound, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, \
             listener_filters: [{{name: tls, typed_config: {{{TYPE}.filters.listener.tls_inspector.v3.TlsInspector}}}}], \
             filter_chains: [{chains}]}}"
        ));
        self.publish();
        refused
    }

    async fn address(&self) -> SocketAddr {
        let bound = async {
            loop {
                if let Some((_, address)) = self.worker.bound().first() {
                    return *address;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, bound).await.expect("bound")
    }

    /// What a plaintext request to this host gets; empty: the connection is closed.
    pub async fn get(&self, host: &str) -> String {
        let asking = self.ask(host).await;
        tokio::time::timeout(DEADLINE, asking)
            .await
            .expect("an end")
            .expect("no panic")
    }

    /// A request under way.
    pub async fn ask(&self, host: &str) -> tokio::task::JoinHandle<String> {
        let address = self.address().await;
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        tokio::spawn(async move {
            let ask = async {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(request.as_bytes()).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                std::io::Result::Ok(answer)
            };
            ask.await.unwrap_or_default()
        })
    }

    /// Until as many requests wait as the test has sent: their connections are open and none has
    /// been answered.
    pub async fn until_active(&self, requests: u64) {
        let active = async {
            loop {
                let query = telemetry::stats::Query::default();
                let text = self.live.stats.render(&query);
                let gauge = "http.in.downstream_rq_active: ";
                let active = text.lines().find_map(|line| line.strip_prefix(gauge));
                if active.and_then(|n| n.parse().ok()) == Some(requests) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, active)
            .await
            .expect("the request is under way");
    }
}

/// An HTTP server that answers 200 and counts the connections by which anything came, encrypted or
/// not.
pub struct Upstream {
    pub address: SocketAddr,
    heard: Arc<AtomicUsize>,
}

impl Upstream {
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = socket.local_addr().expect("bound");
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = heard.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                let counted = counted.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    if stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        // The proxy may have gone; the test looks at its own side.
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        Self { address, heard }
    }

    /// Connections by which something was said.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }

    /// As an endpoint of a load assignment.
    pub fn endpoints(&self) -> String {
        format!(
            "endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]",
            self.address.ip(),
            self.address.port()
        )
    }
}
