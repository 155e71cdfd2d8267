//! The published secrets and the TLS contexts that are made from them.

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use identity::{
    IdentityHandle, SanPattern, SanRegex, TlsCertificate, TrustBundle,
    tls::{
        CipherSuites, ClientAuth, ClientConfig, ClientTls, Curves, PeerValidation, Presented,
        Roots as LiveRoots, ServerTls, TlsSettings, TlsVersion, client_config, server_config,
    },
};
use parking_lot::Mutex;
use proxy_config::{
    Secret, SecretName,
    cluster::Transport,
    matcher::StringPattern,
    secret::{Certificate, SecretValue},
    tls::{
        self, CertificateSource, CommonTls, DownstreamTls, Roots, SanKind, TrustChain, UpstreamTls,
        Validation,
    },
};

use crate::{
    problem::PublishProblem,
    tls::{LiveTransport, LocalNames},
};

/// Names under which Istio's configuration refers to the workload's own certificate and to the mesh's roots.
const OWN_CERTIFICATE: &str = "default";
const MESH_ROOTS: &str = "ROOTCA";

type ServerConfig = Arc<identity::tls::ServerConfig>;

/// All secrets of a proxy, and the contexts to make anew when one changes.
#[derive(Default)]
pub struct Secrets {
    /// Stands for the secrets `default` and `ROOTCA` unless secrets of these names were published.
    pub identity: IdentityHandle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secrets: std::collections::HashMap<SecretName, Arc<Secret>, RandomState>,
    servers: Vec<Weak<ServerSlot>>,
    clients: Vec<Weak<ClientSlot>>,
}

/// The server side's context of a filter chain.
#[derive(Clone)]
pub struct LiveServerTls(Arc<ServerSlot>);

struct ServerSlot {
    config: Arc<DownstreamTls>,
    identity: IdentityHandle,
    current: ArcSwapOption<Made<ServerConfig>>,
}

/// The client side's context of a cluster's transport socket.
#[derive(Clone)]
pub struct LiveClientTls(Arc<ClientSlot>);

struct ClientSlot {
    config: Arc<UpstreamTls>,
    identity: IdentityHandle,
    current: ArcSwapOption<Made<ClientConfig>>,
}

struct Made<Config> {
    config: Config,
    /// The same, agreeing to no protocol; servers only need it.
    without_alpn: Config,
    /// `None`: the workload's own identity, whatever it is.
    names: Option<LocalNames>,
}

impl LiveServerTls {
    /// All its secrets are there and usable.
    pub(crate) fn is_usable(&self) -> bool {
        self.0.current.load().is_some()
    }

    /// The secrets that it names.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        names(&self.0.config.common)
    }

    /// The configuration for a client that offers these protocols. One that offers none of ours is let in without ALPN, as in Envoy.
    /// `None` while a secret is missing or unusable.
    pub(super) fn config_for(&self, offered: &[Vec<u8>]) -> Option<ServerConfig> {
        let current = self.0.current.load();
        let made = current.as_ref()?;
        let agrees = offered.is_empty()
            || offered
                .iter()
                .any(|protocol| made.config.alpn_protocols.contains(protocol));
        Some(if agrees {
            made.config.clone()
        } else {
            made.without_alpn.clone()
        })
    }

    /// Whether a client's certificate must be one that our roots vouch for, and in force.
    pub(super) fn verifies_peer(&self) -> bool {
        verifies(&self.0.config.common)
    }

    pub(super) fn requires_sni(&self) -> bool {
        self.0.config.require_sni
    }

    pub(super) fn local_names(&self) -> LocalNames {
        self.0
            .current
            .load()
            .as_ref()
            .and_then(|made| made.names.clone())
            .unwrap_or_else(|| own_names(&self.0.identity))
    }
}

impl LiveClientTls {
    /// `None` while a secret is missing or unusable.
    pub fn current(&self) -> Option<ClientConfig> {
        self.0
            .current
            .load()
            .as_ref()
            .map(|made| made.config.clone())
    }

    /// Whether a server's certificate must be one that our roots vouch for, and in force.
    pub(super) fn verifies_peer(&self) -> bool {
        verifies(&self.0.config.common)
    }

    pub fn config(&self) -> &UpstreamTls {
        &self.0.config
    }

    pub fn local_names(&self) -> LocalNames {
        self.0
            .current
            .load()
            .as_ref()
            .and_then(|made| made.names.clone())
            .unwrap_or_else(|| own_names(&self.0.identity))
    }
}

