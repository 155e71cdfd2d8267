//! SDS for Envoy over a Unix socket: `default` and `ROOTCA` from the workload's identity, again
//! whenever it is renewed.

use std::{collections::BTreeMap, path::Path, pin::Pin, sync::Arc};

use futures_util::Stream;
use identity::{IdentityHandle, WorkloadIdentity};
use prost::Message;
use proxy_config::secret::SecretValue;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status as Code, Streaming};
use wire_envoy::{
    pb::{
        core::{DataSource, data_source::Specifier},
        discovery::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        },
        envoy::service::secret::v3::secret_discovery_service_server::{
            SecretDiscoveryService, SecretDiscoveryServiceServer,
        },
        tls::{CertificateValidationContext, Secret, TlsCertificate, secret::Type},
    },
    type_url,
};
use xds_protocol::{Flavour, Request as AdsRequest, Resource, Response as AdsResponse, Server};

use crate::{
    FeedError,
    file_secrets::{self, FileSecrets},
    status::Status,
};

#[cfg(test)]
mod tests;

/// Responses that may wait for Envoy.
const WAITING_RESPONSES: usize = 8;

/// A socket that only the owner may open.
pub(super) fn listen(path: &Path) -> Result<UnixListener, FeedError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| FeedError::File {
        path: path.display().to_string(),
        error,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

pub(super) async fn serve(listener: UnixListener, identity: IdentityHandle, status: Arc<Status>) {
    let service = SecretDiscoveryServiceServer::new(Secrets { identity, status });
    let served = tonic::transport::Server::builder().add_service(service);
    if let Err(error) = served
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
    {
        tracing::error!(%error, "the secret service has ended");
    }
}

struct Secrets {
    identity: IdentityHandle,
    status: Arc<Status>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Code>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type StreamSecretsStream = Responses<DiscoveryResponse>;
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Code> {
        let requests = request
            .into_inner()
            .map(|r| r.map(AdsRequest::StateOfTheWorld));
        let responses = self
            .stream(Flavour::StateOfTheWorld, Box::pin(requests))
            .filter_map(|r| match r {
                Ok(AdsResponse::StateOfTheWorld(response)) => Some(Ok(response)),
                Ok(AdsResponse::Delta(_)) => None,
                Err(code) => Some(Err(code)),
            });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Code> {
        let requests = request.into_inner().map(|r| r.map(AdsRequest::Delta));
        let responses = self
            .stream(Flavour::Delta, Box::pin(requests))
            .filter_map(|r| match r {
                Ok(AdsResponse::Delta(response)) => Some(Ok(response)),
                Ok(AdsResponse::StateOfTheWorld(_)) => None,
                Err(code) => Some(Err(code)),
            });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Code> {
        Err(Code::unimplemented("secrets are served as streams only"))
    }
}

impl Secrets {
    fn stream(
        &self,
        flavour: Flavour,
        requests: Responses<AdsRequest>,
    ) -> ReceiverStream<Result<AdsResponse, Code>> {
        let (sender, receiver) = mpsc::channel(WAITING_RESPONSES);
        // task: one SDS stream of a stock Envoy; ends when Envoy closes it
        tokio::spawn(answer(
            flavour,
            requests,
            self.identity.clone(),
            self.status.clone(),
            sender,
        ));
        ReceiverStream::new(receiver)
    }
}

async fn answer(
    flavour: Flavour,
    mut requests: Responses<AdsRequest>,
    identity: IdentityHandle,
    status: Arc<Status>,
    responses: mpsc::Sender<Result<AdsResponse, Code>>,
) {
    let mut server = Server::new(flavour);
    let mut renewed = status.renewals();
    let (sender, mut read) = mpsc::channel(WAITING_RESPONSES);
    let mut files = Files::new(sender);
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(Ok(request)) = request else { return };
                if let Err(error) = server.receive(request) {
                    // The receiver may be gone too; then there is nobody to tell.
                    let _ = responses.send(Err(Code::invalid_argument(error.to_string()))).await;
                    return;
                }
                if let Some((_, names)) = server.wanted(type_url::SECRET) {
                    files.secrets.follow(names);
                    files.read.retain(|name, _| names.contains(name));
                }
            }
            Some(answer) = read.recv() => files.take(answer),
            changed = renewed.changed() => if changed.is_err() { return },
            () = responses.closed() => return,
        }
        let mut all: Vec<Resource> = files.read.values().cloned().collect();
        let mut version = format!("{}", files.changes);
        if let Some(current) = identity.load() {
            let serial: Arc<str> = current.certificate().leaf().serial.as_str().into();
            all.extend(resources(&current, &serial));
            version = format!("{serial}.{version}");
        }
        if !all.is_empty() {
            server.offer(type_url::SECRET, &version.into(), all.into());
        }
        while let Some(response) = server.next_response() {
            if responses.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

/// What one stream asks for that stands in files.
struct Files {
    secrets: FileSecrets,
    read: BTreeMap<String, Resource>,
    /// Grows with each value that is read: its version.
    changes: u64,
}

impl Files {
    fn new(answers: mpsc::Sender<file_secrets::Answer>) -> Self {
        Self {
            secrets: FileSecrets::new(answers),
            read: BTreeMap::new(),
            changes: 0,
        }
    }

    /// A file that cannot be read is told in the log; Envoy waits for its secret, or keeps the last
    /// one.
    fn take(&mut self, answer: file_secrets::Answer) {
        let file_secrets::Answer { name, secret } = answer;
        let secret = match secret {
            Ok(secret) => secret,
            Err(why) => {
                tracing::warn!(
                    name,
                    why,
                    "a file cannot be read; Envoy does not get this secret"
                );
                return;
            }
        };
        self.changes += 1;
        let kind = match &secret.value {
            SecretValue::Certificate(certificate) => Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline(&certificate.chain_pem),
                private_key: inline(&certificate.key_pem),
                ..TlsCertificate::default()
            }),
            SecretValue::Roots { pem, crl_pem: _ } => {
                Type::ValidationContext(CertificateValidationContext {
                    trusted_ca: inline(pem),
                    ..Default::default()
                })
            }
        };
        let version = self.changes.to_string().into();
        self.read
            .insert(name.clone(), resource(&name, &version, kind));
    }
}

fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(text.as_bytes().to_vec())),
        ..DataSource::default()
    })
}

fn resource(name: &str, version: &Arc<str>, kind: Type) -> Resource {
    Resource {
        name: name.into(),
        version: version.clone(),
        body: Secret {
            name: name.into(),
            r#type: Some(kind),
        }
        .encode_to_vec()
        .into(),
    }
}

fn resources(identity: &WorkloadIdentity, version: &Arc<str>) -> [Resource; 2] {
    let certificate = TlsCertificate {
        certificate_chain: inline(&identity.certificate().chain().without_root().to_pem()),
        private_key: inline(&identity.certificate().key().to_pem()),
        ..TlsCertificate::default()
    };
    let roots = CertificateValidationContext {
        trusted_ca: inline(&identity.bundle().to_pem()),
        ..Default::default()
    };
    [
        resource("default", version, Type::TlsCertificate(certificate)),
        resource("ROOTCA", version, Type::ValidationContext(roots)),
    ]
}
