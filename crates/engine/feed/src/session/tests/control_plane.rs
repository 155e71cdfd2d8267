//! A small control plane for tests: certificate service and ADS behind TLS, on loopback.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{Stream, StreamExt};
use identity::{
    CertificateAuthority, ConnectionInfo, SpiffeId, TrustDomain,
    tls::{ClientAuth, PeerValidation, Presented, Roots, ServerTls, TlsSettings, server_config},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status as Code, Streaming, transport::server::Connected};
use wire_envoy::pb::{
    Any,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
        },
    },
    istio::auth::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{
            IstioCertificateService, IstioCertificateServiceServer,
        },
    },
};
use xds_protocol::{
    Acknowledged, Flavour, Request as AdsRequest, Resource, Response as AdsResponse, Server,
};

pub struct ControlPlane {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    authority: CertificateAuthority,
    resources: Mutex<BTreeMap<(String, String), Resource>>,
    changed: watch::Sender<u64>,
    tokens: Mutex<Vec<String>>,
    peers: Mutex<Vec<Option<String>>>,
    rejections: Mutex<Vec<String>>,
}

impl ControlPlane {
    pub async fn start(port: u16) -> Self {
        let authority =
            CertificateAuthority::self_signed(&TrustDomain::default(), SystemTime::now()).unwrap();
        Self::restart(port, authority).await
    }

    pub async fn restart(port: u16, authority: CertificateAuthority) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            authority,
            resources: Mutex::default(),
            changed: watch::Sender::new(0),
            tokens: Mutex::default(),
            peers: Mutex::default(),
            rejections: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Self { port, shared, task }
    }

    /// Ends every connection.
    pub async fn stop(self) -> CertificateAuthority {
        self.task.abort();
        let _ = self.task.await;
        self.shared.changed.send_modify(|n| *n = u64::MAX);
        CertificateAuthority::from_pem(&self.shared.authority.to_pem()).unwrap()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn root_pem(&self) -> String {
        self.shared.authority.bundle().to_pem()
    }

    pub fn set(&self, resources: &[(&str, Any)]) {
        for (name, any) in resources {
            let version = self.shared.changed.borrow().to_string().into();
            let resource = Resource {
                name: (*name).into(),
                version,
                body: any.value.clone().into(),
            };
            self.shared
                .resources
                .lock()
                .insert((any.type_url.clone(), (*name).into()), resource);
        }
        self.shared.changed.send_modify(|n| *n += 1);
    }

    pub fn remove(&self, type_url: &str, name: &str) {
        self.shared
            .resources
            .lock()
            .remove(&(type_url.to_owned(), name.to_owned()));
        self.shared.changed.send_modify(|n| *n += 1);
    }

    pub fn tokens(&self) -> Vec<String> {
        self.shared.tokens.lock().clone()
    }

    pub fn peers(&self) -> Vec<Option<String>> {
        self.shared.peers.lock().clone()
    }

    pub fn rejections(&self) -> Vec<String> {
        self.shared.rejections.lock().clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let certificate = shared
        .authority
        .issue_server(
            &["istiod.test"],
            Duration::from_secs(3600),
            SystemTime::now(),
        )
        .unwrap();
    let validation = PeerValidation {
        roots: Roots::Bundle(shared.authority.bundle().clone()),
        names: vec![],
        match_server_name: false,
    };
    let config = server_config(&ServerTls {
        presented: Presented::Fixed([certificate].into()),
        client_auth: ClientAuth::Optional(validation),
        alpn: vec![b"h2".to_vec()],
        settings: TlsSettings::default(),
        resumption: false,
    });
    let acceptor = TlsAcceptor::from(config.unwrap());
    let peers = shared.clone();
    let incoming =
        futures_util::stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else {
                    continue;
                };
                if let Ok(tls) = acceptor.accept(tcp).await {
                    return Some((Ok::<_, std::io::Error>(Tls(tls)), (listener, acceptor)));
                }
            }
        })
        .inspect(move |tls| {
            let info = tls
                .as_ref()
                .ok()
                .map(|tls| ConnectionInfo::of(tls.0.get_ref().1));
            let id = info
                .and_then(|info| info.peer)
                .and_then(|peer| peer.spiffe_id())
                .map(|id| id.to_string());
            peers.peers.lock().push(id);
        });
    let served = tonic::transport::Server::builder()
        .add_service(AggregatedDiscoveryServiceServer::new(Service(
            shared.clone(),
        )))
        .add_service(IstioCertificateServiceServer::new(Service(shared)));
    let _ = served.serve_with_incoming(incoming).await;
}

struct Service(Arc<Shared>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Code>> + Send>>;

impl Service {
    fn note_token<T>(&self, request: &Request<T>) {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        self.0.tokens.lock().push(token.to_owned());
    }

    fn stream(
        &self,
        flavour: Flavour,
        requests: Responses<AdsRequest>,
    ) -> ReceiverStream<Result<AdsResponse, Code>> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(answer(self.0.clone(), flavour, requests, sender));
        ReceiverStream::new(receiver)
    }
}

async fn answer(
    shared: Arc<Shared>,
    flavour: Flavour,
    mut requests: Responses<AdsRequest>,
    responses: mpsc::Sender<Result<AdsResponse, Code>>,
) {
    let mut server = Server::new(flavour);
    let mut changed = shared.changed.subscribe();
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(Ok(request)) = request else { return };
                let event = server.receive(request).unwrap();
                if let Acknowledged::Rejected { detail } = event.acknowledged {
                    shared.rejections.lock().push(detail);
                }
            }
            _ = changed.changed() => if *changed.borrow() == u64::MAX { return },
        }
        let types: Vec<String> = server.types().map(str::to_owned).collect();
        let version: Arc<str> = changed.borrow().to_string().into();
        for type_url in types {
            let all = shared.resources.lock();
            let set: Vec<Resource> = all
                .iter()
                .filter(|((t, _), _)| *t == type_url)
                .map(|(_, r)| r.clone())
                .collect();
            server.offer(&type_url, &version, set.into());
        }
        while let Some(response) = server.next_response() {
            if responses.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Code> {
        self.note_token(&request);
        let requests = request
            .into_inner()
            .map(|r| r.map(AdsRequest::StateOfTheWorld));
        let responses = self
            .stream(Flavour::StateOfTheWorld, Box::pin(requests))
            .map(|r| match r? {
                AdsResponse::StateOfTheWorld(response) => Ok(response),
                AdsResponse::Delta(_) => Err(Code::internal("flavour")),
            });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Code> {
        self.note_token(&request);
        let requests = request.into_inner().map(|r| r.map(AdsRequest::Delta));
        let responses = self
            .stream(Flavour::Delta, Box::pin(requests))
            .map(|r| match r? {
                AdsResponse::Delta(response) => Ok(response),
                AdsResponse::StateOfTheWorld(_) => Err(Code::internal("flavour")),
            });
        Ok(Response::new(Box::pin(responses)))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Code> {
        self.note_token(&request);
        let IstioCertificateRequest {
            csr,
            validity_duration,
            ..
        } = request.into_inner();
        let ttl = Duration::from_secs(u64::try_from(validity_duration).unwrap());
        let id = SpiffeId::parse("spiffe://cluster.local/ns/b/sa/a").unwrap();
        let chain = self
            .0
            .authority
            .sign(&csr, &id, Some(ttl), SystemTime::now());
        let chain = chain.map_err(|e| Code::invalid_argument(e.to_string()))?;
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: chain.to_pem_blocks(),
        }))
    }
}

struct Tls(TlsStream<TcpStream>);

impl Connected for Tls {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