impl Secrets {
    /// The context for a filter chain; with it, why it cannot be used yet.
    pub(crate) fn server(&self, config: &Arc<DownstreamTls>) -> (LiveServerTls, Option<String>) {
        let slot = Arc::new(ServerSlot {
            config: config.clone(),
            identity: self.identity.clone(),
            current: ArcSwapOption::empty(),
        });
        let mut state = self.state.lock();
        let problem = state.make_server(&slot).err();
        state.servers.push(Arc::downgrade(&slot));
        (LiveServerTls(slot), problem)
    }

    /// The transport of a cluster; with it, why it cannot be used yet.
    pub(crate) fn transport(&self, transport: &Transport) -> (LiveTransport, Option<String>) {
        match transport {
            Transport::Plaintext => (LiveTransport::Plaintext, None),
            Transport::Refused(refused) => (
                LiveTransport::Refuse,
                Some(format!("no connection is made: {}", refused.reason)),
            ),
            Transport::Tls(config) => {
                let slot = Arc::new(ClientSlot {
                    config: config.clone(),
                    identity: self.identity.clone(),
                    current: ArcSwapOption::empty(),
                });
                let mut state = self.state.lock();
                let problem = state.make_client(&slot).err();
                state.clients.push(Arc::downgrade(&slot));
                (LiveTransport::Tls(LiveClientTls(slot)), problem)
            }
            Transport::ProxyProtocol { version, inner } => {
                let (inner, problem) = self.transport(inner);
                (
                    LiveTransport::ProxyProtocol(*version, Arc::new(inner)),
                    problem,
                )
            }
        }
    }

    /// The secrets that were published, for the admin page. Keys are redacted by `Debug`, not here.
    pub fn published(&self) -> Vec<Arc<Secret>> {
        self.state.lock().secrets.values().cloned().collect()
    }

    /// Takes new secrets and makes every context anew that names one of them.
    pub(crate) fn replace(
        &self,
        set: &[Arc<Secret>],
        removed: &[SecretName],
        problems: &mut Vec<PublishProblem>,
    ) {
        if set.is_empty() && removed.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for name in removed {
            state.secrets.remove(name);
        }
        for secret in set {
            state.secrets.insert(secret.name.clone(), secret.clone());
        }
        let changed =
            |name: &SecretName| set.iter().any(|s| s.name == *name) || removed.contains(name);
        let mut trouble = Vec::new();
        let servers = std::mem::take(&mut state.servers);
        let clients = std::mem::take(&mut state.clients);
        for slot in servers
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|slot| names(&slot.config.common).any(&changed))
        {
            trouble.extend(state.make_server(&slot).err());
        }
        for slot in clients
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|slot| names(&slot.config.common).any(&changed))
        {
            trouble.extend(state.make_client(&slot).err());
        }
        state.servers = servers
            .into_iter()
            .filter(|slot| slot.strong_count() > 0)
            .collect();
        state.clients = clients
            .into_iter()
            .filter(|slot| slot.strong_count() > 0)
            .collect();
        trouble.sort();
        trouble.dedup();
        let name = set
            .first()
            .map(|s| s.name.shared())
            .or(removed.first().map(SecretName::shared))
            .unwrap_or_default();
        problems.extend(trouble.into_iter().map(|problem| PublishProblem {
            kind: "secret",
            name: name.clone(),
            problem,
        }));
    }
}

/// Whether the peer's certificate is verified, and not only taken as it comes.
fn verifies(common: &CommonTls) -> bool {
    common.validation.as_ref().is_some_and(|validation| {
        validation.trust_chain == TrustChain::Verify && validation.roots != Roots::None
    })
}

/// The secrets that a context names.
fn names(common: &CommonTls) -> impl Iterator<Item = &SecretName> {
    let certificates = common
        .certificates
        .iter()
        .filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(name),
            CertificateSource::Inline(_) => None,
        });
    let roots = common
        .validation
        .iter()
        .filter_map(|validation| match &validation.roots {
            Roots::Secret(name) => Some(name),
            Roots::InlinePem(_) | Roots::System | Roots::None => None,
        });
    certificates.chain(roots)
}

impl State {
    fn make_server(&self, slot: &ServerSlot) -> Result<(), String> {
        let made = self.server(slot);
        let (made, result) = match made {
            Ok(made) => (Some(Arc::new(made)), Ok(())),
            Err(problem) => (None, Err(problem)),
        };
        slot.current.store(made);
        result
    }

    fn make_client(&self, slot: &ClientSlot) -> Result<(), String> {
        let (made, result) = match self.client(slot) {
            Ok(made) => (Some(Arc::new(made)), Ok(())),
            Err(problem) => (None, Err(problem)),
        };
        slot.current.store(made);
        result
    }

    fn server(&self, slot: &ServerSlot) -> Result<Made<ServerConfig>, String> {
        let common = &slot.config.common;
        let (presented, names) = self
            .presented(common, &slot.identity)?
            .ok_or("a server needs a certificate")?;
        let validation = common
            .validation
            .as_ref()
            .map(|v| self.validation(v, &slot.identity))
            .transpose()?;
        let client_auth = match (validation, slot.config.require_client_certificate) {
            (Some(validation), true) => ClientAuth::Required(validation),
            (Some(validation), false) => ClientAuth::Optional(validation),
            // Envoy then takes any certificate, but does ask for one.
            (None, true) => ClientAuth::Required(PeerValidation::unverified()),
            (None, false) => ClientAuth::None,
        };
        let tls = ServerTls {
            presented,
            client_auth,
            alpn: alpn(&common.alpn),
            settings: settings(common)?,
            resumption: true,
        };
        let config = server_config(&tls).map_err(|e| e.to_string())?;
        let mut without_alpn = (*config).clone();
        without_alpn.alpn_protocols.clear();
        Ok(Made {
            config,
            without_alpn: Arc::new(without_alpn),
            names,
        })
    }

    fn client(&self, slot: &ClientSlot) -> Result<Made<ClientConfig>, String> {
        let UpstreamTls {
            common,
            sni,
            auto_san_validation,
            max_session_keys,
            ..
        } = &*slot.config;
        let (presented, names) = match self.presented(common, &slot.identity)? {
            Some((presented, names)) => (Some(presented), names),
            None => (None, Some(LocalNames::default())),
        };
        let mut validation = match &common.validation {
            Some(validation) => self.validation(validation, &slot.identity)?,
            // Envoy does not verify a server unless told how to.
            None => PeerValidation::unverified(),
        };
        validation.match_server_name |= *auto_san_validation;
        let tls = ClientTls {
            presented,
            validation,
            sni: sni.as_deref().map(str::to_owned),
            alpn: alpn(&common.alpn),
            settings: settings(common)?,
            resumption: *max_session_keys != Some(0),
        };
        let config = client_config(&tls).map_err(|e| e.to_string())?;
        Ok(Made {
            without_alpn: config.clone(),
            config,
            names,
        })
    }

    /// What is presented, and the names in it (`None`: those of the workload's identity).
    fn presented(
        &self,
        common: &CommonTls,
        identity: &IdentityHandle,
    ) -> Result<Option<(Presented, Option<LocalNames>)>, String> {
        let mut fixed = Vec::new();
        for source in common.certificates.iter() {
            let certificate = match source {
                CertificateSource::Inline(certificate) => certificate.clone(),
                CertificateSource::Secret(name) => match self.secrets.get(name).map(|s| &s.value) {
                    Some(SecretValue::Certificate(certificate)) => certificate.clone(),
                    Some(SecretValue::Roots { .. }) => {
                        return Err(format!("secret {name} holds roots, not a certificate"));
                    }
                    None if name.as_str() == OWN_CERTIFICATE => {
                        return Ok(Some((Presented::Workload(identity.clone()), None)));
                    }
                    None => return Err(format!("secret {name} is not there")),
                },
            };
            let Certificate {
                chain_pem,
                key_pem,
                ocsp_staple,
            } = &*certificate;
            let made = TlsCertificate::from_pem(chain_pem, key_pem).map_err(|e| e.to_string())?;
            fixed.push(made.with_ocsp_staple(ocsp_staple.as_deref()));
        }
        let Some(first) = fixed.first() else {
            return Ok(None);
        };
        let leaf = first.leaf();
        let names = LocalNames {
            uris: leaf.uri_sans.iter().map(|n| n.as_str().into()).collect(),
            dns: leaf.dns_sans.iter().map(|n| n.as_str().into()).collect(),
            emails: leaf.email_sans.iter().map(|n| n.as_str().into()).collect(),
            ips: leaf.ip_sans.clone(),
            subject: (!leaf.subject.is_empty()).then(|| leaf.subject.as_str().into()),
        };
        Ok(Some((Presented::Fixed(fixed.into()), Some(names))))
    }

    fn validation(
        &self,
        validation: &Validation,
        identity: &IdentityHandle,
    ) -> Result<PeerValidation, String> {
        let Validation {
            roots,
            subject_alt_names,
            trust_chain,
        } = validation;
        let roots = match (roots, trust_chain) {
            (_, TrustChain::AcceptUntrusted) | (Roots::None, TrustChain::Verify) => {
                LiveRoots::Unverified
            }
            (Roots::InlinePem(pem), TrustChain::Verify) => bundle(pem)?,
            (Roots::System, TrustChain::Verify) => LiveRoots::Bundle(system_roots()?),
            (Roots::Secret(name), TrustChain::Verify) => {
                match self.secrets.get(name).map(|s| &s.value) {
                    Some(SecretValue::Roots { pem, crl_pem: None }) => bundle(pem)?,
                    Some(SecretValue::Roots {
                        crl_pem: Some(_), ..
                    }) => return Err("revocation lists are not supported".into()),
                    Some(SecretValue::Certificate(_)) => {
                        return Err(format!("secret {name} holds a certificate, not roots"));
                    }
                    None if name.as_str() == MESH_ROOTS => LiveRoots::Workload(identity.clone()),
                    None => return Err(format!("secret {name} is not there")),
                }
            }
        };
        let names = subject_alt_names
            .iter()
            .map(san)
            .collect::<Result<_, _>>()?;
        Ok(PeerValidation {
            roots,
            names,
            match_server_name: false,
        })
    }
}

fn own_names(identity: &IdentityHandle) -> LocalNames {
    identity
        .load()
        .map(|own| LocalNames {
            uris: vec![own.id().as_str().into()],
            ..LocalNames::default()
        })
        .unwrap_or_default()
}

fn bundle(pem: &str) -> Result<LiveRoots, String> {
    TrustBundle::from_pem(pem)
        .map(LiveRoots::Bundle)
        .map_err(|e| e.to_string())
}

/// Read once: it walks the machine's certificate files.
fn system_roots() -> Result<TrustBundle, String> {
    static ROOTS: OnceLock<Result<TrustBundle, String>> = OnceLock::new();
    ROOTS
        .get_or_init(|| TrustBundle::system().map_err(|e| e.to_string()))
        .clone()
}

fn san(matcher: &tls::SanMatcher) -> Result<identity::SanMatcher, String> {
    let kind = match matcher.kind {
        SanKind::Any => identity::SanKind::Any,
        SanKind::Uri => identity::SanKind::Uri,
        SanKind::Dns => identity::SanKind::Dns,
        SanKind::Email => identity::SanKind::Email,
        SanKind::IpAddress => identity::SanKind::Ip,
    };
    let pattern = match &matcher.matcher.pattern {
        StringPattern::Exact(text) => SanPattern::Exact(text.to_string()),
        StringPattern::Prefix(text) => SanPattern::Prefix(text.to_string()),
        StringPattern::Suffix(text) => SanPattern::Suffix(text.to_string()),
        StringPattern::Contains(text) => SanPattern::Contains(text.to_string()),
        StringPattern::Regex(regex) => {
            SanPattern::Regex(SanRegex::parse(regex.pattern()).map_err(|e| e.to_string())?)
        }
    };
    Ok(identity::SanMatcher {
        kind,
        pattern,
        ignore_case: matcher.matcher.ignore_case,
    })
}

fn alpn(protocols: &[Arc<str>]) -> Vec<Vec<u8>> {
    protocols.iter().map(|p| p.as_bytes().to_vec()).collect()
}

fn settings(common: &CommonTls) -> Result<TlsSettings, String> {
    let version = |version| match version {
        tls::TlsVersion::Tls12 => TlsVersion::V1_2,
        tls::TlsVersion::Tls13 => TlsVersion::V1_3,
    };
    // Names that are not supported beside others that are were reported when the resource was decoded.
    let (ciphers, _) = CipherSuites::parse(&common.cipher_suites).map_err(|e| e.to_string())?;
    Ok(TlsSettings {
        minimum: version(common.min_version),
        maximum: version(common.max_version),
        ciphers,
        curves: Curves::default(),
    })
}
